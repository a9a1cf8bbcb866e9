"""Vitals: what the watchdog reads of a training at a tick, each a number.

A look plays one batch of the data and one of G's images, the same latents every time, through the
game as it is trained, without a gradient, and leaves no trace: buffers are put back, and nothing
that training draws depends on it. So watched and unwatched trainings have the same weights, and a
step costs nothing but the keeping of scalars that it has computed anyway.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.config import TrainingConfig
from training.data import Batches, ImageSet
from training.game import Game
from training.objectives import OBJECTIVES, Objective
from training.play import Batch, rows_are_independent
from training.randomness import key, normal
from training.schedules import Timetable
from training.stability.signs import Vitals
from training.state import State
from training.stepper import lenses
from training.views import VIEWS

NUM_IMAGES = 128
SURE = 4.6  # |logit| beyond which sigmoid is within 1% of 0 or 1
MIN_ROUNDS = 128  # in a tick, below which its series are too short to see a period in
_ROUNDS_A_MEAN, _NUM_MEANS = 4, 128
_FAINT = 0.1
_SIDE = 16  # images are compared at this resolution at most
_COPY_SIDE = 8  # and looked up among the training images at this one
_MAX_SEARCHED = 65_536
_PART = 4096
_TWIN = 0.25  # of the data's own median distance to the nearest other image
_NEAR_QUANTILE = 0.01


class Look:
    """Reads the vitals of a training."""

    def __init__(self, config: TrainingConfig, image_set: ImageSet) -> None:
        """image_set: on the device where the players are."""
        self._config = config
        self._objective = OBJECTIVES[config.objective]
        self._num = min(NUM_IMAGES, len(image_set))
        deal = Batches(image_set, batch_size=self._num, seed=config.seed)
        self._real_img, self._label = deal.at(0)
        shape = (self._num, config.network.z_dim)
        generator = torch.Generator(deal.device)
        self._z = normal(shape, generator, key(config.seed, "watchdog", 0))
        self._timetable = Timetable(config.schedules)
        self._spread, near = spread(self._real_img), nearest_other(small(self._real_img, _SIDE))
        self._twin = _TWIN * near.median()
        self._copies = Copies(image_set)

    @torch.no_grad()
    def read(
        self, state: State, means: dict[str, float], series: dict[str, Sequence[float]]
    ) -> Vitals:
        """The vitals now. Waits for the device.

        Args:
            state: where the training is; it is as it was afterwards.
            means: of the tick's scalars.
            series: the tick's scalars by name, round after round.
        """
        config = self._config
        batch = self._batch(state)
        game = Game(
            config.objective,
            tuple(term for term in config.regularizers if term.name in VIEWS),
            joint=rows_are_independent(state.D.network),
            timetable=self._timetable,
            lenses=lenses(config),
        )
        with untouched(state.G.network, state.D.network):
            fake_img = game.generate(state.G.network, batch)
            seen = game.judge_D(state.G.network, state.D.network, batch, fake_img).play
        assert seen.real_logits is not None
        found = {"cur_nimg": float(state.cur_nimg)}
        for player, seat in (("G", state.G), ("D", state.D)):
            found[f"gradient_{player}"] = means[f"gradient_{player}"]
            found[f"weights_{player}"] = weights(seat.parameters)
        found |= judged(self._objective, seen.real_logits.double(), seen.fake_logits.double())
        found["spread"] = spread(fake_img) / max(self._spread, 1e-12)
        twins = nearest_other(small(fake_img, _SIDE)) < self._twin
        found["twins"] = twins.double().mean().item()
        if (copied := self._copies.share(fake_img)) is not None:
            found["copied"] = copied
        swings = [swing(values) for values in series.values() if len(values) >= MIN_ROUNDS]
        if swings:
            found["swing"] = max(swings)
        return found

    def _batch(self, state: State) -> Batch:
        config, cur_nimg = self._config, state.cur_nimg
        augment = config.augment
        p: Tensor | float = state.augment_p
        if not augment.target:
            p = self._timetable.at("augment.probability", augment.probability, cur_nimg)
        return Batch(
            real_img=self._real_img,
            label=self._label,
            z=self._z,
            key=key(config.seed, "watchdog/layers", 0),
            cur_nimg=cur_nimg,
            augment_p=p,
        )


class Copies:
    """The training images, made small, to look copies up among them."""

    def __init__(self, image_set: ImageSet) -> None:
        """Of more than 65,536 images, that many are taken, evenly spaced."""
        images = image_set.images[:: -(-len(image_set) // _MAX_SEARCHED)]
        parts = (images[start : start + _PART] for start in range(0, len(images), _PART))
        rows = torch.cat([small(part.float() / 127.5 - 1, _COPY_SIDE) for part in parts])
        # An image that is there twice is no sign of how near others come to it.
        self._rows: Tensor = torch.unique(rows, dim=0)
        self._near: Tensor | None = None
        if len(self._rows) > 1:
            chosen = self._rows[:: -(-len(self._rows) // 1024)]
            apart = torch.cdist(chosen, self._rows).topk(2, largest=False).values[:, 1]
            self._near = apart.double().quantile(_NEAR_QUANTILE)

    def share(self, img: Tensor) -> float | None:
        """Of the images [N, C, H, W] in [-1, 1], how many are copies of training images.

        A copy is as near to one as the nearest 1% of the training images are to another.
        """
        if self._near is None:
            return None
        nearest = torch.cdist(small(img, _COPY_SIDE), self._rows).amin(1)
        return (nearest <= self._near).double().mean().item()


def judged(objective: Objective, real_logits: Tensor, fake_logits: Tensor) -> Vitals:
    """What D's logits [N] say: how far apart, how sure, and how much of a slope is left for G."""
    found = {
        "margin": (real_logits.mean() - fake_logits.mean()).item(),
        "logits": torch.cat([real_logits, fake_logits]).abs().mean().item(),
    }
    if objective.classifier:
        sure = torch.cat([real_logits > SURE, fake_logits < -SURE])
        found["sure"] = sure.double().mean().item()
    elif objective.paired:
        found["sure"] = (real_logits - fake_logits > SURE).double().mean().item()
    if objective.signed:
        found["r_t"] = real_logits.sign().mean().item()
    with torch.enable_grad():
        leaf = fake_logits.detach().requires_grad_()
        loss = objective.loss_G(leaf, real_logits if objective.paired else None)
        (slope,) = torch.autograd.grad(loss, leaf)
    found["slope"] = (slope.abs().mean() * len(slope)).item()
    return found


