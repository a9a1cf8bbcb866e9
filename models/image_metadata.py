"""Words in an encoded image: how it was made, so that it can be made again.

Training, offline commands, bulk, the server and its client write the same ones, as `provenance`
has them.

PNG: text chunks (ISO/IEC 15948, 11.3.4.3). JPEG: a comment (ISO/IEC 10918-1, B.2.4.5). WebP: the
description of an Exif block (RFC 9649, 2.7). Pixels and their bytes stay as they are.
"""

import functools
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from PIL import Image

METADATA = 1
"""Version of the words, part of ETags: to be raised when an image gets others than before."""
_PNG_HEADER_BYTES = 33  # signature and IHDR, after which text may stand
_DESCRIPTION = 0x010E  # Exif's ImageDescription
_EXIF_FLAG, _ALPHA_FLAG = 0x08, 0x10


_MAX_COMMENT_BYTES = 0xFFFF - 2
MAX_LIST_BYTES = 24 << 10
"""Of an image of many tiles: longer lists of seeds or labels are left out.

A JPEG comment has room for two."""


class Origin:
    """How images were made that differ in seed and label alone; `origin` makes one."""

    def __init__(self, common: Mapping[str, str]) -> None:
        """common: the words beside seed and label."""
        self._common = dict(common)
        self._png = b"".join(_chunk(keyword, text) for keyword, text in common.items())

    def words(self, seed: int | None = None, label: int | None = None) -> dict[str, str]:
        """Says how an image was made.

        Args:
            seed: None where it was made of no seed.
            label: None where the model knows no classes.
        """
        fields = {} if seed is None else {"seed": str(seed)}
        if label is not None:
            fields["label"] = str(label)
        return fields | self._common

    def told(self, data: bytes, kind: str, seed: int | None, label: int | None) -> bytes:
        """Does for `words` what `with_metadata` does; for PNG the common ones are written once."""
        if kind != "png":
            return with_metadata(data, kind, self.words(seed, label))
        own = b"" if seed is None else _new_chunk("seed", str(seed))
        if label is not None:
            own += _chunk("label", str(label))
        return b"".join((data[:_PNG_HEADER_BYTES], own, self._png, data[_PNG_HEADER_BYTES:]))


@functools.lru_cache(maxsize=1024)  # a server makes many images of one model
def origin(
    model: str,
    version: int,
    digest: str,
    truncation: float,
    directions: str = "",
    styles: str = "",
    units_off: str = "",
) -> Origin:
    """Says how images were made.

    Args:
        model: name of the model.
        version: its version.
        digest: of its bundle: with seed, label and truncation it determines the pixels.
        truncation: psi.
        directions: what they were moved along, as `written_amounts` has it; empty for nothing.
        styles: the field `styles` of the request as JSON; empty for none.
        units_off: numbers of units that were off, with commas; empty for none.
    """
    # The shortest text that is read back as the same number.
    psi = repr(float(truncation)).removesuffix(".0")
    fields = {"model": model, "version": str(version), "digest": digest, "truncation": psi}
    more = {"directions": directions, "styles": styles, "units_off": units_off}
    return Origin(fields | {name: text for name, text in more.items() if text})


def provenance(
    *, seed: int | None = None, label: int | None = None, **common: Any
) -> dict[str, str]:
    """Says how one image was made, as `Origin.words`; common: what `origin` takes."""
    return origin(**common).words(seed, label)


def written_styles(
    seed: int | None, layers: Iterable[int] | None, truncation: Sequence[float] | None
) -> str:
    """Writes a choice of styles as the JSON of a request; the same choice is the same text.

    Args:
        seed: that some styles come from; with layers, or None.
        layers: numbers of these styles, in any order.
        truncation: psi of each style, or None.
    """
    told: dict[str, Any] = {}
    if seed is not None and layers is not None:
        told |= {"from": seed, "layers": sorted({int(layer) for layer in layers})}
    if truncation is not None:
        told["truncation"] = [float(value) for value in truncation]
    return json.dumps(told, separators=(",", ":"))


