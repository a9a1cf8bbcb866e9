"""A Python client of the server: makes images from seeds, as arrays, for Pillow or as files.

    from serving.client import Client

    with Client("http://127.0.0.1:8000") as client:
        pictures = client.generate([1, 2, 3], labels=7)

It needs httpx, msgspec, NumPy and Pillow, and none of the server's packages. `python -m
serving.client` is its command line.
"""

from serving.client.async_client import AsyncClient
from serving.client.errors import ClientError
from serving.client.jobs import Job
from serving.client.real_image_answers import Inverted, Restored, Score
from serving.client.responses import Answer, Model
from serving.client.sync_client import Client

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "ClientError",
    "Inverted",
    "Job",
    "Model",
    "Restored",
    "Score",
]
