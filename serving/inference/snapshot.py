"""The models of a worker at one moment: what is served of each, on trial, wrong, or being loaded.

One look at the repository makes a new snapshot from the one before. It is never changed: other
threads see it as a whole, or the one before.
"""

import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from serving.inference.frames import Announce, Candidacy, Loaded
from serving.observability import metrics
from serving.observability.loops import quietly

logger = logging.getLogger(__name__)

LOADING = "it is still being loaded"


class StorageAwayError(Exception):
    """The repository can't be looked at; what is loaded stays."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a model."""

    public: str
    text: str
    since: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class Model:
    """One model, as the last look at the repository left it."""

    current: Loaded | None = None
    seen: tuple[int, ...] = ()
    """Of the manifest that `current` was read from."""
    candidacy: Candidacy | None = None
    fault: Fault | None = None
    loading: bool = False
    """True while a load that somebody waits for is under way."""

    @property
    def troubled(self) -> bool:
        """True where it isn't served as it should be, or not yet."""
        return self.loading or self.fault is not None


@dataclass(frozen=True)
class Snapshot:
    """All models at one moment."""

    models: dict[str, Model] = field(default_factory=dict)
    starting: bool = True

    def announce(self, device: str, lanes: int) -> Announce:
        """What the HTTP processes are told."""
        models = self.models
        return Announce(
            current=[model.current for model in models.values() if model.current],
            candidates=[
                model.candidacy for model in models.values() if model.current and model.candidacy
            ],
            device=device,
            lanes=lanes,
            faults={n: model.fault.public for n, model in models.items() if model.fault},
            starting=self.starting,
        )


def identity_of(root: Path) -> tuple[int, int]:
    """Device and inode of the repository's folder.

    Raises:
        StorageAwayError: it can't be listed.
    """
    try:
        os.scandir(root).close()
        found = root.stat()
    except OSError as error:
        raise StorageAwayError(f"{root}: {error.strerror}; what is loaded is kept") from error
    return found.st_dev, found.st_ino


def tell_since(name: str, before: Fault | None, after: Fault | None) -> None:
    """Shows by a metric since when a model can't be served, where that has changed."""
    if (before is None) == (after is None):
        return
    if after is None:
        logger.info("model %s: it can be served again", name)
    with quietly():
        metrics.REFUSED_SINCE.labels(name).set(math.inf if after is None else after.since)


def say_trial(name: str, found: Candidacy | None, text: str) -> None:
    """Logs what became of a trial; text: why it is refused, where it is."""
    if found is None:
        logger.info("no version of %s is on trial any more", name)
    elif found.refused:
        logger.error("the candidate of %s gets no seeds: %s", name, text)
    else:
        share = found.share_percent
        logger.info("version %s of %s makes %g%% of the seeds", found.version, name, share)
