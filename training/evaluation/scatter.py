"""Pictures of points in the plane: where they fall, and the centres that they should gather in."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw

from training.evaluation.metrics.modes import GOOD_SIGMAS, Mixture

PANEL = 384
"""Pixels of a side."""
_REACH = 1.25  # of the panel, in distances of the furthest centre from the middle
_LEAST_RADIUS = 4  # pixels, of the circles round the centres
_GREY, _FRAME = 150, 225


def scatter(points: npt.NDArray[np.floating], mixture: Mixture, panel: int = PANEL) -> Image.Image:
    """[N, 2] points as a panel, darker where more fall; circles show 3 sigma, or a bit more."""
    side = _REACH * float(np.abs(mixture.centres).max())
    edges = np.linspace(-side, side, panel + 1)
    count, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=[edges, edges])
    shade = np.clip(255 - 120 * np.sqrt(count[::-1]), 0, 255).astype(np.uint8)
    return ImageChops.darker(Image.fromarray(shade), _circles(mixture, panel, side))


def _circles(mixture: Mixture, panel: int, side: float) -> Image.Image:
    page = Image.new("L", (panel, panel), 255)
    draw = ImageDraw.Draw(page)
    radius = max(_LEAST_RADIUS, GOOD_SIGMAS * mixture.sigma / (2 * side) * panel)
    for x, y in (mixture.centres * [1, -1] + side) / (2 * side) * panel:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_GREY)
    draw.rectangle((0, 0, panel - 1, panel - 1), outline=_FRAME)
    return page
