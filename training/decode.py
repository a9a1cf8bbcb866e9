"""Image files and arrays to square uint8 pixels of one size: decoded in parallel, faults reported.

Pillow resizes in integer arithmetic, so the pixels (and a dataset's fingerprint) are the same on
every machine. Knows images; not which dataset they are from.
"""

import contextlib
import io
import itertools
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from training.errors import DataError
from training.names import printable

Pixels = npt.NDArray[np.uint8]

NO_IMAGE = "not an image that Pillow can read"

_AT_A_TIME = 1024  # images handed to the decoders
_PROGRESS_AFTER_S = 2.0


@dataclass(frozen=True)
class Encoded:
    """An image file, or the bytes of one; name is what a report calls it."""

    name: str
    source: Path | bytes
    label: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """What an image was before it was fitted: its name, size and Pillow mode."""

    name: str
    width: int
    height: int
    mode: str
    lost: str = ""
    """What the conversion to 8-bit grey or RGB took from it, in words; empty for nothing."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that could not be used."""

    name: str
    reason: str

    @classmethod
    def of(cls, name: str, reason: str) -> "Skipped":
        """Both made printable: a file's name may hold anything, and reasons quote it."""
        return cls(printable(name), printable(reason))

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Decoded:
    """What became of encoded images."""

    images: Pixels
    """[N, C, R, R] uint8."""
    labels: npt.NDArray[np.int64]
    """[N]."""
    origins: tuple[Origin, ...]
    """Of each image."""
    skipped: tuple[Skipped, ...]
    """Those that could not be decoded."""


def decode(encoded: Iterable[Encoded], *, num: int, resolution: int, channels: int) -> Decoded:
    """Decodes images in parallel: shorter side to the resolution (antialiased), centre cropped.

    Args:
        encoded: the images; num of them at most.
        num: how many, for the memory to reserve and the progress line.
        resolution: height and width wanted, in pixels.
        channels: 1 (grey, ITU-R 601 luma) or 3 (RGB; transparency is put on white).

    Raises:
        DataError: num images don't fit into memory.
    """
    images = reserve(num, resolution, channels)
    labels = np.empty(num, dtype=np.int64)
    skipped: list[Skipped] = []
    origins: list[Origin] = []
    progress = _Progress(num)

    def one(item: Encoded) -> tuple[Pixels, Origin] | str:
        return _decode_one(item, resolution, channels)

    with _strict_about_bombs(), ThreadPoolExecutor(os.cpu_count()) as pool:
        count = 0
        for chunk in _chunks(encoded):
            for item, result in zip(chunk, pool.map(one, chunk), strict=True):
                if isinstance(result, str):
                    skipped.append(Skipped.of(item.name, result))
                else:
                    (images[count], origin), labels[count] = result, item.label
                    origins.append(origin)
                    count += 1
            progress.show(count + len(skipped))
    progress.end()
    return Decoded(images[:count], labels[:count], tuple(origins), tuple(skipped))


def fit(images: Pixels, *, resolution: int, channels: int) -> Pixels:
    """Arrays [N, H, W, C] uint8 to [N, channels, resolution, resolution], as `decode` does it.

    Raises:
        DataError: they don't fit into memory.
    """
    if images.shape[1:] == (resolution, resolution, channels):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    out = reserve(len(images), resolution, channels)

    def some(start: int) -> None:
        for i in range(start, min(start + _AT_A_TIME, len(images))):
            image = images[i]
            picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
            out[i] = _square(picture, resolution, channels)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(some, range(0, len(images), _AT_A_TIME)))
    return out


def reserve(num: int, resolution: int, channels: int) -> Pixels:
    """An uninitialised array [num, channels, resolution, resolution] uint8.

    Raises:
        DataError: this machine's memory can't hold it.
    """
    needed = num * channels * resolution**2
    available = _available_bytes()
    if needed > available:
        raise DataError(
            f"data.resolution is {resolution}: {num} images of {channels}x{resolution}x{resolution}"
            f" bytes need {needed / 2**30:.1f} GiB of memory, {available / 2**30:.1f} GiB are "
            "available; set a smaller --data.resolution, or take fewer images"
        )
    return np.empty((num, channels, resolution, resolution), dtype=np.uint8)


def _decode_one(item: Encoded, resolution: int, channels: int) -> tuple[Pixels, Origin] | str:
    """The pixels [C, R, R] and where they are from, or the reason why there are none."""
    try:
        source = io.BytesIO(item.source) if isinstance(item.source, bytes) else item.source
        with Image.open(source) as image:
            name, size, mode = printable(item.name), image.size, image.mode
            if image.format == "JPEG":  # decodes at 1/2, 1/4 or 1/8 where that is enough
                image.draft(None, (2 * resolution, 2 * resolution))
            pixels = _square(ImageOps.exif_transpose(image), resolution, channels)
            return pixels, Origin(name, *size, mode, _lost(image))
    except UnidentifiedImageError:
        empty = isinstance(item.source, Path) and item.source.stat().st_size == 0
        return "an empty file" if empty else NO_IMAGE
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "more pixels than an honest image has (decompression bomb)"
    except OSError as error:
        return error.strerror or _cut_off(item.source) or str(error)
    except Exception as error:  # a decoder that is fed rubbish may raise anything
        return f"{type(error).__name__}: {error}"


def _square(image: Image.Image, resolution: int, channels: int) -> Pixels:
    mode = "L" if channels == 1 else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    elif image.mode.startswith("I"):  # 16 bits a pixel
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (resolution, resolution):
        image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(resolution, resolution, channels).transpose(2, 0, 1)


def _lost(image: Image.Image) -> str:
    """What `_square` takes from an image, beyond its size."""
    if image.mode == "CMYK":
        return "its inks become RGB without their colour profile, so that colours shift"
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        found = f"values {values.min():g} to {values.max():g}"
        if image.mode == "F":
            return f"{found}, of which 0 to 255 are kept, without fractions"
        return f"{found} of 65535, of whose 16 bits the upper 8 are kept"
    lost = ["a palette of 256 colours at most"] if image.mode in ("P", "PA") else []
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        lost.append("what is transparent becomes white")
    return ", and ".join(lost)


def _cut_off(source: Path | bytes) -> str:
    """Of a WebP file shorter than its header says, that: Pillow only says it can't be decoded."""
    whole = source if isinstance(source, bytes) else source.read_bytes()
    if whole[:4] != b"RIFF":
        return ""
    expected = 8 + int.from_bytes(whole[4:8], "little")
    return f"truncated: {len(whole):,} of {expected:,} bytes" if len(whole) < expected else ""


@contextlib.contextmanager
def _strict_about_bombs() -> Iterator[None]:
    """Within: Pillow's decompression bomb warning is an error, its others are silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _chunks(encoded: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    iterator = iter(encoded)
    while chunk := list(itertools.islice(iterator, _AT_A_TIME)):
        yield chunk


def _available_bytes() -> int:
    """Memory that this process may still take: the machine's, or its control group's if less."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        available = min(available, int(text))
    return available


class _Progress:
    """A line on stderr for what takes longer than a moment."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._start_s = time.monotonic()
        self._shown = False

    def show(self, done: int) -> None:
        if time.monotonic() - self._start_s < _PROGRESS_AFTER_S or not sys.stderr.isatty():
            return
        self._shown = True
        print(f"\rdecoding images: {done} of {self._total}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            print(file=sys.stderr)
