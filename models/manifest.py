"""The manifest of a bundle: what the model takes and gives, where it came from, how good it is.

Plain typed records with a strict JSON form. Knows no files but the names and digests listed in it.
"""

import datetime
import re
from typing import Any, Literal

import msgspec

from models.errors import BundleError

SCHEMA_VERSION = 1
MAX_DIM = 2**16  # of a latent or an image's side: beyond it is damage or malice, not a model
_FILE_NAME = re.compile(r"[^\x00-\x1f\x7f./\\][^\x00-\x1f\x7f/\\]*")


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of model.onnx; -1 stands for the batch."""

    name: str
    datatype: Literal["FP32", "INT64", "UINT8"]
    shape: tuple[int, ...]


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size of the images in pixels; channels is 1 (grey) or 3 (RGB)."""

    height: int
    width: int
    channels: Literal[1, 3]


class Dataset(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the model was trained on. fingerprint: sha256 over the uint8 pixels and labels."""

    name: str
    num_images: int
    fingerprint: str
    content: str | None = None
    """Where images were drawn by weight, which the fingerprint tells too: the digest without."""


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A measured figure. It says nothing without its protocol (n, features, seeds ...)."""

    name: str
    value: float
    protocol: dict[str, Any]


class Parity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Agreement of model.onnx with the torch generator it was exported from, in 8-bit steps."""

    max_abs_diff: int
    num_seeds: int


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Digest and size of one file of the bundle."""

    sha256: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """manifest.json, the whole of it."""

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
        """When it was exported, in seconds since 1970; 0 where `created` is no date.

        A date without an offset is taken for UTC, whatever this machine's own time zone is.
        """
        try:
            created = datetime.datetime.fromisoformat(self.created)
        except ValueError:
            return 0.0
        return (created if created.tzinfo else created.replace(tzinfo=datetime.UTC)).timestamp()

    @property
    def has_mapping(self) -> bool:
        """True where the graph itself takes the truncation psi (a mapping network)."""
        return any(spec.name == "psi" for spec in self.inputs)


def tensor_specs(
    z_dim: int, image: ImageSpec, *, conditional: bool, has_mapping: bool = False
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of model.onnx by the bundle's contract."""
    inputs = [TensorSpec(name="z", datatype="FP32", shape=(-1, z_dim))]
    if conditional:
        inputs.append(TensorSpec(name="label", datatype="INT64", shape=(-1,)))
    if has_mapping:
        inputs.append(TensorSpec(name="psi", datatype="FP32", shape=(-1,)))
    shape = (-1, image.height, image.width, image.channels)
    return tuple(inputs), (TensorSpec(name="image", datatype="UINT8", shape=shape),)


def encode(manifest: Manifest) -> bytes:
    """The manifest as indented JSON, UTF-8, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes, where: str) -> Manifest:
    """Reads and checks a manifest.

    Args:
        data: the bytes of manifest.json.
        where: the path, for error messages.

    Raises:
        BundleError: not JSON, a newer schema, a field that is missing, unknown or contradictory.
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
