"""Image files that strangers send: from bytes to pixels, or to a reason in words.

PNG, JPEG and WebP by Pillow, and arrays as .npy. Parsers of C read what a stranger wrote, so this
runs in a process of its own, which may be ended at any moment (`serving.encoding.decoder`).

Which files are read, and of what sizes, is said here; what their pixels are is said for training
and for the server in one place, `models.decoding.road`.
"""

import functools
import io
import warnings
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from models.decoding import road
from models.decoding.colour import ProfileError
from models.decoding.form import Form
from models.decoding.orientation import upright_size

Pixels = npt.NDArray[np.uint8]

_PNG, _JPEG, _RIFF, _NPY = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"\x93NUMPY"
_MAX_NPY_HEADER, _NPY_PREFIX = 4096, 12
_COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}
_KEPT_PROFILE_BYTES = 1 << 16  # of a profile whose transform is kept: strangers send many


class RefusedImageError(Exception):
    """The file can't be used; the text says why, and what can."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of a file."""

    field: str
    """Its name in the request, for refusals."""
    height: int
    width: int
    channels: int
    """1 grey, 3 RGB, 4 RGBA."""
    fit: Literal["exact", "crop", "stretch", "smaller"] = "exact"
    """Of another size: refused, its middle scaled, scaled as it is; smaller: any that divides."""
    alpha: Literal["refuse", "mask"] = "refuse"
    """What transparency means where the model's images have none."""
    max_pixels: int


class Decoded(msgspec.Struct, frozen=True):
    """The pixels of a file."""

    pixels: Pixels
    """[h, w, C]."""
    known: Pixels | None
    """[h, w]: 0 where the file is transparent, else 1; None where it is transparent nowhere."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the file's image as a viewer shows it, before it is fitted."""


def decode(data: bytes | bytearray | memoryview, wanted: Wanted) -> Decoded:
    """Decodes a file to pixels of the wanted size and channels.

    Raises:
        RefusedImageError: it can't be used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs: sizes are checked here
            shown, size = _seen(_opened(data, wanted), wanted)
            pixels, known = _fitted(shown, _check_fit(*shown.colours.size, wanted))
            return Decoded(pixels, known, size)
    except RefusedImageError:
        raise
    except MemoryError:
        raise RefusedImageError(
            f"{wanted.field} needs more memory than a file may have; send a smaller one"
        ) from None
    except UnidentifiedImageError:  # whose own words name an object in memory
        raise RefusedImageError(
            f"{wanted.field} can't be read: its header is damaged or cut off; send it again"
        ) from None
    except Exception as error:  # Pillow's parsers raise errors of many kinds
        reason = str(error) or type(error).__name__
        raise RefusedImageError(
            f"{wanted.field} can't be read: {reason[:200]}; it is damaged or cut off, send it again"
        ) from None


def _opened(data: bytes | bytearray | memoryview, wanted: Wanted) -> Image.Image:
    """The image, not loaded yet; its size is checked before memory is taken for it."""
    if is_npy(data):
        return _from_array(data, wanted)
    data = bytes(data)
    kind = _kind(data)
    if kind is None:
        raise RefusedImageError(
            f"{wanted.field} begins with {data[:8]!r}: it is no PNG, JPEG, WebP or npy file"
        )
    if kind == "WEBP":  # whose decoder takes memory for the canvas as soon as it is opened
        _check_size(*_webp_size(data), wanted)
    Image.MAX_IMAGE_PIXELS = None
    image = road.opened(data, formats=(kind,))
    _check_size(*image.size, wanted)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and kind != "JPEG":  # telephones add previews to a JPEG; the first is the image
        raise RefusedImageError(
            f"{wanted.field} is an animation of {frames} frames; send one image"
        )
    return image


def is_npy(data: bytes | bytearray | memoryview) -> bool:
    """Whether a file says that it is an array."""
    return bytes(data[: len(_NPY)]) == _NPY


def _kind(data: bytes) -> str | None:
    if data.startswith(_PNG):
        return "PNG"
    if data.startswith(_JPEG):
        return "JPEG"
    return "WEBP" if data.startswith(_RIFF) and data[8:12] == b"WEBP" else None


def _check_size(width: int, height: int, wanted: Wanted) -> None:
    if width < 1 or height < 1 or width * height > wanted.max_pixels:
        raise RefusedImageError(
            f"{wanted.field} has {width}x{height} pixels, allowed are 1 .. {wanted.max_pixels} in "
            "all (--max-input-pixels); send a smaller one"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP file's canvas (RFC 9649, 2.5 to 2.7)."""
    kind, body = data[12:16], data[20:]
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    size = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
    return size[0] & 0x3FFF, size[1] & 0x3FFF


