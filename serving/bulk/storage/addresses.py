"""From a path or an address to the store that it names."""

from pathlib import Path

from serving.bulk.storage.remote import RemoteStore
from serving.bulk.storage.store import LocalStore, Store


def open_store(address: str) -> Store:
    """The store of a path or address.

    Raises:
        PlanError: its protocol is unknown, or what it needs isn't installed.
    """
    scheme, separator, path = address.partition("://")
    if not separator:
        return LocalStore(Path(address))
    if scheme in ("file", "local"):
        return LocalStore(Path(path))
    return RemoteStore(address)
