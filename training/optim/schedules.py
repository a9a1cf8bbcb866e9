"""Schedules: numbers of the training that change while it goes on, as functions of cur_nimg.

They are written TARGET=END@KIMG or TARGET=END@KIMG:SHAPE: from its configured value the target goes
to END within the first KIMG thousand images and stays there. As the value follows from cur_nimg
alone, a resumed run has it without storing it. The configuration says which targets there are.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from training.errors import ConfigError, require

_TEXT = re.compile(r"(?P<target>[^=]+)=(?P<end>[^@]+)@(?P<kimg>[^:]+)(:(?P<shape>.+))?")

SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda share: 0.5 * (1 - math.cos(math.pi * share)),
    "linear": lambda share: share,
}
"""Share of the time, in [0, 1], to share of the way. R3GAN's are cosines (Huang et al. 2024)."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The change of one number from its configured value to another."""

    target: str
    """The name of the option or regulariser that changes."""
    end: float
    """Its last value."""
    kimg: float
    """When it is reached, in thousands of images from the start of the training."""
    shape: str = "linear"
    """Entry of SHAPES."""

    def __post_init__(self) -> None:
        """Refuses ends, times and shapes that make no schedule."""
        field = f"schedules: {self.target}"
        require(math.isfinite(self.end), field, self.end, "a finite number", "write lr=0@500")
        positive = math.isfinite(self.kimg) and self.kimg > 0
        require(positive, field, self.kimg, "kimg above 0", "write lr=0@500")
        require(self.shape in SHAPES, field, self.shape, ", ".join(SHAPES), "write lr=0@500:cosine")

    def __str__(self) -> str:
        shape = "" if self.shape == "linear" else f":{self.shape}"
        return f"{self.target}={self.end:g}@{self.kimg:g}{shape}"

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Reads a schedule from the text that str() gives.

        Raises:
            ConfigError: the text is no schedule.
        """
        try:
            match = _TEXT.fullmatch(text)
            if match is None:
                raise ValueError
            end, kimg = float(match["end"]), float(match["kimg"])
        except ValueError:
            message = f"schedules is {text!r}, allowed: TARGET=END@KIMG or TARGET=END@KIMG:SHAPE"
            raise ConfigError(f"{message}; for instance optim_G.lr=0@500:cosine") from None
        return cls(target=match["target"], end=end, kimg=kimg, shape=match["shape"] or "linear")

    def at(self, start: float, cur_nimg: int) -> float:
        """Returns the target's value once cur_nimg images were shown. start: as configured."""
        share = min(cur_nimg / (self.kimg * 1000), 1.0)
        return start + (self.end - start) * SHAPES[self.shape](share)


class Timetable:
    """All schedules of a training, by target."""

    def __init__(self, schedules: tuple[Schedule, ...] = ()) -> None:
        """schedules: one a target."""
        self._schedules = {schedule.target: schedule for schedule in schedules}

    def at(self, target: str, start: float, cur_nimg: int) -> float:
        """Returns the value once cur_nimg images were shown; `start` if it has no schedule."""
        schedule = self._schedules.get(target)
        return start if schedule is None else schedule.at(start, cur_nimg)

    def rates(
        self, optim: str, lr: float, betas: tuple[float, float], cur_nimg: int
    ) -> tuple[float, tuple[float, float]]:
        """Returns an optimiser's (lr, betas) once cur_nimg images were shown.

        optim: its name among the options, optim_G or optim_D. lr, betas: as configured.
        """
        beta1, beta2 = betas
        return self.at(f"{optim}.lr", lr, cur_nimg), (
            self.at(f"{optim}.beta1", beta1, cur_nimg),
            self.at(f"{optim}.beta2", beta2, cur_nimg),
        )

    def __bool__(self) -> bool:
        return bool(self._schedules)
