"""What the processes of one server share: made by the first one, before there are others."""

from dataclasses import dataclass

from serving.notice import Notice
from serving.observability.shared_values import SharedMetrics
from serving.process.key_watch import KeyFile
from serving.process.turns import make_bells
from serving.settings import Settings
from serving.shared_file import SharedFile


@dataclass(frozen=True)
class Shared:
    """Memory and notices; nothing of it lies in a folder."""

    metrics: SharedMetrics
    withdrawn: SharedFile
    """Which models are out of service (`serving.inference.withdrawn`)."""
    rates: SharedFile
    """What each API key may still ask for (`serving.http.rate_limit`)."""
    started: SharedFile
    """Which HTTP processes have had a model (`serving.process.readiness`)."""
    connections: SharedFile
    """How many each HTTP process has (`serving.process.turns`)."""
    rows: SharedFile
    """Rows that each HTTP process has admitted and not yet made."""
    bells: list[int]
    """Descriptors by which HTTP processes wake each other."""
    draining: Notice
    """Given when the server was told to stop."""
    keys: KeyFile | None
    """The API keys at the start; None where none is needed."""

    @classmethod
    def make(cls, settings: Settings, num_workers: int, keys: KeyFile | None = None) -> "Shared":
        """What a server needs; keys: as they were read.

        Raises:
            OSError: there is no memory for it.
        """
        return cls(
            metrics=SharedMetrics(settings.api_processes, num_workers),
            withdrawn=SharedFile("withdrawn"),
            rates=SharedFile("rates"),
            started=SharedFile("started"),
            connections=SharedFile("connections"),
            rows=SharedFile("rows"),
            bells=make_bells(settings.api_processes),
            draining=Notice(),
            keys=keys,
        )
