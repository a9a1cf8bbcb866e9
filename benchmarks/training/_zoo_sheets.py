"""The zoo's pictures: the first seed's of every recipe on one sheet, with the data beside them."""

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

from models.grid import grid
from training.data import DataConfig, load
from training.evaluation.modes import MIXTURES, NUM_SAMPLES

NUM_DIGITS = 20  # beside each other
PANEL = 192  # pixels of a mixture's panel
REACH = 1.25  # of the panel, in distances of the furthest centre from the middle
COLUMNS = 6
TEXT = 14
RING = 4  # pixels: wider than 3 sigma, so that the points within stay visible
GREY = 150


def shade(points: np.ndarray, dataset: str, panel: int) -> Image.Image:
    """[N, 2] points as a panel: the more fall on a pixel the darker it is."""
    side = REACH * np.abs(MIXTURES[dataset].centres).max()
    edges = np.linspace(-side, side, panel + 1)
    count, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=[edges, edges])
    return Image.fromarray(np.clip(255 - 120 * np.sqrt(count[::-1]), 0, 255).astype(np.uint8))


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


def points_sheet(recipes: list[str], dataset: str, out: Path) -> Image.Image:
    """A panel for each recipe, its name and modes above it; the first one is the data."""
    mixture = MIXTURES[dataset]
    real = shade(mixture.sample(NUM_SAMPLES, np.random.default_rng(0)), dataset, PANEL)
    panels = {f"real: {len(mixture.centres)} modes": real}
    for recipe in recipes:
        picture = Image.open(out / f"{dataset}-{recipe}-0.png").convert("L")
        found = json.loads((out / f"{dataset}-{recipe}-0.json").read_text())["trace"]
        modes = f"{found[-1]['modes']:.0f}" if found else "none"
        panels[f"{recipe}: {modes}"] = picture.resize((PANEL, PANEL), Image.Resampling.BOX)
    circles = _circles(dataset)
    font = ImageFont.load_default(TEXT)
    cell = (PANEL + 8, PANEL + TEXT + 12)
    page = Image.new("L", (cell[0] * COLUMNS, cell[1] * math.ceil(len(panels) / COLUMNS)), 255)
    draw = ImageDraw.Draw(page)
    for index, (title, panel) in enumerate(panels.items()):
        x, y = index % COLUMNS * cell[0] + 4, index // COLUMNS * cell[1]
        draw.text((x, y + 2), title, fill=0, font=font)
        page.paste(ImageChops.darker(panel, circles), (x, y + TEXT + 6))
    return page


def _circles(dataset: str) -> Image.Image:
    """Where the centres are, as grey circles."""
    centres = MIXTURES[dataset].centres
    side = REACH * np.abs(centres).max()
    panel = Image.new("L", (PANEL, PANEL), 255)
    draw = ImageDraw.Draw(panel)
    for x, y in (centres * [1, -1] + side) / (2 * side) * PANEL:
        draw.ellipse((x - RING, y - RING, x + RING, y + RING), outline=GREY)
    draw.rectangle((0, 0, PANEL - 1, PANEL - 1), outline=225)
    return panel


def _real_digits() -> Image.Image:
    """Twenty of the data, of class i mod 10 as the generated ones of recipes by class."""
    images = load(DataConfig())
    assert images.labels is not None
    labels = images.labels.numpy()
    chosen = [np.flatnonzero(labels == i % 10)[i // 10] for i in range(NUM_DIGITS)]
    pixels = images.images.numpy()[chosen].transpose(0, 2, 3, 1)
    return grid(pixels, NUM_DIGITS)
