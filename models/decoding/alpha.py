"""Separates a picture's colours from its transparency, and joins them to what is wanted."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.decoding.form import Form

Pixels = npt.NDArray[np.uint8]

_SCALES = {"L;2": 85, "L;4": 17}  # from a sample of 2 or 4 bits to one of 8


def scale_key(image: Image.Image) -> None:
    """Scales a PNG file's transparent colour to the 8 bits that its pixels will have.

    PNG states it in samples of the file's depth, and Pillow scales the pixels only. To be called
    before the pixels are loaded.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or key is None or not getattr(image, "tile", None):
        return
    raw_mode = image.tile[0].args  # type: ignore[attr-defined]
    if raw_mode in _SCALES and isinstance(key, int):
        image.info["transparency"] = key * _SCALES[raw_mode]
    elif raw_mode == "RGB;16B" and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)


def separated(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Returns the colours without alpha, and alpha.

    Returns:
        A picture of a mode without alpha and without palette, and one of mode L and the same size:
        0 is transparent, 255 opaque. None where all of it is opaque.
    """
    colours, alpha = _separated(image)
    alpha = None if alpha is None else _unless_opaque(alpha)
    colours.info.pop("transparency", None)
    return colours, alpha


def opacity(image: Image.Image) -> Image.Image | None:
    """Alpha of a picture of mode RGBA, as of `separated`."""
    return _unless_opaque(image.getchannel("A"))


def _unless_opaque(alpha: Image.Image) -> Image.Image | None:
    return None if alpha.getextrema()[0] == 255 else alpha


def _separated(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if not image.has_transparency_data:
        return (image.convert("RGB") if image.mode in ("P", "RGBX") else image), None
    if image.mode.startswith("I"):  # Pillow makes no alpha of the transparent value of 16 bits
        seen = np.asarray(image) != image.info["transparency"]
        return image._new(image.im), Image.fromarray(seen.astype(np.uint8) * np.uint8(255))
    grey = image.mode in ("1", "L", "LA", "La")
    mode = "LA" if grey else "RGBA"
    whole = image if image.mode == mode else image.convert(mode)
    return whole.convert("L" if grey else "RGB"), whole.getchannel("A")


def joined(colours: Image.Image, alpha: Image.Image | None, form: Form) -> Image.Image:
    """Puts colours on the form's background or, for four channels, keeps their alpha.

    Args:
        colours: sRGB, of mode L or RGB, or RGBA with the same alpha.
        alpha: of mode L and the same size, or None.
        form: what is wanted.

    Returns:
        A picture of the form's mode.
    """
    if colours.mode == "RGBA":
        if form.channels == 4:
            return colours
        colours = colours.convert("RGB")
    opaque = "L" if form.channels == 1 else "RGB"
    picture = colours if colours.mode == opaque else colours.convert(opaque)
    if form.channels == 4:
        picture = picture.copy() if picture is colours else picture
        picture.putalpha(255 if alpha is None else alpha)
        return picture
    if alpha is None:
        return picture
    behind = Image.new("RGB", (1, 1), form.background).convert(opaque).resize(picture.size)
    return Image.composite(picture, behind, alpha)


def without_hidden_colours(pixels: Pixels, form: Form) -> Pixels:
    """Gives the places of RGBA pixels [H, W, 4] that can't be seen the background's colour.

    What files hold there is arbitrary, and D would tell images by it.
    """
    hidden = pixels[:, :, 3] == 0
    if hidden.any():
        pixels = pixels.copy()
        pixels[hidden, :3] = form.background
    return pixels
