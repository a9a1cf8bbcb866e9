"""Pictures of any size to pixels of the training's size."""

import numpy as np
from PIL import Image, ImageOps

from models.decoding.alpha import Pixels, without_hidden_colours
from models.decoding.form import Form


def fitted(picture: Image.Image, form: Form) -> Pixels:
    """Resizes (antialiased), and crops or pads around the centre, or stretches, as the form says.

    Pillow resizes in integer arithmetic, so that the pixels, and a dataset's fingerprint, are the
    same on every machine.

    Args:
        picture: of mode L, RGB or RGBA, with as many channels as the form.
        form: what is wanted.

    Returns:
        [C, H, W] uint8.
    """
    if picture.size != (form.width, form.height):
        picture = _resized(picture, form)
    pixels = np.asarray(picture).reshape(form.height, form.width, form.channels)
    if picture.mode == "RGBA":
        pixels = without_hidden_colours(pixels, form)
    return pixels.transpose(2, 0, 1)


def _resized(picture: Image.Image, form: Form) -> Image.Image:
    size, method = (form.width, form.height), Image.Resampling.BICUBIC
    if form.fit == "crop":
        return ImageOps.fit(picture, size, method)
    if form.fit == "stretch":
        return picture.resize(size, method)
    scale = min(form.width / picture.width, form.height / picture.height)
    # Of a very long picture a pixel stays.
    width, height = (max(1, round(side * scale)) for side in picture.size)
    around = Image.new("RGBA", size, (*form.background, 0)) if picture.mode == "RGBA" else None
    canvas = around or Image.new("RGB", size, form.background).convert(picture.mode)
    corner = ((form.width - width) // 2, (form.height - height) // 2)
    canvas.paste(picture.resize((width, height), method), corner)
    return canvas
