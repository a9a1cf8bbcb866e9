"""What is done with real images: the way to a latent and back, and what stands on it.

Each function is the steps of one route (`RealImageWork`): it takes a checked request and gives
pixels and figures. It knows no HTTP and no encodings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from models.bundle.anomaly import SCORE, holds
from models.bundle.directions import as_text
from models.bundle.generator import Images
from models.restoration import edited, filled, repeated, shrunk, spread
from serving.dispatch.catalogue import Served
from serving.dispatch.tickets import Styled
from serving.errors import InvalidRequestProblem
from serving.process.real_image_work import RealImageWork
from serving.requests.directions import applied, directions_of
from serving.requests.real_image.fields import (
    EditRequest,
    EncodeRequest,
    InpaintRequest,
    ScoreRequest,
    UpscaleRequest,
)
from serving.requests.real_image.rules import (
    calibration_of,
    check_fills,
    check_mask,
    known_pixels,
    needed_labels,
    starts_of,
    traits_of,
    wanted,
)
from serving.requests.styles import Choice, choice
from serving.settings import Settings

Floats = npt.NDArray[np.float32]
Labels = Sequence[int] | None

INVENTED = "plausible, not true: the model made up what the image does not show"
"""What images say in which something was filled or enlarged."""
MOVED = "edited: the model's idea of a change, added to the image"
"""What images say that were edited."""


@dataclass(frozen=True)
class Encoded:
    """The latents of N images, and how close the way back comes."""

    served: Served
    z: Floats
    """[N, z_dim]."""
    labels: Labels
    label_scores: Floats | None
    """[N, labels], where the encoder finds the class."""
    reconstructions: Images | None
    """[N, H, W, C], where they were asked for."""
    errors: list[float] | None
    """Mean squared difference of each from its reconstruction, in parts of the range squared."""


@dataclass(frozen=True)
class Answered:
    """K images that answer a request."""

    served: Served
    images: Images
    """[K, H, W, C]."""
    errors: list[float]
    """As of `Encoded`, of what is known of the image."""
    labels: Labels
    seeds: list[int] | None
    note: str
    spread: Floats | None = None
    """[H, W]: standard deviation over the answers, in steps of 1/255; None of one answer."""
    directions: str = ""
    """What it was moved along."""


@dataclass(frozen=True)
class Scored:
    """How unusual N images are."""

    served: Served
    scores: Floats
    p: list[float] | None
    """Conformal; None where the version has no calibration, or it doesn't hold."""
    num_calibration: int
    """Images of the calibration; 0 without one."""
    has_features: bool
    """Whether the score compares features, too."""
    labels: Labels
    maps: Floats
    """[N, H, W], at least 0: where they differ from their reconstructions."""
    reconstructions: Images


async def encode(
    work: RealImageWork, request: EncodeRequest, served: Served, settings: Settings
) -> Encoded:
    """Finds the latents of images.

    Raises:
        Problem: the request can't be carried out.
    """
    images, labels = await _decoded(work, request, served, settings)
    found = await work.encode(served, images, labels=labels)
    labels = found.labels if labels is None else labels
    scores = found.label_scores if found.label_scores.size else None
    if not request.reconstruct:
        return Encoded(served, found.z, labels, scores, None, None)
    made = await work.generate(served, found.z, labels)
    errors = await work.compute(lambda: [_error(made[i], images[i]) for i in range(len(images))])
    return Encoded(served, found.z, labels, scores, made, errors)


async def edit(
    work: RealImageWork, request: EditRequest, served: Served, settings: Settings
) -> Answered:
    """Moves the latent of an image, and adds what that changes to the image.

    Raises:
        Problem: the request can't be carried out.
    """
    traits = traits_of(served)
    labels: Labels = needed_labels(request.label, 1, traits, served, field="label")
    directions = applied(request.directions, served)
    styles = choice(request.styles, 1.0, directions, served)
    if not directions and styles is None:
        raise InvalidRequestProblem(
            "neither directions nor styles is given; name what is to change: GET "
            f"/v1/models/{served.key[0]}/directions lists it"
        )
    (decoded,) = await work.decode(
        [(request.image, wanted(served, settings, "image", request.fit))]
    )
    original = decoded.pixels[None]
    found = await work.encode(served, original, labels=labels)
    labels = found.labels if labels is None else labels
    there = list(labels) if labels is not None else None
    shift = directions_of(served).shift(directions, 1, there) if directions else None
    moved = found.z if shift is None else found.z + shift
    before, after = await _before_and_after(work, served, found.z, moved, labels, styles)

    def answered() -> Answered:
        return Answered(
            served,
            images=edited(original, before, after),
            errors=[_error(before[0], original[0])],
            labels=labels,
            seeds=None,
            note=MOVED,
            directions=as_text(directions),
        )

    return await work.compute(answered)


