"""The batches of a round: data, latents and keys of every step, in the parts that are computed.

What a step draws is a function of the seed and of how many images were shown. Each process takes
its own rows of every batch, and computes them in as many parts as are accumulated. This module
knows no loss, and of the networks only how wide the latent is.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from models.networks.row_rng import Rows
from training.config.training import TrainingConfig
from training.engine.distributed import World
from training.engine.state import State
from training.game.forward import Batch
from training.game.updates import MicroBatch, RoundBatch
from training.randomness import key, normal

_FAR = 1 << 40


class BatchSource(Protocol):
    """The data as training asks for it: `training.data.Batches`, for one."""

    @property
    def device(self) -> torch.device:
        """The device that the images are on."""
        ...

    def at(self, cur_nimg: int) -> tuple[Tensor, Tensor | None]:
        """Returns images [batch_size, ...] float32 and labels [batch_size] from number cur_nimg."""
        ...


class RoundBatches:
    """Makes the batches of one training."""

    def __init__(self, config: TrainingConfig, source: BatchSource, world: World) -> None:
        """world: the processes that share each batch."""
        self._config = config
        self._source = source
        self._noise = torch.Generator(source.device)
        num_parts = config.accumulate * world.size
        self._rows = [
            Rows.of_part(part, num_parts, config.batch_size, source.device)
            for part in (world.parts(config.accumulate) if num_parts > 1 else ())
        ]

    def of_D(self, state: State) -> Iterator[RoundBatch]:
        """Yields a batch for each of D's steps: new images and latents every time."""
        for index in range(self._config.steps_D):
            start = state.cur_nimg + index * self._config.batch_size
            yield self._in_parts(self._batch(state, start, step_G=0))

    def of_G(self, state: State) -> Iterator[RoundBatch]:
        """Yields a batch for each of G's steps but the first, which has the last one of D's.

        The images are those of that batch; the latents are new. With `fresh_batch_G` there is one
        for the first step as well, and all have images of their own.
        """
        fresh = self._config.fresh_batch_G
        start = state.cur_nimg + (self._config.steps_D - 1) * self._config.batch_size
        for index in range(0 if fresh else 1, self._config.steps_G):
            batch = self._batch(state, start, step_G=index, purpose=f"/{index}", of_G=fresh)
            yield self._in_parts(batch)

    def afresh(self, round_batch: RoundBatch, player: str) -> RoundBatch:
        """Returns the same images with latents and a key of their own, for lazy penalties."""
        config, parts = self._config, [part.batch for part in round_batch.micro_batches]
        # Several steps of G begin at one image; each step has a number of its own.
        purpose = f"/lazy-{player}{parts[0].step_G if player == 'G' else ''}"
        start = parts[0].cur_nimg
        shape = (config.batch_size, config.network.z_dim)
        z = normal(shape, self._noise, key(config.seed, f"z{purpose}", start))
        seed = key(config.seed, f"layers{purpose}", start)
        batches = [
            replace(part, z=z if part.rows is None else part.rows.of(z), key=seed) for part in parts
        ]
        return RoundBatch([MicroBatch(batch) for batch in batches], for_G=False, terms="lazy")

    def _batch(
        self, state: State, start: int, *, step_G: int, purpose: str = "", of_G: bool = False
    ) -> Batch:
        """Makes a batch.

        start: number of its first image. step_G: number of G's step in this round, from 0 on. of_G:
        the images are those of another place in the data's endless order.
        """
        config = self._config
        place = start
        if of_G:  # D comes to it after 10^12 images: never
            place = _FAR + start // config.steps_D * config.steps_G + step_G * config.batch_size
        real_img, label = self._source.at(place)
        shape = (config.batch_size, config.network.z_dim)
        # Keyed by the batch's first image: a resumed run draws what the first one would have drawn.
        return Batch(
            real_img=real_img,
            label=label,
            z=normal(shape, self._noise, key(config.seed, f"z{purpose}", start)),
            key=key(config.seed, f"layers{purpose}", start),
            step_D=start // config.batch_size,
            step_G=state.cur_nimg // config.round_nimg * config.steps_G + step_G,
            cur_nimg=start,
            augment_p=state.augment_p,
            path_length=state.path_length,
        )

    def _in_parts(self, batch: Batch) -> RoundBatch:
        """Returns this process's rows of a batch; the whole where there is one part."""
        parts = [_rows_of(batch, rows) for rows in self._rows] or [batch]
        return RoundBatch([MicroBatch(part) for part in parts])


def _rows_of(batch: Batch, rows: Rows) -> Batch:
    return replace(
        batch,
        real_img=rows.of(batch.real_img),
        label=None if batch.label is None else rows.of(batch.label),
        z=rows.of(batch.z),
        rows=rows,
        whole_img=batch.real_img,
    )
