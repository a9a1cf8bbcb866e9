"""Soundings: what is cheap to know of a game's stability while it trains, at some of its ticks.

The field's size for each player, G's at the averaged weights, the angle between the field and the
way since the last sounding, and the condition number of dG/dz. Copies in float64 are looked at, so
that the training isn't touched. Together they take MOST_SHARE of its time at most.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.config.training import TrainingConfig
from training.data import ImageSet
from training.engine.state import State
from training.stability.course import conditioning
from training.stability.run_game import RunGame

PREFIX = "stability."
MOST_SHARE = 0.03
"""Of the training's time."""
_NUM_LATENTS, _NUM_IMAGES = 4, 64
_ROUNDS_OF_ONE = 10
"""What a first sounding is taken to cost, in rounds of the training, before it is known."""


@dataclass(kw_only=True)
class Soundings:
    """The soundings of one training, by the process that leads it."""

    image_set: ImageSet
    every_nimg: int
    """Images shown from one sounding to the next, at least."""
    folder: Path = field(default_factory=Path)
    """The run's."""
    say: Callable[[str], None] = lambda line: None
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    spent_s: float = field(init=False, default=0.0)
    """Seconds that the soundings took so far."""
    _start: tuple[float, int] | None = field(init=False, default=None)
    _expected_s: float | None = field(init=False, default=None)
    _last: tuple[int, Tensor] | None = field(init=False, default=None)
    _has_put_off: bool = field(init=False, default=False)
    _has_failed: bool = field(init=False, default=False)

    def at_tick(self, config: TrainingConfig, state: State) -> dict[str, float]:
        """Sounds where it is due and there is time for it. What fails is said, and ends them.

        Returns:
            The figures for the journal, those that are finite; empty without a sounding.
        """
        if self._has_failed:
            return {}
        now = self.clock()
        if self._start is None:  # the first tick starts the clock, not the reading of the data
            self._start = (now, state.cur_nimg)
            return {}
        last = self._start[1] if self._last is None else self._last[0]
        if state.cur_nimg - last < self.every_nimg or not self._is_affordable(config, state, now):
            return {}
        try:
            found = self._sounded(config, state)
        except Exception as error:  # of the device's memory, for instance: the training goes on
            self._has_failed = True
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            self.say(f"warning: its stability is measured no more: {reason}")
            return {}
        self._expected_s = self.clock() - now
        self.spent_s += self._expected_s
        return {f"{PREFIX}{name}": v for name, v in found.items() if math.isfinite(v)}

    def _is_affordable(self, config: TrainingConfig, state: State, now: float) -> bool:
        assert self._start is not None
        elapsed_s, shown = now - self._start[0], state.cur_nimg - self._start[1]
        expected_s = self._expected_s
        if expected_s is None:
            expected_s = _ROUNDS_OF_ONE * elapsed_s * config.round_nimg / max(shown, 1)
        fits = self.spent_s + expected_s <= MOST_SHARE * elapsed_s
        if not fits and not self._has_put_off:
            self._has_put_off = True
            self.say(
                f"stability: a sounding takes about {expected_s:.1f} s and waits, so that all "
                f"take {MOST_SHARE:.0%} of the time at most"
            )
        return fits

    def _sounded(self, config: TrainingConfig, state: State) -> dict[str, float]:
        game = RunGame(
            folder=self.folder,
            config=replace(config, accumulate=1),
            image_set=self.image_set,
            state=state,
            checkpoint=self.folder,
        )
        (batch,) = game.batches(1, game.size_up_to(_NUM_IMAGES))
        v_field = game.field(batch)
        here, v = v_field.place, v_field(v_field.place)
        found = {f"speed_{player}": v_field.part(player, v).norm().item() for player in "GD"}
        averaged = torch.cat([game.averaged_theta(), v_field.part("D", here)])
        at_average = v_field.part("G", v_field(averaged))
        found["speed_average_G"] = at_average.norm().item()
        if self._last is not None:
            back = self._last[1] - here
            size = (v.norm() * back.norm()).clamp_min(1e-300)
            found["path_cosine"] = (torch.dot(v, back) / size).item()
        self._last = (state.cur_nimg, here)
        label = None if batch.label is None else batch.label[:_NUM_LATENTS]
        G_ema = game.averaged_G()
        found["conditioning"] = float(np.median(conditioning(G_ema, batch.z[:_NUM_LATENTS], label)))
        return found
