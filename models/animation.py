"""Frames as one file that moves: WebP, which keeps every pixel, or GIF.

The server's walks and those of `models.offline` are the same files. Pillow's writers of animations
join equal frames to one that is shown longer, or leave them out; who asked for sixty frames shall
get sixty, also where all of them are the same. So each frame is encoded by itself, by Pillow, and
the files are put together here: RFC 9649 for WebP, GIF89a for GIF. A frame that is equal to the one
before is written as its first pixel, which changes nothing and costs some bytes.
"""

import io
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

_GIF_ANIMATION = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"  # repeats for ever
_GIF_END = b";"

Frames = npt.NDArray[np.uint8]


def encode_animation(kind: str, images: Frames, durations_ms: Sequence[int]) -> bytes:
    """Encodes frames as an animation that repeats for ever, with as many frames as images.

    Args:
        kind: one of `KINDS`.
        images: [N, H, W, C] uint8, C in 1, 3, 4; N at least 1.
        durations_ms: how long each frame is shown, in milliseconds; GIF has hundredths of a second.
    """
    return KINDS[kind](images, durations_ms)


def _encode_webp(images: Frames, durations_ms: Sequence[int]) -> bytes:
    _, height, width, channels = images.shape
    has_alpha = channels == 4
    parts = [
        _chunk(
            b"VP8X", bytes((0x02 | (0x10 if has_alpha else 0), 0, 0, 0)) + _sides(width, height)
        ),
        _chunk(b"ANIM", struct.pack("<IH", 0, 0)),
    ]
    for image, duration_ms in zip(_changed(images), durations_ms, strict=True):
        data = _saved(image, "WEBP", lossless=True, method=0, exact=True)
        # Each replaces the one before: nothing is blended, nothing left over.
        sides = _sides(image.shape[1], image.shape[0])
        head = _u24(0) + _u24(0) + sides + _u24(duration_ms) + b"\x02"
        pixels = (_chunk(name, content) for name, content in _webp_chunks(data))
        parts.append(_chunk(b"ANMF", head + b"".join(pixels)))
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Those of a still image that hold its pixels."""
    start = 12
    while start + 8 <= len(data):
        name, (size,) = data[start : start + 4], struct.unpack_from("<I", data, start + 4)
        if name in (b"VP8L", b"VP8 ", b"ALPH"):
            yield name, data[start + 8 : start + 8 + size]
        start += 8 + size + size % 2


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _sides(width: int, height: int) -> bytes:
    return _u24(width - 1) + _u24(height - 1)


def _u24(value: int) -> bytes:
    return value.to_bytes(3, "little")


def _encode_gif(images: Frames, durations_ms: Sequence[int]) -> bytes:
    _, height, width, channels = images.shape
    # After a frame that may be transparent the canvas is cleared: the next one must be whole.
    frames = iter(images) if channels == 4 else _changed(images)
    parts = [b"GIF89a", struct.pack("<HHBBB", width, height, 0x70, 0, 0), _GIF_ANIMATION]
    shown = evenly(duration_ms / 10 for duration_ms in durations_ms)
    for image, hundredths in zip(frames, shown, strict=True):
        parts.append(_gif_frame(_saved(image, "GIF", optimize=channels == 1), hundredths))
    return b"".join((*parts, _GIF_END))


def evenly(durations: Iterable[float]) -> list[int]:
    """Whole numbers whose sums are the durations' sums, rounded: no frame's rounding adds up."""
    ends = [0, *map(round, itertools.accumulate(durations))]
    return [end - start for start, end in itertools.pairwise(ends)]


def _gif_frame(data: bytes, hundredths: int) -> bytes:
    """The frame of a still GIF, with its palette as the frame's own."""
    flags = data[10]
    start = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    palette = data[13:start]
    control = 0
    transparent = 0
    while data[start] == 0x21:  # an extension, and its blocks
        if data[start + 1] == 0xF9 and data[start + 3] & 1:
            # What is transparent shows the background, not the frame before: it is cleared.
            control, transparent = 2 << 2 | 1, data[start + 6]
        start += 2
        while data[start]:
            start += data[start] + 1
        start += 1
    assert data[start] == 0x2C, "a still GIF has one image"
    descriptor = data[start + 1 : start + 9]
    own = data[start + 9]
    if own & 0x80 or not palette:  # it has a palette of its own already
        local = data[start + 9 : -1]
    else:
        local = bytes((own | 0x80 | (flags & 7),)) + palette + data[start + 10 : -1]
    extension = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, control, hundredths, transparent, 0)
    return extension + b"," + descriptor + local


def _changed(images: Frames) -> Iterator[Frames]:
    """Each frame [H, W, C]; of one that is equal to the frame before the first pixel [1, 1, C]."""
    yield images[0]
    for before, image in itertools.pairwise(images):
        yield image[:1, :1] if np.array_equal(before, image) else image


def _saved(image: Frames, kind: str, **options: bool | int) -> bytes:
    buffer = io.BytesIO()
    pixels = image[:, :, 0] if image.shape[2] == 1 else image
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


KINDS: Mapping[str, Callable[[Frames, Sequence[int]], bytes]] = {
    "webp": _encode_webp,
    "gif": _encode_gif,
}
"""The writers, by the name of the format."""
