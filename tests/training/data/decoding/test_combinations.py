"""Every combination of container, kind of pixels, profile, orientation and wanted channels.

Pictures are four flat quarters, so that the right result follows from the formulas of standards.
"""

import itertools

import numpy as np
import pytest
from PIL import Image

from models.decoding import icc
from tests.training.data.decoding import pictures
from tests.training.data.decoding.pictures import picture, pixels, quarters, saved
from tests.training.data.decoding.test_orientation import TURNS

COLOURS = np.array([[200, 60, 30], [40, 150, 90], [60, 70, 220], [250, 250, 250]])
GREYS = COLOURS[:, 1:2].repeat(3, 1)
ALPHAS = np.array([0, 100, 200, 255])
BACKGROUND = (10, 20, 240)
LUMA = np.array([0.299, 0.587, 0.114])
PROFILES = {
    None: None,
    "srgb": pictures.srgb_profile(),
    "adobe": icc.profile(icc.ADOBE_RGB, icc.ADOBE_GAMMA),
    "p3": icc.profile(icc.P3, None),
}
LOSSLESS = {
    "PNG": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True, "exact": True},
}


def sources():
    """(name, Pillow's image, its colours, its alphas) of every kind of pixels."""
    opaque = np.array([255] * 4)
    rgba = np.column_stack([COLOURS, ALPHAS])
    yield "RGB", picture(COLOURS), COLOURS, opaque
    yield "RGBA", picture(rgba), COLOURS, ALPHAS
    yield "L", picture(GREYS[:, :1]), GREYS, opaque
    grey_alpha = quarters(np.column_stack([GREYS[:, :1], ALPHAS])).astype(np.uint8)
    yield "LA", Image.frombytes("LA", (8, 8), grey_alpha.tobytes()), GREYS, ALPHAS
    palette = Image.fromarray(quarters([[0], [1], [2], [3]]).astype(np.uint8)[..., 0], "P")
    palette.putpalette(COLOURS.flatten().tolist())
    yield "P", palette, COLOURS, opaque
    wide = Image.fromarray((quarters(GREYS[:, :1])[..., 0] * 257).astype(np.uint16))
    yield "I;16", wide, GREYS, opaque


def expected(colours, alphas, space, orientation, channels):
    if space in pictures.SPACES:
        colours = pictures.as_srgb(colours, space)
    order = list(TURNS[orientation])
    colours, share = colours[order], alphas[order][:, None] / 255
    if channels == 4:
        hidden = share == 0
        return np.column_stack([np.where(hidden, BACKGROUND, colours), share * 255])
    flat = colours * share + np.array(BACKGROUND) * (1 - share)
    return flat if channels == 3 else (flat @ LUMA)[:, None]


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("space", PROFILES)
def test_every_combination(kind, space):
    num = 0
    for (mode, image, colours, alphas), orientation, channels in itertools.product(
        list(sources()), (1, 4, 6, 7), (1, 3, 4)
    ):
        if kind == "WEBP" and mode not in ("RGB", "RGBA", "LA"):
            continue
        exif = Image.Exif()
        exif[0x0112] = orientation
        profile = PROFILES[space]
        options = {"icc_profile": profile} if profile else {}
        data = saved(image, kind, exif=exif, **options, **LOSSLESS[kind])
        found = pixels(data, channels=channels, background=BACKGROUND)
        right = quarters(expected(colours, alphas, space, orientation, channels))
        wrong = np.abs(found - right).max()
        assert wrong <= 2.5, (mode, orientation, channels, wrong)
        num += 1
    assert num >= 36
