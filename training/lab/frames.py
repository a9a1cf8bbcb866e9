"""A frame: what the page draws of a game between two rounds, as bytes.

A frame is MAGIC, the length of a JSON head (4 bytes, little endian), the head, and the arrays that
it lists, one after the other. Latents are always the same, so that point i of one frame is point i
of the next. The arrows are the training's own loss, differentiated by G's points.
"""

import json
import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.networks.plane import SPAN
from training.engine.stepper import game_of
from training.game.forward import Batch, packed
from training.lab.clouds import Coverage
from training.lab.game import Game
from training.randomness import key, normal

MAGIC = b"lab1"
NUM_POINTS = 600
NUM_REAL = 600
NUM_ARROWS = 96
SURFACE = 36
"""Points on a side of D's surface, which reaches from -EXTENT to EXTENT."""
EXTENT = 1.25 * SPAN
MANIFOLD = 21
"""Latents on a side of G's deformed grid, from -MANIFOLD_REACH to MANIFOLD_REACH."""
MANIFOLD_REACH = 2.5
_COVERAGE_EVERY = 5
_EDGE = 1e6
"""Coordinates beyond it are drawn at it: a diverged game has no others in float32."""


@dataclass(kw_only=True)
class Frames:
    """Makes the frames of one game."""

    sequence: int = 0
    _latents: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _coverage: Coverage | None = None

    def head(self, game: Game) -> dict[str, Any]:
        """What of a game doesn't change while it plays, JSON types."""
        seen = game.cloud.image_set.seen(slice(0, NUM_REAL)).reshape(-1, 2)
        return {
            "extent": EXTENT,
            "surface": SURFACE,
            "manifold": MANIFOLD if game.parameters.z_dim > 1 else 0,
            "real": np.round(seen.numpy().astype(float), 4).tolist(),
            "modes": np.round(game.cloud.modes, 5).tolist(),
            "texts": game.parameters.texts(whole=True),
            "query": game.parameters.query(),
        }

    def frame(self, game: Game, extra: dict[str, Any]) -> bytes:
        """The game as it stands. extra: goes into the head."""
        self.sequence += 1
        arrays = self._arrays(game)
        if self._coverage is None or self.sequence % _COVERAGE_EVERY == 0:
            self._coverage = game.cloud.coverage(arrays["average"].reshape(-1, 2))
        found = self._coverage
        meters = game.stepper.meters
        means = meters.means()
        meters.reset()
        head = {
            "sequence": self.sequence,
            "round": game.round,
            "nimg": game.state.cur_nimg,
            "digest": game.digest[:16],
            "ofLink": game.is_of_its_link,
            "means": {name: value for name, value in means.items() if math.isfinite(value)},
            "coverage": [found.caught, found.of, found.good_share, _finite(found.reverse_kl)],
            "kept": [game.rounds_kept[0], game.rounds_kept[-1], len(game.rounds_kept)],
            "arrays": {name: [each.size, each.dtype.str] for name, each in arrays.items()},
            **extra,
        }
        text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)  # arrays of float32 begin at a multiple of four
        return b"".join(
            [MAGIC + struct.pack("<I", len(text)), text, *(a.tobytes() for a in arrays.values())]
        )

    def _arrays(self, game: Game) -> dict[str, np.ndarray]:
        G, D = game.state.G.network, game.state.D.network
        config = game.parameters.config
        latents, lattice = self._latents_of(config.network.z_dim)
        with torch.no_grad():
            made = G(torch.cat([latents, lattice])).flatten(1)
            average = game.state.G_ema(latents).flatten(1)
            surface = D(_plane(config.packing))
        points, manifold = made[: len(latents)], made[len(latents) :]
        found = {
            "points": points,
            "average": average,
            "manifold": manifold if config.network.z_dim > 1 else manifold[:0],
            "surface": surface,
            "arrows": self._arrows(game, points),
        }
        return {
            name: np.nan_to_num(
                each.numpy().astype("<f4").reshape(-1), nan=_EDGE, posinf=_EDGE, neginf=-_EDGE
            ).clip(-_EDGE, _EDGE)
            for name, each in found.items()
        }

    def _arrows(self, game: Game, points: Tensor) -> Tensor:
        """The direction in which G's loss falls at its first points, [NUM_ARROWS, 2]."""
        config, state = game.parameters.config, game.state
        num = NUM_ARROWS // config.packing * config.packing
        leaf = points[:num].reshape(-1, 1, 1, 2).clone().requires_grad_()
        real = game.cloud.image_set.seen(slice(0, num))
        if len(real) < num:
            real = real.repeat(-(-num // len(real)), 1, 1, 1)[:num]
        z = self._latents_of(config.network.z_dim)[0][:num]
        batch = Batch(real_img=real, label=None, z=z, key=0, cur_nimg=state.cur_nimg)
        # Penalties of G's own would need its weights' gradients; the arrows are the objective's.
        played = game_of(config, state.D.network, ())
        loss = played.losses("G", state.G.network, state.D.network, batch, leaf).total
        (gradient,) = torch.autograd.grad(loss, leaf)
        return -num * gradient.flatten(1)

    def _latents_of(self, z_dim: int) -> tuple[Tensor, Tensor]:
        """The latents of the points [NUM_POINTS, z_dim], and of the grid, in the first two."""
        if z_dim not in self._latents:
            draws = torch.Generator()
            latents = normal((NUM_POINTS, z_dim), draws, key(0, "lab", 0))
            side = torch.linspace(-MANIFOLD_REACH, MANIFOLD_REACH, MANIFOLD)
            y, x = torch.meshgrid(side, side, indexing="ij")
            lattice = torch.zeros(MANIFOLD**2, z_dim)
            lattice[:, 0] = x.flatten()
            lattice[:, 1:2] = y.reshape(-1, 1)[:, : z_dim - 1]
            self._latents[z_dim] = latents, lattice
        return self._latents[z_dim]


def _plane(packing: int) -> Tensor:
    """The points of D's surface, [SURFACE^2, packing, 1, 2], row by row from the top.

    A D of packs is shown packs of one point.
    """
    side = torch.linspace(-EXTENT, EXTENT, SURFACE)
    y, x = torch.meshgrid(side.flip(0), side, indexing="ij")
    points = torch.stack([x, y], 2).reshape(-1, 1, 1, 2)
    return packed(points.repeat(packing, 1, 1, 1), packing)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
