"""Colours of any space to sRGB, as a viewer shows them, by littleCMS.

The space is said by the file's ICC profile or, without one, by PNG's chunks gAMA and cHRM, by the
EXIF mark of Adobe RGB (DCF 2.0: interoperability index R03) or by HEIF's code points. What says
nothing is sRGB. A profile for other kinds of values than the file's is ignored, as browsers do; one
for RGB holds for a grey picture, too.
"""

import functools
import io

import numpy as np
from PIL import ExifTags, Image, ImageCms

from models.decoding import icc
from models.decoding.orientation import has_exif

_SAME = 1  # of 255: a transform that changes no colour by more is sRGB's own
_SAMPLES = 17  # of each channel
_SRGB_GAMMA = 1 / 2.2


UNUSABLE = "its colour profile can't be used"


class ProfileError(ValueError):
    """A file's colour profile is damaged; the text says how."""


def to_srgb(
    picture: Image.Image, profile: bytes | None, *, strict: bool = False, keeps: bool = True
) -> tuple[Image.Image, str]:
    """Converts a picture to sRGB.

    Args:
        picture: of a mode without alpha, palette or more than 8 bits.
        profile: its ICC profile, from `profile_of`.
        strict: whether a damaged profile is an error, or something that is lost.
        keeps: whether the transform is kept for the next picture with this profile.

    Returns:
        A picture of mode L or RGB, and in words what was lost.

    Raises:
        ProfileError: `strict`, and the profile is damaged.
    """
    lost = ""
    make = _transform if keeps else _transform.__wrapped__
    if picture.mode in ("1", "YCbCr", "HSV"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    if profile:
        try:
            if profile[36:40] != b"acsp":
                raise ValueError("it is no ICC profile")
            kind = _colour_space(profile)
            if picture.mode == "L" and kind == "RGB":
                transform = make(profile, "RGB")
                picture = picture if transform is None else picture.convert("RGB")
            else:
                fits = kind == {"L": "GRAY"}.get(picture.mode, picture.mode)
                transform = make(profile, picture.mode) if fits else None
                profile = profile if fits else None
            if transform is not None:
                return ImageCms.applyTransform(picture, transform), ""  # type: ignore[return-value]
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            if strict:
                raise ProfileError(str(error)) from error
            lost = f"{UNUSABLE} ({error}), so that colours may shift"
            profile = None
    if picture.mode == "LAB":
        transform = _transform(None, "LAB")
        assert transform is not None
        return ImageCms.applyTransform(picture, transform), lost  # type: ignore[return-value]
    if picture.mode == "CMYK" and not profile:
        lost = lost or "its inks become RGB without a colour profile, so that colours shift"
    return (picture if picture.mode in ("L", "RGB") else picture.convert("RGB")), lost


def profile_of(image: Image.Image) -> bytes | None:
    """The ICC profile of an opened file, or one made of what else it says; None for sRGB."""
    given = image.info.get("icc_profile")
    if given:
        return bytes(given)
    if image.format == "PNG":
        return _from_png(image)
    if image.format == "HEIF":
        nclx = image.info.get("nclx_profile")
        is_p3 = isinstance(nclx, dict) and nclx.get("color_primaries") == icc.P3_CODE
        return icc.profile(icc.P3, None) if is_p3 else None
    return icc.profile(icc.ADOBE_RGB, icc.ADOBE_GAMMA) if _is_adobe_rgb(image) else None


def _from_png(image: Image.Image) -> bytes | None:
    """A profile of gAMA and cHRM, for which sRGB's own chunk must be missing (PNG, 11.3.2)."""
    gamma, places = image.info.get("gamma"), image.info.get("chromaticity")
    if "srgb" in image.info or not isinstance(gamma, float) or not 0.01 < gamma < 10:
        return None
    primaries = icc.SRGB
    if isinstance(places, tuple) and len(places) == 8 and all(0 < value < 1 for value in places):
        primaries = tuple(zip(places[::2], places[1::2], strict=True))
    same = np.allclose(primaries, icc.SRGB, atol=0.005)
    if same and abs(gamma - _SRGB_GAMMA) < 0.01:  # what most files say that mean sRGB
        return None
    try:
        return icc.profile(primaries, 1 / gamma)
    except np.linalg.LinAlgError:  # primaries on a line
        return None


def _is_adobe_rgb(image: Image.Image) -> bool:
    if not has_exif(image):
        return False
    try:
        interop = image.getexif().get_ifd(ExifTags.IFD.Interop)
        index = interop.get(ExifTags.Interop.InteropIndex)
    except Exception:  # malformed EXIF data may raise anything
        return False
    return str(index).strip("\0 ") == "R03"


def _colour_space(profile: bytes) -> str:
    """RGB, GRAY, CMYK or another of ICC's names."""
    return profile[16:20].decode("latin-1").strip()


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform to sRGB; None where it would leave colours as they are.

    profile: an ICC profile; None for CIE L*a*b*.

    Raises:
        ImageCms.PyCMSError, OSError, ValueError: the profile is damaged.
    """
    if profile is None:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(
        source, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), mode, "RGB"
    )
    if mode in ("L", "RGB"):
        levels = np.linspace(0, 255, _SAMPLES).round().astype(np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
        sample = Image.fromarray(cube if mode == "RGB" else np.arange(256, dtype=np.uint8)[None])
        shown = ImageCms.applyTransform(sample, transform)
        before, after = np.asarray(sample.convert("RGB"), np.int16), np.asarray(shown, np.int16)
        if np.abs(after - before).max() <= _SAME:
            return None
    return transform
