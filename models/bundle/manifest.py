"""The manifest of a bundle: the model's inputs and outputs, its origin and its figures.

It is made of typed records with a strict JSON form. This module opens no files.
"""

import datetime
import re
from typing import Any, Literal

import msgspec

from models.errors import BundleError

SCHEMA_VERSION = 2  # 2 has images with alpha
MAX_DIM = 2**16  # of a latent or an image's side; more would be damage or an attack
_FILE_NAME = re.compile(r"[^\x00-\x1f\x7f./\\][^\x00-\x1f\x7f/\\]*")


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An input or output of model.onnx; -1 in its shape stands for the batch."""

    name: str
    datatype: Literal["FP32", "INT64", "UINT8"]
    shape: tuple[int, ...]


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size of the images in pixels, and their channels: 1 (grey), 3 (RGB) or 4 (RGBA)."""

    height: int
    width: int
    channels: Literal[1, 3, 4]

    @property
    def colours(self) -> str:
        """The kind of pixels in words."""
        return {1: "grey", 3: "RGB", 4: "RGBA"}[self.channels]

    @property
    def has_alpha(self) -> bool:
        """True where pixels may be transparent; alpha is not premultiplied."""
        return self.channels == 4

    @property
    def schema_version(self) -> int:
        """The earliest schema that knows such images, so that earlier releases read the others."""
        return 2 if self.has_alpha else 1


class Dataset(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The images that the model was trained on.

    fingerprint: SHA-256 of the uint8 pixels, the labels and, where there are any, the weights.
    """

    name: str
    num_images: int
    fingerprint: str
    content: str | None = None
    """The digest without the weights, where images were drawn by weight."""


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A measured figure with its protocol: number of images, features, seeds and so on."""

    name: str
    value: float
    protocol: dict[str, Any]


class Parity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The largest difference between model.onnx and the torch generator, in 8-bit steps."""

    max_abs_diff: int
    num_seeds: int


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SHA-256 and size of a file of the bundle."""

    sha256: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of manifest.json."""

    schema_version: int
    name: str
    version: int
    created: str
    z_dim: int
    image: ImageSpec
    labels: tuple[str, ...] | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    recipe: str
    options: dict[str, Any]
    dataset: Dataset
    source_commit: str | None
    metrics: tuple[Metric, ...]
    parity: Parity
    files: dict[str, FileEntry]

    @property
    def conditional(self) -> bool:
        """True where every image needs a label."""
        return self.labels is not None

    @property
    def created_s(self) -> float:
        """Time of the export in seconds since 1970; 0 where `created` is not a date.

        A date without an offset is read as UTC, whatever this machine's time zone is.
        """
        try:
            created = datetime.datetime.fromisoformat(self.created)
        except ValueError:
            return 0.0
        return (created if created.tzinfo else created.replace(tzinfo=datetime.UTC)).timestamp()

    @property
    def has_mapping(self) -> bool:
        """True where the graph has a mapping network and takes the truncation psi."""
        return any(spec.name == "psi" for spec in self.inputs)


def tensor_specs(
    z_dim: int, image: ImageSpec, *, conditional: bool, has_mapping: bool = False
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs that model.onnx must have."""
    inputs = [TensorSpec(name="z", datatype="FP32", shape=(-1, z_dim))]
    if conditional:
        inputs.append(TensorSpec(name="label", datatype="INT64", shape=(-1,)))
    if has_mapping:
        inputs.append(TensorSpec(name="psi", datatype="FP32", shape=(-1,)))
    shape = (-1, image.height, image.width, image.channels)
    return tuple(inputs), (TensorSpec(name="image", datatype="UINT8", shape=shape),)


def encode(manifest: Manifest) -> bytes:
    """Encodes a manifest as indented JSON in UTF-8 with a final newline."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes, where: str) -> Manifest:
    """Reads and checks a manifest.

    Args:
        data: the bytes of manifest.json.
        where: the path, for error messages.

    Raises:
        BundleError: it is not JSON, has a newer schema, or a field is missing, unknown or
            contradicts another.
    """
    try:
        header = msgspec.json.decode(data, type=dict[str, Any])
        version = header.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BundleError(
                f"{where}: schema_version is {version}, this release reads up to {SCHEMA_VERSION}; "
                "upgrade saddlepoint, or export the model again with this release"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where}: {error}; export the model again") from error
    _check(manifest, where)
    return manifest


def _check(manifest: Manifest, where: str) -> None:
    image = manifest.image
    if manifest.version < 1:
        raise BundleError(f"{where}: version is {manifest.version}, must be at least 1")
    dimensions = {
        "z_dim": manifest.z_dim,
        "image.height": image.height,
        "image.width": image.width,
    }
    for field, value in dimensions.items():
        if not 1 <= value <= MAX_DIM:
            raise BundleError(f"{where}: {field} is {value}, must lie in 1 .. {MAX_DIM}")
    expected = tensor_specs(
        manifest.z_dim, image, conditional=manifest.conditional, has_mapping=manifest.has_mapping
    )
    if (manifest.inputs, manifest.outputs) != expected:
        raise BundleError(f"{where}: inputs and outputs don't match z_dim, image and labels")
    if manifest.labels is not None and not manifest.labels:
        raise BundleError(f"{where}: labels is empty; a conditional model has at least one")
    for name in manifest.files:
        if not _FILE_NAME.fullmatch(name):
            raise BundleError(f"{where}: files names {name!r}; only plain file names are allowed")
