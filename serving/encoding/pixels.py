"""Image files that strangers send: from bytes to pixels, or to a reason in words.

PNG, JPEG and WebP by Pillow, and arrays as .npy. Parsers of C read what a stranger wrote, so this
runs in a process of its own, which may be ended at any moment (`serving.encoding.decoder`).

Pixels are those that a viewer shows: turned as Exif says, palettes and CMYK as colours, of 16 bits
the upper 8. Colour profiles are not applied.
"""

import io
import warnings
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

_PNG, _JPEG, _RIFF, _NPY = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"\x93NUMPY"
_MAX_NPY_HEADER = 4096
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}
_KNOWN = 128  # alpha from which a pixel counts as there


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
            image = _upright(_opened(bytes(data), wanted))
            return _fitted(_in_colours(image, wanted), wanted)
    except RefusedImageError:
        raise
    except MemoryError:
        raise RefusedImageError(
            f"{wanted.field} needs more memory than a file may have; send a smaller one"
        ) from None
    except Exception as error:  # Pillow's parsers raise errors of many kinds
        reason = str(error) or type(error).__name__
        raise RefusedImageError(
            f"{wanted.field} can't be read: {reason[:200]}; it is damaged or cut off, send it again"
        ) from None


def _opened(data: bytes, wanted: Wanted) -> Image.Image:
    """The image, loaded; its size is checked before memory is taken for it."""
    if data.startswith(_NPY):
        return _from_array(data, wanted)
    kind = _kind(data)
    if kind is None:
        raise RefusedImageError(
            f"{wanted.field} begins with {data[:8]!r}: it is no PNG, JPEG, WebP or npy file"
        )
    if kind == "WEBP":  # whose decoder takes memory for the canvas as soon as it is opened
        _check_size(*_webp_size(data), wanted)
    Image.MAX_IMAGE_PIXELS = None
    image = Image.open(io.BytesIO(data), formats=[kind])
    _check_size(*image.size, wanted)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and kind != "JPEG":  # telephones add previews to a JPEG; the first is the image
        raise RefusedImageError(
            f"{wanted.field} is an animation of {frames} frames; send one image"
        )
    image.load()
    return image


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


def _from_array(data: bytes, wanted: Wanted) -> Image.Image:
    """An .npy array; a header that claims a huge shape costs no memory."""
    stream = io.BytesIO(data)
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
    if channels not in _MODES:
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
        array = (array >> 8).astype(np.uint8)
    pixels = np.ascontiguousarray(array if grey or channels > 1 else array[:, :, 0])
    return Image.fromarray(pixels)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its Exif says; words that can't be read turn nothing, as in viewers."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow's parsers raise errors of many kinds
        turn = None
    return image if turn is None else image.transpose(turn)


def _in_colours(image: Image.Image, wanted: Wanted) -> Image.Image:
    """The image in mode L, LA, RGB or RGBA."""
    mode, see_through = image.mode, image.info.get("transparency")
    if mode.startswith("I"):
        return _of_16_bits(image, see_through)
    if mode == "1":
        image, mode = image.convert("L"), "L"
        see_through = None if see_through is None else 255 * bool(see_through)
        if see_through is not None:
            image.info["transparency"] = see_through
    if mode in ("LA", "La"):
        return image.convert("LA")
    if mode in ("RGBA", "RGBa", "PA") or see_through is not None:
        return image.convert("LA" if mode == "L" else "RGBA")
    if mode in ("L", "RGB"):
        return image
    if mode in ("P", "CMYK", "YCbCr", "RGBX", "LAB", "HSV"):
        return image.convert("RGB")
    raise RefusedImageError(
        f"{wanted.field} has pixels of kind {mode}; send grey, RGB, RGBA, CMYK or a palette"
    )


def _of_16_bits(image: Image.Image, see_through: Any) -> Image.Image:
    """Grey of 16 bits: the upper 8, as Pillow takes them of colours."""
    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    if not isinstance(see_through, int):
        return grey
    alpha = Image.fromarray(np.where(values == see_through, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, alpha))


def _fitted(image: Image.Image, wanted: Wanted) -> Decoded:
    """The image in the wanted size and channels."""
    has_alpha = image.mode in ("LA", "RGBA")
    is_clear = has_alpha and image.getchannel("A").getextrema()[0] < 255  # type: ignore[operator]
    if is_clear and wanted.alpha == "refuse" and wanted.channels != 4:
        raise RefusedImageError(
            f"{wanted.field} is transparent in places, the model's images are "
            f"{_COLOURS[wanted.channels]}; flatten it, or have those places filled by /v1/inpaint"
        )
    if has_alpha and not is_clear and wanted.channels != 4:
        image = image.convert("L" if image.mode == "LA" else "RGB")
    size, image = image.size, _scaled(image, wanted)
    known = None
    if is_clear and wanted.alpha == "mask":
        known = (np.asarray(image.getchannel("A")) >= _KNOWN).astype(np.uint8)
    target = _MODES[wanted.channels]
    if image.mode != target:
        if image.mode in ("LA", "RGBA") and target != "RGBA":
            image = image.convert("L" if image.mode == "LA" else "RGB")  # without black behind it
        image = image.convert(target)
    pixels = np.asarray(image)
    return Decoded(pixels[:, :, None] if pixels.ndim == 2 else pixels, known, size)


def _scaled(image: Image.Image, wanted: Wanted) -> Image.Image:
    """The image in the wanted size.

    Raises:
        RefusedImageError: it has another, and may not be scaled.
    """
    (width, height), target = image.size, (wanted.width, wanted.height)
    if (width, height) == target:
        return image
    if wanted.fit == "smaller":
        _check_divides(width, height, wanted)
        return image
    if wanted.fit == "exact":
        raise RefusedImageError(
            f"{wanted.field} has {width}x{height} pixels, the model's images {target[0]}x"
            f"{target[1]}; send that size, or add fit: crop (its middle) or stretch"
        )
    box = (0.0, 0.0, float(width), float(height))
    if wanted.fit == "crop":
        scale = min(width / target[0], height / target[1])
        left, top = (width - scale * target[0]) / 2, (height - scale * target[1]) / 2
        box = (left, top, width - left, height - top)
    mode = image.mode
    weighted = {"LA": "La", "RGBA": "RGBa"}.get(mode, mode)  # what can't be seen has no weight
    scaled = image.convert(weighted).resize(target, Image.Resampling.LANCZOS, box=box)
    return scaled.convert(mode)


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
