"""Answers of a model for real images: where the search starts, what it gives, how far it differs.

K answers of an image start at K latents: the encoder's best one and its answers for normal draws,
or draws of the prior where there is no encoder. Each is refined by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from models.bundle.generator import Images
from models.latents import latents
from training.export.onnx_graphs import to_bytes
from training.inversion.opened import Floats, Labels, Opened, to_img
from training.inversion.pictures import Mask
from training.inversion.projection import Projected, ProjectionConfig, Wanted, project

_FIRST_START = 2**35
_TRIAL_STEPS = 40
_LIKELY = 0.05  # of the likeliest class's probability, from which a class is tried, too


@dataclass(frozen=True, eq=False)
class Answers:
    """K answers of each of N images."""

    found: Projected
    images: Images
    """[N, K, H, W, C]."""
    label: Labels | None
    """[N, K]."""


def starts_of(model: Opened, images: Images, mask: Mask, label: Labels | None, num: int) -> Floats:
    """K latents of each image to begin with, [N, K, z_dim]; label: [N, K]."""
    z_dim = model.bundle.manifest.z_dim
    seeds = np.arange(_FIRST_START, _FIRST_START + num, dtype=np.uint64)
    draws = latents(seeds, z_dim)
    if not model.has_encoder:
        return np.broadcast_to(draws, (len(images), num, z_dim)).copy()
    found = []
    for answer, draw in enumerate(draws):
        told = None if label is None else label[:, answer]
        start = np.broadcast_to(draw, (len(images), z_dim)).copy()
        if not answer:
            found.append(model.encode(images, told, mask).z)
        elif model.traits.varies:
            found.append(model.encode(images, told, mask, start).z)
        else:
            found.append(start)
    return np.stack(found, 1)


def classes_of(
    model: Opened, images: Images, mask: Mask, wanted: Wanted, answers: int
) -> Labels | None:
    """The class of each image, [N]: the one in which its K answers come closest.

    Where the encoder is sure of a class, that one; otherwise each likely class is tried.

    Raises:
        ConfigError: the encoder must be told.
    """
    if not model.bundle.manifest.conditional:
        return None
    likely = _likely_classes(model, images, mask)
    best: Labels = likely.argmax(1)
    open_rows = likely.sum(1) > 1
    errors = np.full(likely.shape, np.inf)
    for label in np.flatnonzero(likely[open_rows].any(0)):
        rows = np.flatnonzero(open_rows & likely[:, label])
        trial = Wanted(
            wanted.img[rows],
            wanted.mask[rows],
            wanted.factor,
            torch.full((len(rows),), int(label), dtype=torch.int64),
        )
        told = _told(model, np.full((len(rows), answers), label, np.int64))
        start = torch.from_numpy(starts_of(model, images[rows], mask[rows], told, answers))
        found = project(model.subject, trial, start, ProjectionConfig(steps=_TRIAL_STEPS))
        errors[rows, label] = found.error.mean(1).numpy()
    best[open_rows] = errors[open_rows].argmin(1)
    return best


def _told(model: Opened, label: Labels) -> Labels | None:
    """The classes [N, K] that the encoder is told, if it can be."""
    return label if model.has_encoder and model.traits.takes_label else None


def _likely_classes(model: Opened, images: Images, mask: Mask) -> npt.NDArray[np.bool_]:
    """The classes that an image may have, [N, classes]; all where nothing says more.

    Raises:
        ConfigError: the encoder must be told.
    """
    if not model.has_encoder or not (model.traits.infers_label or model.traits.takes_label):
        return np.ones((len(images), model.shape.num_classes), np.bool_)
    scores = model.encode(images, None, mask).label_scores
    assert scores is not None
    share = np.exp(scores - scores.max(1, keepdims=True))  # of the likeliest class's probability
    return np.asarray(share >= _LIKELY)


def restore(
    model: Opened,
    images: Images,
    *,
    mask: Mask | None = None,
    small: Images | None = None,
    factor: int = 1,
    label: Labels | None = None,
    answers: int = 1,
    config: ProjectionConfig,
    say: Callable[[str], None] = lambda _line: None,
) -> Answers:
    """Finds K answers for each of N images.

    Args:
        model: with or without an encoder.
        images: [N, H, W, C], of the model's size; where `small` is given, these enlarged.
        mask: [N, H, W], 1 where a pixel is known; None for everywhere.
        small: [N, H / factor, W / factor, C]: what the answers must average to.
        factor: of small images.
        label: [N], or [N, K] for a class of each answer; None to find one for all of an image.
        answers: K.
        config: of the refinement.
        say: for progress.
    """
    known = np.ones(images.shape[:3], np.uint8) if mask is None else mask
    wanted = Wanted(
        to_img(images if small is None else small),
        torch.from_numpy(known)[:, None].float(),
        factor,
    )
    if label is None:
        label = classes_of(model, images, known, wanted, answers)
    told = None
    if label is not None:
        label = np.broadcast_to(label.reshape(len(images), -1), (len(images), answers)).copy()
        wanted = replace(wanted, label=torch.from_numpy(label))
        told = _told(model, label)
    starts = torch.from_numpy(starts_of(model, images, known, told, answers))
    found = project(model.subject, wanted, starts, config, say)
    made = to_bytes(found.made.flatten(0, 1)).numpy()
    return Answers(found, made.reshape(len(images), answers, *made.shape[1:]), label)
