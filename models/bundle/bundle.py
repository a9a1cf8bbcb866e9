"""A bundle: the folder of an exported model. It verifies, or is refused with the reason.

    model.onnx      z float32 [N, z_dim] (+ label int64 [N], + psi float32 [N]) -> image uint8 NHWC
    manifest.json   inputs and outputs, origin, figures, a digest of every file
    golden.npz      seeds (+ labels) and the images that this model must give for them
    samples.png  card.md    for people
    encoder.onnx  encoder_golden.npz    image uint8 NHWC -> z: see `models.bundle.inversion`
    encoder_images.npz    what it learned from, if the training wrote it down
    score.onnx  calibration.npz    how unusual an image is: see `models.bundle.anomaly`
    mapping.onnx  synthesis.onnx  styles.npz    of style models: see `models.bundle.styles`
    units.onnx  units.npz    where they were looked for: see `models.bundle.units`
    directions.npz  where they were looked for: see `models.bundle.directions`

This module writes, opens and verifies such a folder. It knows no torch, repository or server.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from models.bundle.archive import read_arrays
from models.bundle.files import open_regular, size_of
from models.bundle.generator import Generate, Images
from models.bundle.manifest import FileEntry, Manifest, decode, encode
from models.errors import BundleError
from models.latents import latents

GOLDEN_TOLERANCE = 2  # in 8-bit steps: processors add in different orders, and so round differently
REQUIRED_FILES = ("model.onnx", "golden.npz", "samples.png", "card.md")
MANIFEST = "manifest.json"
ENCODER = "encoder.onnx"
"""Optional: maps images to the z from which model.onnx makes them: `models.bundle.inversion`."""
MAX_MANIFEST_BYTES = 16 << 20
MAX_GOLDEN_BYTES = 256 << 20  # inflated: 85 images of 1024x1024 RGB


@dataclass(frozen=True, kw_only=True)
class GoldenTolerance:
    """How far images may be from the golden ones, in 8-bit steps."""

    most: int = GOLDEN_TOLERANCE
    """Of any pixel."""
    mean: float = GOLDEN_TOLERANCE
    """Of all pixels on average."""
    remedy: str = "the model does not run here as it did when exported"
    """The end of the message where they are further."""


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Images that the model must give for certain seeds.

    seeds [N] uint64; labels [N] int64, None where the model takes none; images [N, H, W, C].
    """

    seeds: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.int64] | None
    images: Images

    def to_bytes(self) -> bytes:
        """Encodes the arrays as a compressed .npz archive."""
        arrays: dict[str, npt.NDArray[Any]] = {"seeds": self.seeds, "images": self.images}
        if self.labels is not None:
            arrays["labels"] = self.labels
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()


