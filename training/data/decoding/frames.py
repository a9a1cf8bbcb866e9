"""Which frames or pages of a file are used.

An animation often begins with an empty frame, and a file of several pages with a thumbnail: of the
one the middle frame is used, of the other the largest page. Layers (PSD) and the other images of a
HEIF container are no frames: their files say which image is the one to show.
"""

from dataclasses import dataclass

from PIL import Image

from models.decoding.form import Which

_PAGED = {"TIFF", "MPO", "DCX", "IM", "MIC", "SPIDER"}
_ONE_SHOWN = {"PSD", "HEIF", "ICO", "ICNS"}
_NEW_SUBFILE_TYPE, _REDUCED_OR_MASK = 254, 0b101  # TIFF 6.0, p. 36


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame or page to use."""

    index: int
    note: str = ""
    """Which of several it is, in words; empty for the only one."""


def chosen(image: Image.Image, which: Which) -> list[Frame]:
    """The frames of an opened file to use, in the file's order; at least one."""
    number = _number(image)
    if number < 2 or image.format in _ONE_SHOWN:
        return [Frame(image.tell())]
    if which == "first":
        return [Frame(0, f"the first of {number}, as asked for")]
    if image.format in _PAGED:
        pages = _pages(image, number)
        if which == "all":
            return [Frame(page, f"page {page + 1} of {number}") for page in pages]
        return [Frame(pages[0], f"page {pages[0] + 1} of {number}, the largest")]
    if which == "all":
        return [Frame(index, f"frame {index + 1} of {number}") for index in range(number)]
    return [Frame(number // 2, f"frame {number // 2 + 1} of {number}, the middle one")]


def _number(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # damage behind the first frame
        return 1


def _pages(image: Image.Image, number: int) -> list[int]:
    """Pages that are no small copies of others: the largest first, the rest in order."""
    areas: dict[int, int] = {}
    for page in range(number):
        try:
            image.seek(page)
        except Exception:  # damage behind the pages before
            break
        tags = getattr(image, "tag_v2", {})
        kind = tags.get(_NEW_SUBFILE_TYPE, 0)
        if not (isinstance(kind, int) and kind & _REDUCED_OR_MASK):
            areas[page] = image.width * image.height
    if not areas:
        return [0]
    most = max(areas.values())
    if image.format == "MPO":  # what is smaller is a preview, a depth map or a gain map
        areas = {page: area for page, area in areas.items() if area == most}
    largest = next(page for page, area in areas.items() if area == most)
    return [largest, *(page for page in areas if page != largest)]
