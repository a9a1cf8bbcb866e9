"""The regularisers of a recipe: each an entry of a registry, with its weight and interval.

There are three kinds: penalties are added to losses, constraints act on D's weights, input noise on
the images before D sees them. A recipe names them all alike.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from training.errors import ConfigError, require
from training.game.penalties import PENALTIES
from training.optim.constraints import CONSTRAINTS
from training.transforms.input_noise import INPUT_NOISES

REGULARIZERS = {**PENALTIES, **CONSTRAINTS, **INPUT_NOISES}


@dataclass(frozen=True, kw_only=True)
class Term:
    """One regulariser in a recipe, written NAME=WEIGHT or NAME=WEIGHT/EVERY."""

    name: str
    """Entry of REGULARIZERS."""
    weight: float
    """Factor of a penalty, gamma for r1 and r2; --list says what it means for others."""
    interval: int = 1
    """Steps from one use of a penalty to the next; its weight is multiplied by it then."""

    def __post_init__(self) -> None:
        """Refuses unknown names, negative weights, and intervals of what acts at every step."""
        field = f"regularizers: {self.name}"
        require(
            self.name in REGULARIZERS,
            "regularizers",
            self.name,
            ", ".join(REGULARIZERS),
            "see --list",
        )
        nonnegative = math.isfinite(self.weight) and self.weight >= 0
        require(nonnegative, field, self.weight, "a weight of 0 or more", "write r1=0.5")
        every = f"regularizers: interval of {self.name}"
        whole = self.interval >= 1
        require(whole, every, self.interval, "1 step or more", f"write {self.name}=W/16")
        always = self.name in PENALTIES or self.interval == 1
        require(always, every, self.interval, "1, as it acts on every step", f"write {self.name}=W")
        positive = self.name not in CONSTRAINTS or self.weight > 0
        require(positive, field, self.weight, "a weight above 0", f"leave {self.name} out")
        self.require_bounded(self.weight, field, f"lower it, as {self.name}=0.1")

    def require_bounded(self, weight: float, field: str, remedy: str) -> None:
        """Raises ConfigError for a weight with which the loss has no minimum."""
        if (penalty := PENALTIES.get(self.name)) is None:
            return
        below = f"a weight below {penalty.below / self.interval:g}"
        lazy = f", {penalty.below:g} over the interval of {self.interval} steps"
        allowed = below + (lazy if self.interval > 1 else "")
        require(weight * self.interval < penalty.below, field, weight, allowed, remedy)

    def __str__(self) -> str:
        every = f"/{self.interval}" if self.interval != 1 else ""
        return f"{self.name}={self.weight:g}{every}"

    @classmethod
    def parse(cls, text: str) -> "Term":
        """Reads a term from the text that str() gives.

        Raises:
            ConfigError: the text is no term.
        """
        name, _, rest = text.partition("=")
        weight, _, interval = rest.partition("/")
        try:
            numbers = float(weight), int(interval or 1)
        except ValueError:
            message = f"regularizers is {text!r}, allowed: NAME=WEIGHT or NAME=WEIGHT/EVERY"
            raise ConfigError(f"{message}; for instance r1=0.5") from None
        return cls(name=name, weight=numbers[0], interval=numbers[1])


def lazy_intervals(terms: Iterable[Term], player: str) -> list[int]:
    """The intervals above 1 of a player's penalties, ascending, each once."""
    return sorted(
        {
            term.interval
            for term in terms
            if term.interval > 1
            and term.name in PENALTIES
            and PENALTIES[term.name].player in (player, "both")
        }
    )
