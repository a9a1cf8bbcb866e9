"""A Python client of the server: images for seeds, as arrays, pictures or files.

    from serving.client import Client

    with Client("http://127.0.0.1:8000") as client:
        pictures = client.generate([1, 2, 3], labels=7)

Needs httpx, msgspec, numpy and Pillow, and nothing of the server. `python -m serving.client` is a
command line on it.
"""

from serving.client.answers import Answer, Model
from serving.client.clients import AsyncClient, Client
from serving.client.errors import ClientError

__all__ = ["Answer", "AsyncClient", "Client", "ClientError", "Model"]
