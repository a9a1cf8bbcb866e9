"""How the images of one request become one body: alone, listed, as a grid, an array, an animation.

Images are uint8 [N, H, W, C]. What makes a file of each image (`OfFiles`) can use files that were
made before; what makes something of all of them together (`OfPixels`) needs the pixels. Knows
nothing of HTTP, or of where images come from.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from models.generator import Images
from models.grid import square_columns
from serving.images import NPY_MEDIA_TYPE, Format, as_grid, as_strip, encode_npy

JSON = "application/json"

# Below this many bytes of pixels, handing them to another thread costs more than encoding them.
_INLINE_BYTES = 16 << 10
_INLINE_NPY_BYTES = 1 << 20


class Subject(Protocol):
    """What a list says of its images."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> int:
        """Of the model."""
        ...

    @property
    def digest(self) -> str:
        """Of the model."""
        ...

    @property
    def seeds(self) -> list[int] | None:
        """[N], if the images are of seeds."""
        ...

    @property
    def labels(self) -> list[int] | None:
        """[N], for conditional models."""
        ...


class EncodedImage(msgspec.Struct, frozen=True):
    """One image of a list; seed and label as far as they were given."""

    data: str
    seed: int | None = None
    label: int | None = None


class EncodedImages(msgspec.Struct, frozen=True):
    """Several images as JSON."""

    model: str
    version: int
    digest: str
    media_type: str
    images: list[EncodedImage]


@dataclass(frozen=True)
class OfFiles:
    """Base: every image is a file of one format."""

    format: Format
    inline_bytes = _INLINE_BYTES

    @property
    def label(self) -> str:
        """Short, of a metric."""
        return self.format.name

    @property
    def media_type(self) -> str:
        """Of the body."""
        raise NotImplementedError

    def from_files(self, files: list[bytes], subject: Subject) -> bytes:
        """The body, of each image's file."""
        raise NotImplementedError


@dataclass(frozen=True)
class Alone(OfFiles):
    """The only image."""

    @property
    def media_type(self) -> str:
        """Implements `OfFiles`."""
        return self.format.media_type

    def from_files(self, files: list[bytes], subject: Subject) -> bytes:
        """Implements `OfFiles`."""
        return files[0]


@dataclass(frozen=True)
class Listed(OfFiles):
    """JSON with every image as base64."""

    @property
    def media_type(self) -> str:
        """Implements `OfFiles`."""
        return JSON

    def from_files(self, files: list[bytes], subject: Subject) -> bytes:
        """Implements `OfFiles`."""
        entries = [
            EncodedImage(
                data=base64.b64encode(data).decode("ascii"),
                seed=None if subject.seeds is None else subject.seeds[index],
                label=None if subject.labels is None else subject.labels[index],
            )
            for index, data in enumerate(files)
        ]
        kind = self.format.media_type
        answer = EncodedImages(subject.name, subject.version, subject.digest, kind, entries)
        return msgspec.json.encode(answer)


class OfPixels:
    """Base: one body of all images together."""

    inline_bytes = _INLINE_BYTES
    """Up to so many bytes of pixels are encoded where they arrive."""

    @property
    def label(self) -> str:
        """Short, of a metric."""
        raise NotImplementedError

    @property
    def media_type(self) -> str:
        """Of the body."""
        raise NotImplementedError

    def from_images(self, images: Images) -> bytes:
        """The body."""
        raise NotImplementedError


@dataclass(frozen=True)
class Tiled(OfPixels):
    """All images as tiles of one: near a square, or side by side."""

    format: Format
    strip: bool = False

    @property
    def label(self) -> str:
        """Implements `OfPixels`."""
        return self.format.name

    @property
    def media_type(self) -> str:
        """Implements `OfPixels`."""
        return self.format.media_type

    def tiles(self, num_images: int) -> tuple[int, int]:
        """Columns and rows."""
        columns = num_images if self.strip else square_columns(num_images)
        return columns, -(-num_images // columns)

    def from_images(self, images: Images) -> bytes:
        """Implements `OfPixels`."""
        return self.format.encode(as_strip(images) if self.strip else as_grid(images))


@dataclass(frozen=True)
class Array(OfPixels):
    """One .npy array [N, H, W, C] uint8."""

    inline_bytes = _INLINE_NPY_BYTES
    label = "npy"

    @property
    def media_type(self) -> str:
        """Implements `OfPixels`."""
        return NPY_MEDIA_TYPE

    def from_images(self, images: Images) -> bytes:
        """Implements `OfPixels`."""
        return encode_npy(images)


@dataclass(frozen=True)
class Animated(OfPixels):
    """The images as frames, each shown for frame_ms, over and over."""

    kind: str
    encode: Callable[[Images, int], bytes]
    frame_ms: int
    inline_bytes = 0
    label = "animation"

    @property
    def media_type(self) -> str:
        """Implements `OfPixels`."""
        return self.kind

    def from_images(self, images: Images) -> bytes:
        """Implements `OfPixels`."""
        return self.encode(images, self.frame_ms)


Encoding = OfFiles | OfPixels
