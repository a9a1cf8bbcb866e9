"""What the watchdog is told: how to act, how often, and which signs to leave alone."""

from dataclasses import dataclass
from typing import Literal

from training.errors import require
from training.stability.signs import SIGNS

ACTIONS = ("off", "warn", "stop", "rescue")


@dataclass(frozen=True, kw_only=True)
class WatchdogConfig:
    """How a training is watched."""

    action: Literal["off", "warn", "stop", "rescue"] = "warn"
    """On a known failure: off doesn't look; warn says so; stop ends the training; rescue goes back
    to the last checkpoint before it and changes one thing, see docs/watchdog.md."""
    max_rescues: int = 3
    """How often a training is rescued before it is stopped."""
    ignore: tuple[str, ...] = ()
    """Failures not to look for: divergence, vanishing, saturation, collapse, oscillation,
    overfitting, memorisation."""

    def __post_init__(self) -> None:
        """Refuses what is no action, number or sign."""
        actions = ", ".join(ACTIONS)
        require(self.action in ACTIONS, "watchdog.action", self.action, actions, "choose one")
        num, remedy = self.max_rescues, "0 stops at the first alarm"
        require(num >= 0, "watchdog.max_rescues", num, "0 or more", remedy)
        for name in self.ignore:
            known, remedy = ", ".join(SIGNS), "see docs/watchdog.md"
            require(name in SIGNS, "watchdog.ignore", name, known, remedy)

    @property
    def is_on(self) -> bool:
        """False where nobody looks."""
        return self.action != "off"
