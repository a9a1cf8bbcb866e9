"""LSUN's scenes (Yu et al. 2015), read from its LMDB databases with the package lmdb.

torchvision's class isn't used, since it writes a pickle into the working directory and loads any
that it finds there.
"""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from training.data.decoding import Encoded
from training.data.sources.registry import ImageRequest, Raw, dataset, decoded
from training.errors import DataError


@dataset("lsun", labelled=True, needs_path=True)
def lsun(request: ImageRequest) -> Raw:
    """Scenes: every CATEGORY_train_lmdb in the folder is a class."""
    try:
        lmdb = importlib.import_module("lmdb")
    except ImportError as error:
        raise DataError(
            "data.dataset is 'lsun': its databases need the package lmdb; run `pip install lmdb`"
        ) from error
    folders = sorted(request.root.glob("*_train_lmdb"))
    if not folders:
        raise DataError(
            f"data.path is {request.root}: it holds no folder CATEGORY_train_lmdb; fetch one from "
            "https://www.yf.io/p/lsun, unpack it and give the folder that holds it"
        )
    try:
        options = {"readonly": True, "lock": False, "readahead": False, "meminit": False}
        databases = [lmdb.open(str(folder), **options) for folder in folders]
    except lmdb.Error as error:
        raise DataError(f"data.path is {request.root}: {error}; fetch the files again") from error
    try:
        names = tuple(folder.name.removesuffix("_train_lmdb") for folder in folders)
        num = sum(database.stat()["entries"] for database in databases)
        return decoded(request, _images(databases, names), num, names)
    finally:
        for database in databases:
            database.close()


def _images(databases: Sequence[Any], names: Sequence[str]) -> Iterator[Encoded]:
    for label, (database, name) in enumerate(zip(databases, names, strict=True)):
        with database.begin(buffers=False) as transaction:
            for key, value in transaction.cursor():
                yield Encoded(f"{name}/{key.decode(errors='replace')}", bytes(value), label)
