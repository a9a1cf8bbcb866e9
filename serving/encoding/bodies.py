"""How the images of one request become one body: alone, listed, as a grid, an array, an animation.

Images are uint8 [N, H, W, C]. A `FileEncoding` makes a file of each image, so it can use files that
were made before. A `PixelEncoding` makes one thing of all images, and needs their pixels. This
module does not know HTTP, and does not know where images come from.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from models.bundle.generator import Images
from models.grid import square_columns
from serving.encoding.formats import NPY_MEDIA_TYPE, Format, as_grid, as_strip, encode_npy

JSON = "application/json"

# Below this many bytes of pixels, handing them to another thread costs more than encoding them.
_INLINE_BYTES = 16 << 10
_INLINE_NPY_BYTES = 1 << 20


# Memory while images are encoded, in sizes of their pixels: the pixels, a grid of them, rows as PNG
# filters them, the file; or pixels, files, the files' base64 and the JSON around it.
_COPIES = 5


class Subject(Protocol):
    """The request that a list of images describes."""

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    @property
    def version(self) -> int:
        """Version of the model."""
        ...

    @property
    def digest(self) -> str:
        """Digest of the model."""
        ...

    @property
    def seeds(self) -> list[int] | None:
        """The [N] seeds, if the images were made of seeds."""
        ...

    @property
    def written_seeds(self) -> list[int | str] | None:
        """The seeds as the client wrote them, where some are strings."""
        ...

    @property
    def labels(self) -> list[int] | None:
        """The [N] labels, for conditional models."""
        ...


class EncodedImage(msgspec.Struct, frozen=True):
    """One image of a list; seed and label as far as they were given."""

    data: str
    seed: int | str | None = None
    label: int | None = None


class EncodedImages(msgspec.Struct, frozen=True):
    """Several images as JSON."""

    model: str
    version: int
    digest: str
    media_type: str
    images: list[EncodedImage]


@dataclass(frozen=True)
class FileEncoding:
    """Base class: every image is a file of one format."""

    format: Format
    inline_bytes = _INLINE_BYTES
    copies = _COPIES

    @property
    def label(self) -> str:
        """Name of the encoding, as a metric's label."""
        return self.format.name

    @property
    def media_type(self) -> str:
        """Media type of the body."""
        raise NotImplementedError

    def from_files(self, files: list[bytes], subject: Subject) -> bytes:
        """Makes the body of the images' files; subject: the request, which a list describes."""
        raise NotImplementedError


@dataclass(frozen=True)
class Alone(FileEncoding):
    """The only image, as it is."""

    @property
    def media_type(self) -> str:
        """Media type of the image."""
        return self.format.media_type

    def from_files(self, files: list[bytes], subject: Subject) -> bytes:
        """Returns the only file."""
        return files[0]


@dataclass(frozen=True)
class Listed(FileEncoding):
    """JSON with every image as base64."""

    @property
    def media_type(self) -> str:
        """Media type of JSON."""
        return JSON

    def from_files(self, files: list[bytes], subject: Subject) -> bytes:
        """Makes an `EncodedImages` document."""
        seeds = subject.written_seeds or subject.seeds
        entries = [
            EncodedImage(
                data=base64.b64encode(data).decode("ascii"),
                seed=None if seeds is None else seeds[index],
                label=None if subject.labels is None else subject.labels[index],
            )
            for index, data in enumerate(files)
        ]
        kind = self.format.media_type
        answer = EncodedImages(subject.name, subject.version, subject.digest, kind, entries)
        return msgspec.json.encode(answer)


class PixelEncoding:
    """Base class: one body of all images together."""

    inline_bytes = _INLINE_BYTES
    copies = _COPIES
    """Images of at most so many bytes are encoded in the event loop, larger ones in a thread."""

    @property
    def label(self) -> str:
        """Name of the encoding, as a metric's label."""
        raise NotImplementedError

    @property
    def media_type(self) -> str:
        """Media type of the body."""
        raise NotImplementedError

    def from_images(self, images: Images) -> bytes:
        """Makes the body."""
        raise NotImplementedError


@dataclass(frozen=True)
class Tiled(PixelEncoding):
    """All images as tiles of one image: near a square, or side by side."""

    format: Format
    strip: bool = False

    @property
    def label(self) -> str:
        """Name of the image's format."""
        return self.format.name

    @property
    def media_type(self) -> str:
        """Media type of the image's format."""
        return self.format.media_type

    def tiles(self, num_images: int) -> tuple[int, int]:
        """Returns the number of columns and of rows."""
        columns = num_images if self.strip else square_columns(num_images)
        return columns, -(-num_images // columns)

    def from_images(self, images: Images) -> bytes:
        """Makes one image file."""
        return self.format.encode(as_strip(images) if self.strip else as_grid(images))


@dataclass(frozen=True)
class Array(PixelEncoding):
    """One .npy array [N, H, W, C] uint8."""

    inline_bytes = _INLINE_NPY_BYTES
    copies = 2
    label = "npy"

    @property
    def media_type(self) -> str:
        """Media type of .npy files."""
        return NPY_MEDIA_TYPE

    def from_images(self, images: Images) -> bytes:
        """Makes one .npy file."""
        return encode_npy(images)


@dataclass(frozen=True)
class Animated(PixelEncoding):
    """The images as frames of an animation that repeats for ever."""

    kind: str
    encode: Callable[[Images, Sequence[int]], bytes]
    durations_ms: Sequence[int]
    """For how long each frame is shown."""
    inline_bytes = 0
    label = "animation"

    @property
    def media_type(self) -> str:
        """Media type of the animation."""
        return self.kind

    def from_images(self, images: Images) -> bytes:
        """Makes one animation file."""
        return self.encode(images, self.durations_ms)


Encoding = FileEncoding | PixelEncoding
