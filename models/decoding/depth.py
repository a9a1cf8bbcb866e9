"""Pictures of more than 8 bits a value to 8 bits, of one channel.

16 bits keep the upper 8. Other kinds say no range of their own, so that it is taken from the
values: whole numbers go up to 65535 or, where one is larger, to 2**32 - 1. Floating point goes from
0 to 1, 255 or 65535, whichever of these the values fit, with as much again left for overshoot;
where none fits, or values are far below 0, the values are stretched.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

_UP_TO_16_BITS = 65535
_OVERSHOOT = 2  # an image of at most 2 of 255 would be black: 0 to 1 is meant
_UNDERSHOOT = 0.5  # of the largest value: less far below 0 is a filter's doing
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262


def is_deep(image: Image.Image) -> bool:
    """True for modes of more than 8 bits a value."""
    return image.mode.startswith("I") or image.mode == "F"


def shallow(image: Image.Image, tags: dict[int, int]) -> tuple[Image.Image, str]:
    """Returns a picture of mode L, and in words what was lost.

    tags: those of `tiff_tags`.
    """
    values = np.asarray(image)
    if image.mode == "F":
        return _from_float(values)
    found = f"values {values.min():g} to {values.max():g}"
    bits = tags.get(_BITS_PER_SAMPLE, 16)
    if image.mode != "I" and bits < 16:  # TIFF's 12 bits, which Pillow leaves as they are
        shown = _shifted(values, bits - 8)
        text = f"{found} of {2**bits - 1}, of whose {bits} bits"
    elif image.mode != "I" or (values.min() >= 0 and values.max() <= _UP_TO_16_BITS):
        shown, text = _shifted(values, 8), f"{found} of 65535, of whose 16 bits"
    else:
        wide = values.astype(np.int64)
        wide = np.where(wide < 0, wide + 2**32, wide) if bits == 32 else wide.clip(0)
        shown = _shifted(wide, 24)
        text = f"{wide.min():g} to {wide.max():g} of 2**32 - 1, of whose 32 bits"
    picture = Image.fromarray(shown)
    if tags.get(_PHOTOMETRIC) == 0:  # white is 0, which Pillow turns round for 8 bits only
        picture = Image.fromarray(255 - np.asarray(picture))
    return picture, f"{text} the upper 8 are kept"


def _shifted(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Values without so many bits; no second array of all of them, for which memory may lack."""
    out = np.empty(values.shape, np.uint8)
    np.right_shift(values, bits, out=out, casting="unsafe")
    return out


def tiff_tags(image: Image.Image) -> dict[int, int]:
    """Bits per sample and photometric interpretation of a TIFF page; nothing for other files."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return {}
    found: dict[int, int] = {}
    for tag in (_BITS_PER_SAMPLE, _PHOTOMETRIC):
        value = image.tag_v2.get(tag)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, int):
            found[tag] = value
    return found


def _from_float(values: npt.NDArray[np.float32]) -> tuple[Image.Image, str]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    fits = low >= -_UNDERSHOOT * max(high, 0.0)
    tops = (full for full in (1.0, 255.0, 65535.0) if fits and high <= full * _OVERSHOOT)
    top = next(tops, None)
    if top is None:
        start, span, text = low, high - low or 1.0, f"{low:g} to {high:g}, stretched"
    else:
        start, span, text = 0.0, top, f"{low:g} to {high:g}, taken as 0 to {top:g}"
    scaled = (np.nan_to_num(values, nan=start, posinf=high, neginf=low) - start) * (255 / span)
    pixels = scaled.round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels), f"floating point values {text}, to 8 bits"
