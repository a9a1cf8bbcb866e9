"""Diagnostics: the figures that the watchdog computes of a training at a tick.

They come from one batch of the data and one of G's images, always the same latents, which pass
through the game without a gradient. The training isn't affected: buffers are restored, and no
random number of the training is used. So watched and unwatched trainings have the same weights,
and a step costs no more than keeping scalars that it has computed anyway.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.config.training import TrainingConfig
from training.data import Batches, ImageSet
from training.engine.state import State
from training.engine.stepper import game_of
from training.game.forward import Batch, Forward
from training.game.losses import Game
from training.game.objectives import OBJECTIVES, Objective
from training.randomness import key, normal
from training.transforms.input_noise import INPUT_NOISES
from training.watchdog.detectors import Diagnostics

NUM_IMAGES = 128
SURE = 4.6  # |logit| beyond which sigmoid is within 1% of 0 or 1
MIN_ROUNDS = 128  # ticks of fewer rounds are too short to see a period in
_ROUNDS_PER_MEAN, _NUM_MEANS = 4, 128
_MIN_AMPLITUDE = 0.1  # of a wave, relative to the series' mean size
_SIDE = 16  # images are compared at this resolution at most
_COPY_SIDE = 8  # and with the training images at this one
_MAX_SEARCHED = 65_536  # training images
_CHUNK_SIZE = 4096  # images that are made float at a time, fewer of more than 73x73 pixels
_CHUNK_VALUES = 2**26
_LEAST_APART = 1e-6  # of D's mean logits
_TWIN = 0.25  # times the median distance to the nearest other image of the data
_NEAR_QUANTILE = 0.01


class DiagnosticsReader:
    """Computes the diagnostics of one training."""

    def __init__(self, config: TrainingConfig, image_set: ImageSet) -> None:
        """image_set: on the players' device."""
        self._config = config
        self._objective = OBJECTIVES[config.objective]
        num = min(NUM_IMAGES, len(image_set))
        self._num = max(num // config.packing, 1) * config.packing
        batches = Batches(image_set, batch_size=self._num, seed=config.seed)
        self._real_img, self._label = batches.at(0)
        shape = (self._num, config.network.z_dim)
        generator = torch.Generator(batches.device)
        self._z = normal(shape, generator, key(config.seed, "watchdog", 0))
        self._mean_distance = mean_distance(self._real_img)
        self._twin = _TWIN * nearest_other(downsampled(self._real_img, _SIDE)).median()
        self._copies = CopySearch(image_set)
        self._held_out: tuple[Tensor, Tensor | None] | None = None
        if image_set.held_out is not None:
            held_out, place = image_set.held_out, self._real_img.device
            self._held_out = _first_images(held_out, self._num, place)

    @torch.no_grad()
    def read(
        self, state: State, means: dict[str, float], series: Mapping[str, Sequence[float]]
    ) -> Diagnostics:
        """Computes the diagnostics of the current state. It waits for the device.

        Args:
            state: the training's state; it isn't changed.
            means: the means of the tick's scalars, by name.
            series: the values of the tick's scalars in each round, by name.
        """
        config = self._config
        batch = self._batch(state)
        noise = tuple(term for term in config.regularizers if term.name in INPUT_NOISES)
        game = game_of(config, state.D.network, noise)
        with buffers_restored(state.G.network, state.D.network):
            fake_img = game.generate(state.G.network, batch)
            seen = game.losses("D", state.G.network, state.D.network, batch, fake_img).forward
        assert seen.real_logits is not None
        found = {"cur_nimg": float(state.cur_nimg)}
        found |= {name: means[name] for name in ("gradient_G", "gradient_D")}
        found |= weight_norms(state)
        found |= {f"untrained_{name}": norm for name, norm in state.untrained.items()}
        found |= logit_diagnostics(
            self._objective, seen.real_logits.double(), seen.fake_logits.double()
        )
        if (gap := self._held_out_gap(state, game, batch, fake_img, seen)) is not None:
            found["held_out_gap"] = gap
        found["spread"] = mean_distance(fake_img) / max(self._mean_distance, 1e-12)
        twins = nearest_other(downsampled(fake_img, _SIDE)) < self._twin
        found["twins"] = twins.double().mean().item()
        if (copied := self._copies.share(fake_img)) is not None:
            found["copied"] = copied
        long = [values for values in series.values() if len(values) >= MIN_ROUNDS]
        if long:
            found["swing"] = max(map(periodicity, long))
        return found

    def _held_out_gap(
        self, state: State, game: Game, batch: Batch, fake_img: Tensor, seen: Forward
    ) -> float | None:
        """(E D(train) - E D(held out)) / (E D(train) - E D(fake)).

        0 where D takes images that it never saw for those that it did, 1 where for generated ones.
        None without such images, or where D tells nothing apart.
        """
        if self._held_out is None or seen.real_logits is None:
            return None
        real_img, label = self._held_out
        other = replace(batch, real_img=real_img, label=label)
        G, D = state.G.network, state.D.network
        with buffers_restored(G, D):
            held_logits = game.losses("D", G, D, other, fake_img).forward.real_logits
        assert held_logits is not None
        logits = (seen.real_logits, held_logits, seen.fake_logits)
        train, held, fake = (each.double().mean().item() for each in logits)
        apart = train - fake
        return (train - held) / apart if abs(apart) > _LEAST_APART else None

    def _batch(self, state: State) -> Batch:
        config = self._config
        return Batch(
            real_img=self._real_img,
            label=self._label,
            z=self._z,
            key=key(config.seed, "watchdog/layers", 0),
            cur_nimg=state.cur_nimg,
            augment_p=state.augment_p,
        )


class CopySearch:
    """Finds copies of the training images, which are kept at a low resolution."""

    def __init__(self, image_set: ImageSet) -> None:
        """image_set: at most 65,536 of its images, evenly spaced, are kept."""
        every = -(-len(image_set) // _MAX_SEARCHED)
        size = max(1, min(_CHUNK_SIZE, _CHUNK_VALUES // image_set.images[0].numel()))
        step = every * size
        starts = range(0, len(image_set), step)
        chunks = (image_set.seen(slice(start, start + step, every)) for start in starts)
        rows = torch.cat([downsampled(chunk, _COPY_SIDE) for chunk in chunks])
        rows = rows.to(image_set.device)  # mapped images stay on the host
        # Duplicates would make the usual distance of the nearest other image 0.
        self._rows: Tensor = torch.unique(rows, dim=0)
        self._near: Tensor | None = None
        if len(self._rows) > 1:
            chosen = self._rows[:: -(-len(self._rows) // 1024)]
            apart = torch.cdist(chosen, self._rows).topk(2, largest=False).values[:, 1]
            self._near = apart.double().quantile(_NEAR_QUANTILE)

    def share(self, img: Tensor) -> float | None:
        """The share of images [N, C, H, W] in [-1, 1] that are copies of training images.

        A copy is as near to a training image as the nearest 1% of training images are to another.
        None where there is only one training image to compare.
        """
        if self._near is None:
            return None
        nearest = torch.cdist(downsampled(img, _COPY_SIDE), self._rows).amin(1)
        return (nearest <= self._near).double().mean().item()


def _first_images(
    image_set: ImageSet, num: int, place: torch.device
) -> tuple[Tensor, Tensor | None]:
    """So many images with their labels, from the start again where there are fewer.

    place: the players', which a set that is too large for their device isn't on.
    """
    index = torch.arange(num, device=image_set.images.device) % len(image_set)
    images = image_set.images[index] if image_set.exact is None else image_set.exact[index]
    img = images if image_set.exact is not None else images.float() / 127.5 - 1
    label = None if image_set.labels is None else image_set.labels[index].to(place)
    return img.to(place), label


def logit_diagnostics(
    objective: Objective, real_logits: Tensor, fake_logits: Tensor
) -> Diagnostics:
    """The figures that follow from D's logits, [N] each.

    margin: difference of the means; logits: mean size; logit_spread: their standard deviation, both
    sides together; sure: share with |logit| > SURE on the right side; r_t: E[sign D(real)]; slope:
    mean size of the gradient of G's loss by a fake logit.
    """
    found = {
        "margin": (real_logits.mean() - fake_logits.mean()).item(),
        "logits": torch.cat([real_logits, fake_logits]).abs().mean().item(),
        "logit_spread": torch.cat([real_logits, fake_logits]).std(correction=0).item(),
    }
    if objective.classifier:
        sure = torch.cat([real_logits > SURE, fake_logits < -SURE])
        found["sure"] = sure.double().mean().item()
    elif objective.logistic:
        found["sure"] = (real_logits - fake_logits > SURE).double().mean().item()
    if objective.signed:
        found["r_t"] = real_logits.sign().mean().item()
    with torch.enable_grad():
        leaf = fake_logits.detach().requires_grad_()
        loss = objective.loss_G(leaf, real_logits if objective.paired else None)
        (slope,) = torch.autograd.grad(loss, leaf)
    found["slope"] = (slope.abs().mean() * len(slope)).item()
    return found


def weight_norms(state: State) -> dict[str, float]:
    """The norm of each player's weights, as weights_G and weights_D."""
    return {f"weights_{player}": weight_norm(state.player(player).parameters) for player in "GD"}


def weight_norm(parameters: Sequence[Tensor]) -> float:
    """The L2 norm of all parameters together."""
    return torch.nn.utils.get_total_norm([each.detach() for each in parameters]).item()


def downsampled(img: Tensor, side: int) -> Tensor:
    """[N, C, H, W] to rows [N, d] float32 of side x side pixels at most; points [N, 2] stay."""
    if img.dim() < 4:
        return img.flatten(1).float()
    if max(img.shape[-2:]) > side:
        img = nn.functional.adaptive_avg_pool2d(img.float(), side)
    return img.flatten(1).float()


def mean_distance(img: Tensor) -> float:
    """The mean distance of two different images of a batch [N, C, H, W]."""
    rows = downsampled(img, _SIDE)
    return torch.pdist(rows).mean().item() if len(rows) > 1 else 0.0


def nearest_other(rows: Tensor) -> Tensor:
    """The distance of each row to the nearest other row, [N]. rows: [N, d]."""
    # Without matrix products: |a|^2 + |b|^2 - 2 a b would lose the small distances of twins.
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.fill_diagonal_(torch.inf).amin(1)


def periodicity(values: Sequence[float]) -> float:
    """How periodic a series is: the first peak of its autocorrelation after the first trough.

    It is about 1 for a wave and 0 for noise. The series is averaged over four rounds or more, to at
    most 128 means, so that alternation from one step to the next doesn't count, and its linear
    trend is removed. The result is also 0 for a wave whose amplitude is below a tenth of the
    series' mean size, and where fewer than three waves fit in, since noise makes such waves, too.
    """
    block = max(_ROUNDS_PER_MEAN, len(values) // _NUM_MEANS)
    num = len(values) // block
    wave = np.asarray(values[: num * block], dtype=np.float64).reshape(num, block).mean(1)
    size = np.abs(wave).mean()
    time = np.arange(num) - (num - 1) / 2
    wave = wave - wave.mean() - time * (time @ wave) / (time @ time)
    power = wave @ wave / num
    if not math.isfinite(power) or power <= (_MIN_AMPLITUDE * size) ** 2:
        return 0.0
    lags = range(num // 3 + 1)
    correlation = np.array([wave[: num - lag] @ wave[lag:] / (num - lag) for lag in lags]) / power
    trough = _first(correlation < 0, 0)
    peak = _first(correlation > 0, trough)
    return float(min(correlation[peak:].max(initial=0.0), -correlation.min()))


def _first(mask: npt.NDArray[np.bool_], start: int) -> int:
    """The index of the first True from start on; the mask's length where there is none."""
    found = np.flatnonzero(mask[start:])
    return start + int(found[0]) if len(found) else len(mask)


@contextmanager
def buffers_restored(*networks: nn.Module) -> Iterator[None]:
    """Restores the networks' buffers (running means, power iterations) after the block."""
    buffers = [buffer for network in networks for buffer in network.buffers()]
    kept = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, kept, strict=True):
            buffer.copy_(value)
