"""A server with models that take real images, and one that takes none."""

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator
from models.latents import latents
from models.repository import Repository
from tests.conftest import ServerProcess, free_port, server_process
from tests.real_images import FRAGILE, FULL, OLD, TOLD


def npy(array: np.ndarray[Any, Any]) -> bytes:
    """An array as a file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def text(data: bytes) -> str:
    """A file as a field of JSON."""
    return base64.b64encode(data).decode()


@pytest.fixture(scope="session")
def bundles(make_bundle: Callable[..., Bundle]) -> dict[str, Bundle]:
    """digits: grey 8x12 of 10 classes, which its encoder finds; the others are small, too."""
    wide = {"size": (8, 12), "scale": 10}
    return {
        "digits": make_bundle(num_classes=10, directions=True, encoder=FULL, **wide),
        "told": make_bundle(num_classes=3, encoder=TOLD, **wide),
        "old": make_bundle(directions=True, encoder=OLD, **wide),
        "fragile": make_bundle(encoder=FRAGILE, **wide),
        "alpha": make_bundle(channels=4, encoder=FULL, scale=10),
        "bare": make_bundle(),
    }


@pytest.fixture(scope="session")
def real(
    bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """One server for all tests that do it no harm."""
    folder = tmp_path_factory.mktemp("real")
    repository = Repository(folder / "repository")
    for name, bundle in bundles.items():
        repository.publish(name, bundle)
    flags = ("--max-input-pixels", "100000", "--max-body-bytes", "400000")
    flags += ("--grpc-port", str(free_port()), "--model-control", "clients")
    with server_process(repository.root, folder, *flags) as running:
        yield running


def made(bundle: Bundle, num: int) -> np.ndarray[Any, Any]:
    """Images that a model makes, of classes 0, 1 ... where it has some."""
    names = bundle.manifest.labels
    labels = None if names is None else np.arange(num, dtype=np.int64) % len(names)
    z = latents(np.arange(num, dtype=np.uint64), bundle.manifest.z_dim)
    return CpuGenerator(bundle.model_path)(z, labels)