def _from_array(data: bytes | bytearray | memoryview, wanted: Wanted) -> Image.Image:
    """An .npy array; a header that claims a huge shape costs no memory."""
    stream = io.BytesIO(data[: _MAX_NPY_HEADER + _NPY_PREFIX])
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise RefusedImageError(
            f"{wanted.field} is .npy of version {version}; save it by numpy.save"
        )
    read: Callable[..., tuple[Any, bool, np.dtype[Any]]] = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(stream, max_header_size=_MAX_NPY_HEADER)
    grey = len(shape) == 2
    if dtype.kind not in "bu" or dtype.itemsize > 2 or not (grey or len(shape) == 3):
        raise RefusedImageError(
            f"{wanted.field} is an array of {dtype} {list(shape)}, must be uint8 or uint16 "
            "[H, W, C] or [H, W]"
        )
    channels = 1 if grey else shape[2]
    if channels not in _COLOURS:
        raise RefusedImageError(
            f"{wanted.field} is an array {list(shape)}, channels must be 1, 3 or 4"
        )
    _check_size(shape[1], shape[0], wanted)
    size, there = shape[0] * shape[1] * channels * dtype.itemsize, len(data) - stream.tell()
    if size != there:
        raise RefusedImageError(
            f"{wanted.field} holds {there} bytes of pixels, its header says {size}"
        )
    array = np.frombuffer(data, dtype, offset=stream.tell())
    array = array.reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "b":
        array = array * np.uint8(255)
    elif dtype.itemsize == 2:
        out = np.empty_like(array, np.uint8)
        array = np.right_shift(array, 8, out=out, casting="unsafe")  # without a copy of 16 bits
    pixels = np.ascontiguousarray(array if grey or channels > 1 else array[:, :, 0])
    return Image.fromarray(pixels)


def _seen(image: Image.Image, wanted: Wanted) -> tuple[road.Shown, tuple[int, int]]:
    """The image as a viewer shows it, and its own width and height."""
    size = upright_size(image)  # before a part of it is decoded
    if wanted.fit in ("crop", "stretch"):
        road.draft(image, _form(wanted, wanted.channels))
    profile = image.info.get("icc_profile") or b""
    try:
        shown = road.shown(
            image, strict=True, keeps_profile=len(profile) <= _KEPT_PROFILE_BYTES, frees=True
        )
    except ProfileError as error:
        raise RefusedImageError(
            f"{wanted.field} has a colour profile that can't be used ({error}); save it as sRGB, "
            "or without a profile"
        ) from None
    return shown, size


def _fitted(shown: road.Shown, wanted: Wanted) -> tuple[Pixels, Pixels | None]:
    """The image in the wanted size and channels, and what of it is known."""
    if wanted.channels == 4 or shown.alpha is None:
        return _rows(shown.pixels(_form(wanted, wanted.channels))), None
    if wanted.alpha == "refuse":
        raise RefusedImageError(
            f"{wanted.field} is transparent in places, the model's images are "
            f"{_COLOURS[wanted.channels]}; flatten it, or have those places filled by /v1/inpaint"
        )
    pixels = _rows(shown.pixels(_form(wanted, 4)))
    return road.colours_and_known(pixels, wanted.channels)


@functools.lru_cache(maxsize=64)
def _form(wanted: Wanted, channels: int) -> Form:
    fit: Literal["crop", "stretch"] = "stretch" if wanted.fit == "stretch" else "crop"
    return Form(height=wanted.height, width=wanted.width, channels=channels, fit=fit)


def _rows(pixels: Pixels) -> Pixels:
    """[C, H, W] as [H, W, C]."""
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _check_fit(width: int, height: int, wanted: Wanted) -> Wanted:
    """Refuses another size, where it may not be scaled; gives what is wanted of this file."""
    if (width, height) == (wanted.width, wanted.height) or wanted.fit in ("crop", "stretch"):
        return wanted
    if wanted.fit == "smaller":
        _check_divides(width, height, wanted)
        return msgspec.structs.replace(wanted, width=width, height=height)
    raise RefusedImageError(
        f"{wanted.field} has {width}x{height} pixels, the model's images {wanted.width}x"
        f"{wanted.height}; send that size, or add fit: crop (its middle) or stretch"
    )


def _check_divides(width: int, height: int, wanted: Wanted) -> None:
    """Refuses a small image whose sides aren't one whole part of the model's."""
    factor = wanted.width // width if width else 0
    if factor < 2 or (width * factor, height * factor) != (wanted.width, wanted.height):
        fits = [
            f"{wanted.width // n}x{wanted.height // n}"
            for n in range(2, min(wanted.width, wanted.height) + 1)
            if wanted.width % n == 0 and wanted.height % n == 0
        ]
        raise RefusedImageError(
            f"{wanted.field} has {width}x{height} pixels; those that can become "
            f"{wanted.width}x{wanted.height} are {', '.join(fits[:8]) or 'none'}"
        )