def weights(parameters: Sequence[Tensor]) -> float:
    """Their norm."""
    return torch.nn.utils.get_total_norm([each.detach() for each in parameters]).item()


def small(img: Tensor, side: int) -> Tensor:
    """[N, C, H, W] to rows [N, d] float32, of side x side pixels at most; points [N, 2] stay."""
    if img.dim() < 4:
        return img.flatten(1).float()
    if img.shape[-1] > side:
        img = nn.functional.adaptive_avg_pool2d(img.float(), side)
    return img.flatten(1).float()


def spread(img: Tensor) -> float:
    """Mean distance of two different images of a batch."""
    rows = small(img, _SIDE)
    return torch.pdist(rows).mean().item() if len(rows) > 1 else 0.0


def nearest_other(rows: Tensor) -> Tensor:
    """Distance of each row to the nearest that is another, [N]."""
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.fill_diagonal_(torch.inf).amin(1)


def swing(values: Sequence[float]) -> float:
    """How periodic a series is: the first peak of its autocorrelation beyond the first trough.

    The series is brought to means of four rounds or more, 128 at most, so that what flips from one
    step to the next is not taken for a cycle, and freed of its straight line. About 1 for a wave,
    0 for noise; 0 too where it is fainter than a tenth of the series' own size, or where fewer
    than three waves fit in, as chance makes such ones.
    """
    block = max(_ROUNDS_A_MEAN, len(values) // _NUM_MEANS)
    num = len(values) // block
    wave = np.asarray(values[: num * block], dtype=np.float64).reshape(num, block).mean(1)
    size = np.abs(wave).mean()
    time = np.arange(num) - (num - 1) / 2
    wave = wave - wave.mean() - time * (time @ wave) / (time @ time)
    power = wave @ wave / num
    if not math.isfinite(power) or power <= (_FAINT * size) ** 2:
        return 0.0
    lags = range(num // 3 + 1)
    correlation = np.array([wave[: num - lag] @ wave[lag:] / (num - lag) for lag in lags]) / power
    trough = _first(correlation < 0, 0)
    peak = _first(correlation > 0, trough)
    return float(min(correlation[peak:].max(initial=0.0), -correlation.min()))


def _first(mask: npt.NDArray[np.bool_], start: int) -> int:
    """Index of the first True from start on; the length where there is none."""
    found = np.flatnonzero(mask[start:])
    return start + int(found[0]) if len(found) else len(mask)


@contextmanager
def untouched(*networks: nn.Module) -> Iterator[None]:
    """Puts the networks' buffers back: running means, power iterations."""
    buffers = [buffer for network in networks for buffer in network.buffers()]
    kept = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, kept, strict=True):
            buffer.copy_(value)
