"""What a model must have for a real image, and what a request must say for it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.bundle.anomaly import Calibration
from models.bundle.inversion import EncoderTraits
from models.errors import BundleError
from models.latents import latents
from serving.dispatch.catalogue import Served
from serving.encoding.pixels import Decoded, Wanted
from serving.errors import InvalidRequestProblem, UnavailableProblem
from serving.requests.real_image.fields import Fit
from serving.requests.rules import as_seeds, check_labels, check_seeds
from serving.settings import Settings

MAX_ANSWERS = 64
"""The most answers that one request may ask for."""
MAX_IMAGES = 64
"""The most images of one request."""


def traits_of(served: Served) -> EncoderTraits:
    """What the encoder of a version takes and gives.

    Raises:
        InvalidRequestProblem: it has none.
        UnavailableProblem: the file can't be read at the moment, or was altered.
    """
    name, version = served.key
    try:
        found = served.encoder
    except BundleError:
        raise UnavailableProblem(_unreadable("encoder", served)) from None
    if found is None:
        raise InvalidRequestProblem(
            f"model {name!r} (version {version}) has no encoder, so it takes no images; ask for "
            f"another model, or train one with `python -m training.inversion encoder {name}`"
        )
    return found


def calibration_of(served: Served) -> Calibration | None:
    """The scores of usual images; None where the version has none.

    Raises:
        UnavailableProblem: the file can't be read at the moment, or was altered.
    """
    try:
        return served.calibration
    except BundleError:
        raise UnavailableProblem(_unreadable("calibration", served)) from None


def _unreadable(what: str, served: Served) -> str:
    name, version = served.key
    return (
        f"the {what} of model {name!r} (version {version}) can't be read; the file was altered, or "
        "its storage is away: ask again, or ask who runs this server"
    )


def needed_labels(
    given: Sequence[int] | int | None,
    num_rows: int,
    traits: EncoderTraits,
    served: Served,
    *,
    field: str,
) -> list[int] | None:
    """The class of each image; None where there are no classes, or the encoder finds them.

    Raises:
        InvalidRequestProblem: they are missing, not wanted, too few or many, or out of range.
    """
    if given is None and traits.infers_label:
        return None
    asked = given if given is None or isinstance(given, int) else list(given)
    return check_labels(asked, num_rows, served, field=field)


def check_number(num: int, most: int, field: str) -> None:
    """Raises InvalidRequestProblem for none, or for too many."""
    if not 1 <= num <= most:
        raise InvalidRequestProblem(
            f"{field} has {num} entries, allowed are 1 .. {most}; split the request"
        )


def starts_of(
    given: Sequence[int | str] | None, traits: EncoderTraits, served: Served
) -> tuple[list[int] | None, npt.NDArray[np.float32]]:
    """Where the encoder's passes begin, [K, z_dim], and the seeds of that.

    One row of zeros, the best answer, where no seeds are given.

    Raises:
        InvalidRequestProblem: a seed is not allowed, or the encoder gives one answer alone.
    """
    z_dim = served.manifest.z_dim
    if given is None:
        return None, np.zeros((1, z_dim), np.float32)
    if not traits.varies:
        raise InvalidRequestProblem(
            f"seeds is given, but the encoder of model {served.key[0]!r} gives one answer alone; "
            "leave it out"
        )
    check_number(len(given), MAX_ANSWERS, "seeds")
    seeds = as_seeds(given)
    check_seeds(seeds)
    return seeds, latents(np.array(seeds, np.uint64), z_dim)


def check_fills(traits: EncoderTraits, served: Served) -> None:
    """Raises InvalidRequestProblem where the encoder takes no mask."""
    if not traits.fills:
        name, version = served.key
        raise InvalidRequestProblem(
            f"the encoder of model {name!r} (version {version}) takes no mask, so it fills and "
            f"enlarges nothing; ask for another model, or train one with `python -m "
            f"training.inversion encoder {name}`"
        )


def wanted(served: Served, settings: Settings, field: str, fit: Fit = "exact") -> Wanted:
    """How a file must come out, for a model."""
    image = served.manifest.image
    return Wanted(
        field=field,
        height=image.height,
        width=image.width,
        channels=image.channels,
        fit=fit,
        max_pixels=settings.max_input_pixels,
    )


def check_mask(mask: Decoded, image: Decoded) -> None:
    """Raises InvalidRequestProblem for a mask of another size than the image's, or see-through.

    Each would be fitted by itself, and the mask would lie elsewhere.
    """
    if mask.size != image.size:
        sizes = ["x".join(map(str, each.size)) for each in (mask, image)]
        raise InvalidRequestProblem(
            f"mask has {sizes[0]} pixels, image has {sizes[1]}; send a mask of the image's size"
        )
    if mask.known is not None:
        raise InvalidRequestProblem(
            "mask is transparent in places, and is read by its brightness: white is to be filled, "
            "black stays; paint on black instead of on a transparent layer, or send the image "
            "itself with a transparent part, and no mask"
        )


def known_pixels(
    mask: npt.NDArray[np.uint8] | None, alpha: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.uint8]:
    """[H, W]: 0 where a pixel is to be filled, else 1.

    Args:
        mask: a mask file's pixels [H, W, 1], white where they are to be filled.
        alpha: [H, W], 0 where the image itself is transparent.

    Raises:
        InvalidRequestProblem: nothing is to be filled, or everything, or both masks are given.
    """
    if mask is not None and alpha is not None:
        raise InvalidRequestProblem(
            "mask is given, and image is transparent in places; give one of them"
        )
    if mask is None and alpha is None:
        raise InvalidRequestProblem(
            "mask is missing, and image is transparent nowhere; give a mask (white is to be "
            "filled), or make transparent what is to be filled"
        )
    known = alpha if mask is None else (mask[:, :, 0] < 128).astype(np.uint8)
    assert known is not None
    field = "mask" if mask is not None else "the transparency of image"
    if known.all():
        raise InvalidRequestProblem(
            f"{field} leaves nothing to be filled; make white (or transparent) what is to be filled"
        )
    if not known.any():
        raise InvalidRequestProblem(
            f"{field} covers the whole image, so nothing of it would be used; keep some of it, or "
            "ask /v1/generate for new images"
        )
    return known
