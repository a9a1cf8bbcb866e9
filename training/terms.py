"""Terms: the regularisers of a recipe, each an entry of a registry with its weight and interval.

There are three kinds: penalties are added to losses, constraints act on D's weights, views on what
D sees. A recipe names them all alike.
"""

import math
from dataclasses import dataclass

from training.constraints import CONSTRAINTS
from training.errors import ConfigError, require
from training.regularizers import PENALTIES
from training.views import VIEWS

REGULARIZERS = {**PENALTIES, **CONSTRAINTS, **VIEWS}


@dataclass(frozen=True, kw_only=True)
class Term:
    """One regulariser in a recipe, written NAME=WEIGHT or NAME=WEIGHT/EVERY."""

    name: str
    """Entry of REGULARIZERS."""
    weight: float
    """Factor of a penalty, gamma for r1 and r2; what it means for others, see --list."""
    interval: int = 1
    """Steps from one application to the next; a penalty's weight is multiplied by it."""

    def __post_init__(self) -> None:
        """Refuses unknown names, negative weights and intervals that don't fit."""
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
        """Raises ConfigError for a weight with which the loss would have no minimum."""
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
        """The inverse of str.

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
