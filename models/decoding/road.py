"""One opened image file to pixels: one road for every combination of what a file can be.

draft -> load -> turn upright -> separate alpha -> 8 bits -> sRGB, then: join alpha or background ->
fit. It knows neither where files are from nor who wants them.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin, UnidentifiedImageError, WebPImagePlugin

from models.decoding import alpha, colour, depth, orientation
from models.decoding.alpha import Pixels
from models.decoding.fitting import fitted
from models.decoding.form import Form

KNOWN_ALPHA = 128
"""Alpha from which a pixel counts as there, where transparency says what is to be filled."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as a viewer shows it, in its own size."""

    colours: Image.Image
    """sRGB, upright, of mode L or RGB, or RGBA with the same alpha."""
    alpha: Image.Image | None
    """Of mode L; None where all of it is opaque."""
    lost: tuple[str, ...]
    """What the conversion to 8-bit sRGB lost, in words."""

    def pixels(self, form: Form) -> Pixels:
        """[C, H, W] of a form; where it has no alpha, transparent places show its background."""
        return fitted(alpha.joined(self.colours, self.alpha, form), form)


def opened(source: Path | bytes, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Opens a file; its pixels aren't loaded.

    formats: Pillow's names of those allowed; by default all.

    Raises:
        UnidentifiedImageError: it is none of them, or damaged.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError:
        # Pillow gives a JPEG file up whose list of further pictures (MPF) is malformed.
        if formats is None or "JPEG" in formats:
            try:
                return JpegImagePlugin.JpegImageFile(
                    io.BytesIO(source) if isinstance(source, bytes) else str(source)
                )
            except Exception:  # no JPEG file: Pillow's parsers raise errors of many kinds
                pass
        raise


def draft(image: Image.Image, form: Form) -> None:
    """Lets a JPEG file be decoded at 1/2, 1/4 or 1/8 of its size if that is enough."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        side = 2 * max(form.height, form.width)  # it may be turned afterwards
        image.draft(None, (side, side))


def shown(
    image: Image.Image, *, strict: bool = False, keeps_profile: bool = True, frees: bool = False
) -> Shown:
    """Decodes an opened file.

    Args:
        image: the file, at the frame that is meant.
        strict: whether a colour profile that can't be used is an error, or something that is lost.
        keeps_profile: whether the transform of its profile is kept for files with the same one.
        frees: whether WebP's decoder is let go as soon as the pixels are there: it holds two more
            pictures of this size. The caller can't use `image` afterwards.

    Raises:
        OSError: the pixels are damaged.
        models.decoding.colour.ProfileError: `strict`, and the colour profile can't be used.
    """
    alpha.scale_key(image)
    profile = colour.profile_of(image)
    orientation.load(image)
    turn, tags = orientation.turn_of(image), depth.tiff_tags(image)
    lost = ["a palette of 256 colours at most"] if image.mode in ("P", "PA") else []
    if frees and isinstance(image, WebPImagePlugin.WebPImageFile):
        file, image = image, image._new(image.im)
        file._decoder = None
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "RGBA" and not profile:  # nothing is to be done with its colours alone
        opacity = alpha.opacity(image)
        return Shown(image.convert("RGB") if opacity is None else image, opacity, tuple(lost))
    colours, opacity = alpha.separated(image)
    del image
    if depth.is_deep(colours):
        colours, words = depth.shallow(colours, tags)
        lost.append(words)
    colours, words = colour.to_srgb(colours, profile, strict=strict, keeps=keeps_profile)
    return Shown(colours, opacity, (*lost, words) if words else tuple(lost))


def colours_and_known(pixels: Pixels, channels: int) -> tuple[Pixels, npt.NDArray[np.uint8]]:
    """What is known of pictures of which a part is to be filled, by their transparency.

    Args:
        pixels: [..., H, W, 4], RGBA.
        channels: 1 or 3 of the colours wanted.

    Returns:
        The colours as they are [..., H, W, channels], also where alpha is below 255; and
        [..., H, W], 1 where a pixel is known, 0 where it is to be filled.
    """
    known = (pixels[..., 3] >= KNOWN_ALPHA).astype(np.uint8)
    colours = np.ascontiguousarray(pixels[..., :3])
    if channels == 1:
        rows = colours.reshape(-1, colours.shape[-2], 3)
        grey = np.array(Image.fromarray(rows).convert("L"))
        return grey.reshape(*colours.shape[:-1], 1), known
    return colours, known