def written_amounts(directions: Mapping[str, float]) -> str:
    """Writes units of directions as `0:1.5,slant:-1`, in ASCII: other signs as in a URL."""
    return ",".join(f"{quote(key, safe=' :@')}:{units!r}" for key, units in directions.items())


def read_amounts(text: str) -> dict[str, float]:
    """Reads what `written_amounts` wrote.

    Raises:
        ValueError: it is something else.
    """
    parts = (part.rpartition(":") for part in text.split(",") if part)
    return {unquote(key): float(units) for key, _, units in parts}


def with_metadata(data: bytes, kind: str, fields: Mapping[str, str]) -> bytes:
    """Returns an image file that carries some words.

    Args:
        data: the file.
        kind: name of its format in `serving.encoding.formats`.
        fields: Latin-1 text by ASCII keyword, a keyword of 1 .. 79 characters.

    Raises:
        KeyError: no way is known for this format.
    """
    return _WRITERS[kind](data, fields)


def read_metadata(data: bytes) -> dict[str, str]:
    """Returns the words that an image file carries; none where it carries none of ours.

    Raises:
        ValueError: it is no image file that can be read.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "PNG":
                return dict(getattr(image, "text", {}))
            if image.format == "JPEG":
                return _decoded(image.info.get("comment", b""))
            return _decoded(image.getexif().get(_DESCRIPTION, b""))
    except Exception as error:  # Pillow's parsers raise errors of many kinds
        raise ValueError(f"it can't be read as an image: {error}") from error


def _decoded(text: str | bytes) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}  # somebody else's words
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _png(data: bytes, fields: Mapping[str, str]) -> bytes:
    chunks = [_chunk(keyword, text) for keyword, text in fields.items()]
    return b"".join((data[:_PNG_HEADER_BYTES], *chunks, data[_PNG_HEADER_BYTES:]))


def _new_chunk(keyword: str, text: str) -> bytes:
    body = b"tEXt" + keyword.encode("ascii") + b"\0" + text.encode("latin-1")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _jpeg(data: bytes, fields: Mapping[str, str]) -> bytes:
    told = dict(fields)
    # A segment has a length of 16 bits. What is longest is left out, and named.
    while len(comment := json.dumps(told).encode("ascii")) > _MAX_COMMENT_BYTES:
        longest = max(told, key=lambda name: len(told[name]))
        del told[longest]
        told["left_out"] = ", ".join(sorted(fields.keys() - told.keys()))
    # JFIF wants its own segment first.
    start = 4 + int.from_bytes(data[4:6], "big") if data[2:4] == b"\xff\xe0" else 2
    segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
    return data[:start] + segment + data[start:]


def _webp(data: bytes, fields: Mapping[str, str]) -> bytes:
    exif = Image.Exif()
    exif[_DESCRIPTION] = json.dumps(fields)
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    width, height, alpha = _lossless_canvas(data)
    flags = _EXIF_FLAG | (_ALPHA_FLAG if alpha else 0)
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"".join(
        (
            b"WEBP",
            _riff(b"VP8X", bytes((flags, 0, 0, 0)) + canvas),
            data[12:],
            _riff(b"EXIF", block),
        )
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _lossless_canvas(data: bytes) -> tuple[int, int, bool]:
    """Width, height and use of transparency of a simple lossless WebP file (RFC 9649, 3.4)."""
    assert data[12:16] == b"VP8L", "the encoder makes lossless files without further chunks"
    bits = int.from_bytes(data[21:25], "little")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)


def _riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


_WRITERS: dict[str, Callable[[bytes, Mapping[str, str]], bytes]] = {
    "png": _png,
    "jpeg": _jpeg,
    "webp": _webp,
}


# Most of an image's words are those of the last one.
_chunk = functools.lru_cache(maxsize=1024)(_new_chunk)
