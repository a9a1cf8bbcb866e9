"""The zoo's pictures: the first seed's of every recipe on one sheet, with the data beside them."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.grid import grid
from training.data import DataConfig, load

NUM_DIGITS = 20  # beside each other
TEXT = 14


def digits_sheet(recipes: list[str], out: Path) -> Image.Image:
    """A row for each recipe, its name before it; above them a row of real digits."""
    pictures = [Image.open(out / f"digits-{recipe}-0.png").convert("L") for recipe in recipes]
    rows = {"real": _real_digits(), **dict(zip(recipes, pictures, strict=True))}
    font = ImageFont.load_default(TEXT)
    margin = math.ceil(max(font.getlength(name) for name in rows)) + 10
    width, height = pictures[0].size
    page = Image.new("L", (margin + width, (height + 4) * len(rows)), 255)
    draw = ImageDraw.Draw(page)
    for index, (name, picture) in enumerate(rows.items()):
        y = index * (height + 4) + 2
        draw.text((2, y + height / 2), name, fill=0, font=font, anchor="lm")
        page.paste(picture, (margin, y))
    return page


def _real_digits() -> Image.Image:
    """Twenty of the data, of class i mod 10 as the generated ones of recipes by class."""
    images = load(DataConfig())
    assert images.labels is not None
    labels = images.labels.numpy()
    chosen = [np.flatnonzero(labels == i % 10)[i // 10] for i in range(NUM_DIGITS)]
    pixels = images.images.numpy()[chosen].transpose(0, 2, 3, 1)
    return grid(pixels, NUM_DIGITS)
