"""Answers of a model for real images: where the search starts, what it gives, how far it differs.

K answers of an image start at K latents: the encoder's best one and its answers for normal draws,
or draws of the prior where there is no encoder. Each is refined by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from models.bundle.generator import Images
from models.latents import latents
from training.errors import ConfigError
from training.export.onnx_graphs import to_bytes
from training.inversion.opened import Floats, Labels, Opened, to_img
from training.inversion.pictures import Mask
from training.inversion.projection import Projected, ProjectionConfig, Wanted, project

_FIRST_START = 2**35
_TRIAL_STEPS = 40


@dataclass(frozen=True, eq=False)
class Answers:
    """K answers of each of N images."""

    found: Projected
    images: Images
    """[N, K, H, W, C]."""
    label: Labels | None
    """[N]."""


def starts_of(model: Opened, images: Images, mask: Mask, label: Labels | None, num: int) -> Floats:
    """K latents of each image to begin with, [N, K, z_dim]."""
    z_dim = model.bundle.manifest.z_dim
    seeds = np.arange(_FIRST_START, _FIRST_START + num, dtype=np.uint64)
    draws = latents(seeds, z_dim)
    if not model.has_encoder:
        return np.broadcast_to(draws, (len(images), num, z_dim)).copy()
    found = [model.encode(images, label, mask).z]
    for draw in draws[1:]:
        start = np.broadcast_to(draw, (len(images), z_dim)).copy()
        found.append(model.encode(images, label, mask, start).z if model.traits.varies else start)
    return np.stack(found, 1)


def classes_of(
    model: Opened, images: Images, mask: Mask, wanted: Wanted, given: Labels | None
) -> Labels | None:
    """The class of each image: given, the encoder's, or the one whose images come closest."""
    if not model.bundle.manifest.conditional or given is not None:
        return given
    if model.has_encoder and model.traits.infers_label:
        return model.encode(images, None, mask).labels
    if model.has_encoder and model.traits.takes_label:
        names = ", ".join((model.bundle.manifest.labels or ())[:20])
        raise ConfigError(f"label is not given, allowed: {names}; set --label")
    errors = []
    for label in range(model.shape.num_classes):
        labels = np.full(len(images), label, np.int64)
        trial = replace(wanted, label=torch.from_numpy(labels))
        start = torch.from_numpy(starts_of(model, images, mask, labels, 1))
        found = project(model.subject, trial, start, ProjectionConfig(steps=_TRIAL_STEPS))
        errors.append(found.error[:, 0])
    best: Labels = torch.stack(errors).argmin(0).numpy()
    return best


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
        label: [N], of conditional models; None to find it.
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
    found_label = classes_of(model, images, known, wanted, label)
    if found_label is not None:
        wanted = replace(wanted, label=torch.from_numpy(found_label))
    given = found_label if model.has_encoder and model.traits.takes_label else None
    starts = torch.from_numpy(starts_of(model, images, known, given, answers))
    found = project(model.subject, wanted, starts, config, say)
    made = to_bytes(found.made.flatten(0, 1)).numpy()
    return Answers(found, made.reshape(len(images), answers, *made.shape[1:]), found_label)
