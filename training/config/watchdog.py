"""The watchdog's options: what it does about a failure, how often, and what it ignores."""

from dataclasses import dataclass
from typing import Literal

from training.errors import require

FAILURES = (
    "divergence",
    "vanishing",
    "saturation",
    "indifference",
    "collapse",
    "oscillation",
    "overfitting",
    "memorisation",
)
"""The failures that the watchdog looks for. `training.watchdog.detectors` has an entry for each:
the names are repeated here since that module imports the configuration."""

ADVICE = ("times-ten", "measured")
ACTIONS = ("off", "warn", "stop", "rescue")


@dataclass(frozen=True, kw_only=True)
class WatchdogConfig:
    """The options of the watchdog."""

    action: Literal["off", "warn", "stop", "rescue"] = "warn"
    """On a known failure: off: don't look for failures; warn: report it; stop: end the training;
    rescue: go back to the last checkpoint before it and change one option (docs/watchdog.md)."""
    advice: Literal["times-ten", "measured"] = "times-ten"
    """How far a rescue raises the weights of gradient penalties: times ten, or to the weight that
    damps the game critically at the checkpoint it goes back to (docs/stability.md)."""
    max_rescues: int = 3
    """How often a training is rescued before it is stopped."""
    ignore: tuple[str, ...] = ()
    """Failures not to look for: divergence, vanishing, saturation, indifference, collapse,
    oscillation, overfitting, memorisation."""

    def __post_init__(self) -> None:
        """Raises ConfigError for an unknown action or failure, or a negative number."""
        actions = ", ".join(ACTIONS)
        require(self.action in ACTIONS, "watchdog.action", self.action, actions, "choose one")
        allowed = ", ".join(ADVICE)
        require(self.advice in ADVICE, "watchdog.advice", self.advice, allowed, "choose one")
        num, remedy = self.max_rescues, "0 stops at the first alarm"
        require(num >= 0, "watchdog.max_rescues", num, "0 or more", remedy)
        for name in self.ignore:
            known, remedy = ", ".join(FAILURES), "docs/watchdog.md explains them"
            require(name in FAILURES, "watchdog.ignore", name, known, remedy)

    @property
    def is_on(self) -> bool:
        """True unless the action is off."""
        return self.action != "off"
