"""Bundles to spoil: copies, which verify until a test does something to them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from models.bundle.bundle import _entry


@pytest.fixture(scope="session")
def grey(make_bundle: Callable[..., Bundle]) -> Bundle:
    """Unconditional; not to be altered."""
    return make_bundle()


@pytest.fixture(scope="session")
def classes(make_bundle: Callable[..., Bundle]) -> Bundle:
    """Conditional, three classes; not to be altered."""
    return make_bundle(num_classes=3)


class Spoiler:
    """A copy of a bundle, and the ways to alter it."""

    def __init__(self, source: Bundle, path: Path) -> None:
        shutil.copytree(source.path, path)
        self.path = path

    def manifest(self, **changes: Any) -> None:
        """Sets fields of manifest.json, however wrong."""
        file = self.path / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_bytes()) | changes))

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file, and its digest with it: only the content is wrong."""
        (self.path / name).write_bytes(data)
        entry = _entry(data)
        files = json.loads((self.path / "manifest.json").read_bytes())["files"]
        files[name] = {"sha256": entry.sha256, "size_bytes": entry.size_bytes}
        self.manifest(files=files)

    def open(self) -> Bundle:
        """The bundle as it is now."""
        return Bundle.open(self.path)


@pytest.fixture
def spoil(grey: Bundle, classes: Bundle, tmp_path: Path) -> Callable[..., Spoiler]:
    """Makes a copy to alter."""

    def make(*, conditional: bool = False) -> Spoiler:
        return Spoiler(classes if conditional else grey, tmp_path / "spoiled")

    return make
