"""One image file to pixels, or the reason why there are none.

open -> choose the frames -> each by the road of `models.decoding.road`.
"""

import contextlib
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from models.decoding import road
from models.decoding.form import Form
from training.data.decoding import frames
from training.data.decoding.dicom import register_dicom
from training.data.decoding.formats import RAW, is_raw, register_heif, unread_format
from training.data.decoding.images import Encoded, Origin, Packed, Pixels
from training.data.file_names import printable

NO_IMAGE = "not an image that Pillow can read"

_HUGE = 32_000_000  # pixels to decode; above, one file is decoded at a time
_DNG_VERSION = 50706


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image, and where it is from."""

    pixels: Pixels
    """[C, H, W] uint8."""
    origin: Origin


class Decoder:
    """Decodes files to one form; several threads may share it, within `prepared`."""

    def __init__(self, form: Form) -> None:
        """form: what files become."""
        self._form = form
        self._alone = threading.Lock()  # bounds the memory of files of hundreds of megapixels

    def read(self, packed: Encoded | Packed) -> list[Picture] | str:
        """The pictures of a file, mostly one, or the reason why there are none."""
        if is_raw(packed.name):
            return RAW.reason
        try:
            item = packed.read()  # in the thread that decodes it: few are in memory at a time
        except (OSError, ValueError) as error:
            return str(error)
        try:
            with road.opened(item.source) as image:
                if (
                    isinstance(image, TiffImagePlugin.TiffImageFile)
                    and _DNG_VERSION in image.tag_v2
                ):
                    return RAW.reason
                return self._pictures(printable(item.name), image)
        except UnidentifiedImageError:
            return _why_unidentified(item.source)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            found = re.search(r"\((\d+) pixels\)", str(error))
            return self._too_large(int(found[1])) if found else str(error)
        except OSError as error:
            return error.strerror or _cut_off(item.source) or str(error)
        except Exception as error:  # Pillow's decoders may raise anything for damaged files
            return f"{type(error).__name__}: {error}"

    def _pictures(self, name: str, image: Image.Image) -> list[Picture] | str:
        pictures = []
        for frame in frames.chosen(image, self._form.frames):
            if image.tell() != frame.index:
                image.seek(frame.index)
            if (num := image.width * image.height) > self._form.max_pixels:
                return self._too_large(num)
            named = f"{name}#{frame.index}" if self._form.frames == "all" and frame.note else name
            pictures.append(self._picture(named, image, frame.note))
        return pictures

    def _picture(self, name: str, image: Image.Image, frame: str) -> Picture:
        form, size, mode = self._form, image.size, image.mode
        road.draft(image, form)
        huge = image.width * image.height > _HUGE
        with self._alone if huge else contextlib.nullcontext():
            shown = road.shown(image)
            pixels = shown.pixels(form)
        origin = Origin(
            name,
            *size,
            mode,
            ", and ".join(shown.lost),
            transparent=shown.alpha is not None,
            frame=frame,
        )
        return Picture(pixels, origin)

    def _too_large(self, num: int) -> str:
        return (
            f"{num:,} pixels, where --data.max-pixels is {self._form.max_pixels:,}: "
            "too many pixels (a decompression bomb?)"
        )


@contextlib.contextmanager
def prepared(form: Form) -> Iterator[None]:
    """Within the block Pillow's limit of pixels is the form's, and exceeding it is an error.

    Other warnings are ignored, and HEIC files are read where pillow-heif is installed.
    """
    before = Image.MAX_IMAGE_PIXELS
    register_heif()
    register_dicom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS = form.max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _why_unidentified(source: Path | bytes) -> str:
    if isinstance(source, Path) and source.stat().st_size == 0:
        return "an empty file"
    found = unread_format(source)
    return NO_IMAGE if found is None else found.reason


def _cut_off(source: Path | bytes) -> str:
    """The reason for a WebP file that is shorter than its header says; empty for other files.

    Pillow's own message only says that it can't be decoded.
    """
    whole = source if isinstance(source, bytes) else source.read_bytes()
    if whole[:4] != b"RIFF":
        return ""
    expected = 8 + int.from_bytes(whole[4:8], "little")
    return f"truncated: {len(whole):,} of {expected:,} bytes" if len(whole) < expected else ""
