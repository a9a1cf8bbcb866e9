"""The grids of a run as pictures inside a page, within a number of bytes."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.runs.ending.film import grid_kimg, grids

_MOST_FRAMES = 16
_FORMS = ((720, 80), (560, 75), (420, 65), (320, 55), (240, 45), (160, 40))  # (pixels, quality)


@dataclass(frozen=True)
class Frame:
    """A grid."""

    kimg: float
    """Thousands of images shown when it was made."""
    url: str
    """data: URL of a WebP."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


def frames(folder: Path, most_bytes: int) -> list[Frame]:
    """The grids in a folder, evenly some of many, as small as must be to fit.

    Pictures that can't be read are left out.
    """
    found = grids(folder)
    if len(found) > _MOST_FRAMES:
        last = len(found) - 1
        found = [found[round(i * last / (_MOST_FRAMES - 1))] for i in range(_MOST_FRAMES)]
    for side, quality in _FORMS:
        made = [frame for path in found if (frame := _frame(path, side, quality)) is not None]
        if sum(len(frame.url) for frame in made) <= most_bytes:
            return made
    return [made[-1]] if made and len(made[-1].url) <= most_bytes else []


def picture(path: Path, most_bytes: int) -> Frame | None:
    """One picture within so many bytes; None where there is none."""
    for side, quality in _FORMS:
        made = _frame(path, side, quality)
        if made is None or len(made.url) <= most_bytes:
            return made
    return None


def _frame(path: Path, side: int, quality: int) -> Frame | None:
    try:
        with Image.open(path) as picture:
            frame = picture.convert("RGBA" if picture.mode == "RGBA" else "RGB")
    except (OSError, ValueError, SyntaxError):  # half written, or no picture
        return None
    frame.thumbnail((side, side))
    buffer = io.BytesIO()
    frame.save(buffer, "WEBP", quality=quality, method=4)
    url = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Frame(grid_kimg(path), url, *frame.size)