async def inpaint(
    work: RealImageWork, request: InpaintRequest, served: Served, settings: Settings
) -> Answered:
    """Fills a part of an image; every other byte of it stays.

    Raises:
        Problem: the request can't be carried out.
    """
    traits = traits_of(served)
    check_fills(traits, served)
    seeds, starts = starts_of(request.seeds, traits, served)
    labels: Labels = needed_labels(request.label, len(starts), traits, served, field="label")
    target = wanted(served, settings, "image", request.fit)
    # In a model whose images are transparent, alpha is a part of the image.
    alpha: Literal["refuse", "mask"] = "refuse" if target.channels == 4 else "mask"
    files = [(request.image, replace(target, alpha=alpha))]
    if request.mask is not None:
        files.append((request.mask, replace(target, field="mask", channels=1, alpha="mask")))
    decoded, *masks = await work.decode(files)
    if masks:
        check_mask(masks[0], decoded)
    known = known_pixels(masks[0].pixels if masks else None, decoded.known)
    originals, all_known = _times(decoded.pixels, starts), _times(known, starts)
    found = await work.encode(served, originals, masks=all_known, starts=starts, labels=labels)
    if labels is None and found.shared_label is not None:
        labels = [found.shared_label] * len(starts)
    made = await work.generate(served, found.z, labels)
    where = known == 1

    def answered() -> Answered:
        images = filled(originals, made, all_known)
        return Answered(
            served,
            images=images,
            errors=[_error(each[where], decoded.pixels[where]) for each in made],
            labels=labels,
            seeds=seeds,
            note=INVENTED,
            spread=spread(images) if len(images) > 1 else None,
        )

    return await work.compute(answered)


async def upscale(
    work: RealImageWork, request: UpscaleRequest, served: Served, settings: Settings
) -> Answered:
    """Enlarges a small image to the model's size.

    Raises:
        Problem: the request can't be carried out.
    """
    traits = traits_of(served)
    check_fills(traits, served)
    seeds, starts = starts_of(request.seeds, traits, served)
    labels: Labels = needed_labels(request.label, len(starts), traits, served, field="label")
    target = replace(wanted(served, settings, "image"), fit="smaller")
    (decoded,) = await work.decode([(request.image, target)])
    small = decoded.pixels
    factor = served.manifest.image.height // small.shape[0]
    if factor < 2:
        raise InvalidRequestProblem(
            f"image has the size of the model's images already, {small.shape[1]}x{small.shape[0]}; "
            "send a smaller one"
        )
    large = _times(repeated(small[None], factor)[0], starts)
    found = await work.encode(served, large, starts=starts, labels=labels)
    if labels is None and found.shared_label is not None:
        labels = [found.shared_label] * len(starts)
    images = await work.generate(served, found.z, labels)

    def answered() -> Answered:
        return Answered(
            served,
            images=images,
            errors=[_error(each, small) for each in shrunk(images, factor)],
            labels=labels,
            seeds=seeds,
            note=INVENTED,
            spread=spread(images) if len(images) > 1 else None,
        )

    return await work.compute(answered)


async def score(
    work: RealImageWork, request: ScoreRequest, served: Served, settings: Settings
) -> Scored:
    """Says how far images are from what the model makes of them.

    Raises:
        Problem: the request can't be carried out.
    """
    images, labels = await _decoded(work, request, served, settings)
    return await scored(work, images, labels, served)


async def scored(work: RealImageWork, images: Images, labels: Labels, served: Served) -> Scored:
    """The same of images [N, H, W, C] of the model's size, and their classes where it needs them.

    Raises:
        Problem: it can't be carried out.
    """
    calibration = calibration_of(served)
    has_p = calibration is not None and holds(traits_of(served), labels_given=labels is not None)
    found = await work.encode(served, images, labels=labels)
    labels = found.labels if labels is None else labels
    made = await work.generate(served, found.z, labels)
    has_features = SCORE in served.manifest.files
    if has_features:
        output = await work.score(served, images, made)
        scores, maps = output.scores, output.residuals
    else:
        maps, scores = await work.compute(lambda: _differences(images, made))
    return Scored(
        served,
        scores=scores,
        p=calibration.p_values(scores).tolist() if calibration and has_p else None,
        num_calibration=0 if calibration is None else len(calibration.scores),
        has_features=has_features,
        labels=labels,
        maps=maps,
        reconstructions=made,
    )


async def _decoded(
    work: RealImageWork,
    request: EncodeRequest | ScoreRequest,
    served: Served,
    settings: Settings,
) -> tuple[Images, Labels]:
    """The images of a request, and the classes that it gives them."""
    num = len(request.images)
    labels = needed_labels(request.labels, num, traits_of(served), served, field="labels")
    decoded = await work.decode(
        [
            (data, wanted(served, settings, f"images[{index}]", request.fit))
            for index, data in enumerate(request.images)
        ]
    )
    return np.stack([each.pixels for each in decoded]), labels


async def _before_and_after(
    work: RealImageWork,
    served: Served,
    z: Floats,
    moved: Floats,
    labels: Labels,
    styles: Choice | None,
) -> tuple[Images, Images]:
    """The reconstruction, and the same after the change; [1, H, W, C] each."""
    if styles is None:
        twice = None if labels is None else [*labels, *labels]
        both = await work.generate(served, np.concatenate([z, moved]), twice)
        return both[:1], both[1:]
    # Both by the graph in two parts: a rounding of the other one would be taken for a change.
    plain = Styled(np.ones_like(styles.styled.psi), None, None, None)
    before = await work.generate(served, z, labels, styled=plain)
    return before, await work.generate(served, moved, labels, styled=styles.styled)


def _times(array: npt.NDArray[np.uint8], starts: Floats) -> npt.NDArray[np.uint8]:
    """The same array for each start."""
    return np.repeat(array[None], len(starts), axis=0)


def _differences(images: Images, made: Images) -> tuple[Floats, Floats]:
    """Squared differences of pixels, in parts of half the range: a map of each, and its mean."""
    maps = np.square((images.astype(np.float32) - made) / 127.5).mean(axis=3)
    return maps, maps.mean(axis=(1, 2))


def _error(made: npt.NDArray[np.float32 | np.uint8], real: npt.NDArray[np.uint8]) -> float:
    """Mean squared difference in parts of the range squared."""
    return float(np.square((made.astype(np.float64) - real) / 255).mean())