@dataclass(frozen=True)
class Bundle:
    """A folder whose manifest was read; `verify_files` and `verify_golden` check the rest."""

    path: Path
    manifest: Manifest
    digest: str
    """The model's identity: SHA-256 of manifest.json, which holds every other file's digest."""

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Opens a bundle by reading its manifest, and no other file.

        Raises:
            BundleError: the manifest can't be read, or has a newer schema.
        """
        file = path / MANIFEST
        try:
            with open_regular(file) as stream:
                size = size_of(stream)
                data = stream.read(MAX_MANIFEST_BYTES)
        except OSError as error:
            raise BundleError(f"{file}: {error.strerror}; a bundle needs a manifest") from error
        if size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{file}: holds {size} bytes, allowed are {MAX_MANIFEST_BYTES}")
        return cls(path, decode(data, str(file)), hashlib.sha256(data).hexdigest())

    @property
    def model_path(self) -> Path:
        """Path of model.onnx."""
        return self.path / "model.onnx"

    @cached_property
    def golden(self) -> Golden:
        """The golden images, read once.

        Raises:
            BundleError: golden.npz can't be read, or doesn't match the manifest.
        """
        file = self.path / "golden.npz"
        try:
            names = ("seeds", "labels", "images")
            arrays = read_arrays(file, names=names, max_bytes=MAX_GOLDEN_BYTES)
            golden = Golden(
                seeds=arrays["seeds"], labels=arrays.get("labels"), images=arrays["images"]
            )
        except Exception as error:  # bytes that are no archive make zlib and NumPy raise anything
            reason = str(error) or type(error).__name__
            raise BundleError(f"{file}: {reason}; export the model again") from error
        self._check_shapes(golden, file)
        return golden

    def verify_files(self) -> None:
        """Compares the size and digest of every file with the manifest.

        Raises:
            BundleError: a file is missing, is not a regular file, or differs.
        """
        missing = [name for name in REQUIRED_FILES if name not in self.manifest.files]
        if missing:
            raise BundleError(f"{self.path / MANIFEST}: files lacks {', '.join(missing)}")
        for name, entry in self.manifest.files.items():
            difference = _difference(self.path / name, entry)
            if difference:
                raise BundleError(
                    f"{self.path / name}: {difference}; "
                    "the file was altered after export: publish the model again"
                )

    def verify_golden(
        self, generate: Generate, tolerance: GoldenTolerance = GoldenTolerance()
    ) -> int:
        """Generates the golden images again and compares them with those in the bundle.

        Args:
            generate: the model on the device that it will run on.
            tolerance: how far they may differ.

        Returns:
            The largest difference in 8-bit steps.

        Raises:
            BundleError: they differ more than the tolerance allows, or in shape.
        """
        golden = self.golden
        z = latents(golden.seeds, self.manifest.z_dim)
        psi = np.ones(len(z), dtype=np.float32) if self.manifest.has_mapping else None
        try:
            images = generate(z, golden.labels, psi)
        except Exception as error:  # a runtime's errors share no base
            raise BundleError(
                f"{self.model_path}: can't make the golden images: {error}; export the model again"
            ) from error
        if images.shape != golden.images.shape or images.dtype != np.uint8:
            raise BundleError(
                f"{self.model_path}: gave {images.dtype} images {list(images.shape)}, "
                f"golden.npz holds uint8 {list(golden.images.shape)}; export the model again"
            )
        steps = np.abs(images.astype(np.int16) - golden.images)
        difference, mean = int(steps.max()), float(steps.mean())
        if difference > tolerance.most or mean > tolerance.mean:
            raise BundleError(
                f"{self.model_path}: golden images differ by up to {difference}/255, on average by "
                f"{mean:.2g}/255, allowed are {tolerance.most}/255 and {tolerance.mean:g}/255; "
                f"{tolerance.remedy}"
            )
        return difference

    def _check_shapes(self, golden: Golden, file: Path) -> None:
        image = self.manifest.image
        num = golden.seeds.size
        fits = (
            num > 0
            and golden.seeds.dtype == np.uint64
            and golden.seeds.shape == (num,)
            and golden.images.dtype == np.uint8
            and golden.images.shape == (num, image.height, image.width, image.channels)
            and self._labels_fit(golden.labels, num)
        )
        if not fits:
            raise BundleError(f"{file}: its arrays don't fit the manifest; export the model again")

    def _labels_fit(self, labels: npt.NDArray[np.int64] | None, num: int) -> bool:
        names = self.manifest.labels
        if labels is None or names is None:
            return labels is None and names is None
        if labels.dtype != np.int64 or labels.shape != (num,):
            return False
        return bool(0 <= labels.min() <= labels.max() < len(names))


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Writes a bundle into a new folder and waits until the disk has every file.

    Args:
        path: the folder; must not exist.
        manifest: all but its `files`, which is set here.
        files: content by file name; must include REQUIRED_FILES.

    Raises:
        BundleError: a required file is missing, or the manifest contradicts itself.
    """
    missing = [name for name in REQUIRED_FILES if name not in files]
    if missing:
        raise BundleError(f"{path}: a bundle needs {', '.join(missing)}")
    entries = {name: _entry(data) for name, data in files.items()}
    data = encode(msgspec.structs.replace(manifest, files=entries))
    decode(data, str(path / MANIFEST))  # what could not be read again is never written
    path.mkdir(parents=True)
    for name, content in files.items():
        write_synced(path / name, content)
    write_synced(path / MANIFEST, data)
    sync_folder(path)
    return Bundle.open(path)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and waits until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the disk has the folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entry(data: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def _difference(path: Path, expected: FileEntry) -> str:
    """Describes how a file differs from its entry; empty if it doesn't. The size comes first."""
    try:
        with open_regular(path) as file:
            size = size_of(file)
            if size != expected.size_bytes:
                return f"holds {size} bytes, the manifest says {expected.size_bytes}"
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; publish the model again") from error
    if digest == expected.sha256:
        return ""
    return f"sha256 is {digest[:16]}..., the manifest says {expected.sha256[:16]}..."
