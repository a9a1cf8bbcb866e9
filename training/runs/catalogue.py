"""Reads the folders of runs: their options, figures, curves and state, without torch's files."""

import contextlib
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from models.bundle import MANIFEST, Bundle
from models.bundle.manifest import Manifest
from models.errors import ModelError
from training.cli.command import CONFIG
from training.config.training import flatten
from training.engine.checkpoint import Checkpoints, cur_nimg_of
from training.errors import CheckpointError, ConfigError
from training.evaluation.looks import HEADLINE
from training.finite_json import restored
from training.runs.folders import ENDED, WATCHDOG, is_claimed
from training.runs.quality import PREFIX, Look, best_look

GONE = ".deleted-"
"""Begins the name of a run that is being deleted: it is no run any more."""

_NUMBER = re.compile(r"[0-9]+")
_RUN = re.compile(r"[0-9]{5,}-.+")

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run on disk."""

    folder: Path

    @cached_property
    def record(self) -> Record:
        """The content of config.json; empty where it can't be read."""
        try:
            found = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def options(self) -> Record:
        """The options of the training, flat, named as on the command line."""
        training = self.record.get("training")
        return flatten(training) if isinstance(training, dict) else {}

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl; half lines of killed processes are left out."""
        found = []
        with contextlib.suppress(OSError):
            for line in _text(self.folder / "metrics.jsonl").splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        lines = [restored(line) for line in found if isinstance(line, dict)]
        return [line for line in lines if _is_place(line.get(_AT))]

    @cached_property
    def watchdog(self) -> Record:
        """The content of watchdog.json; empty where there is none, or none that can be read."""
        try:
            found = json.loads(_text(self.folder / WATCHDOG))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def looks(self) -> list[Look]:
        """The looks at the images, from the metrics."""
        return [
            {"cur_nimg": line["cur_nimg"]}
            | {
                name.removeprefix(PREFIX): value
                for name, value in line.items()
                if name.startswith(PREFIX)
            }
            for line in self.metrics
            if any(name.startswith(PREFIX) for name in line)
        ]

    @cached_property
    def manifest(self) -> Manifest | None:
        """The manifest of the exported model; None where there is none."""
        if not (self.folder / "bundle" / MANIFEST).is_file():
            return None
        try:
            return Bundle.open(self.folder / "bundle").manifest
        except ModelError:
            return None

    @property
    def checkpoints(self) -> list[int]:
        """Images shown at each checkpoint, ascending."""
        return [cur_nimg_of(path) for path in Checkpoints(self.folder / "checkpoints").paths()]

    @property
    def cur_kimg(self) -> float:
        """Thousands of images shown, by the newest checkpoint or line of metrics."""
        lines = [line["cur_nimg"] for line in self.metrics[-1:]]
        return max([*self.checkpoints[-1:], *lines], default=0) / 1000

    @property
    def is_running(self) -> bool:
        """True while a process trains it."""
        return is_claimed(self.folder)

    @property
    def outcome(self) -> str:
        """How it ended, or that it has not."""
        with contextlib.suppress(OSError):
            return (self.folder / ENDED).read_text(encoding="utf-8").strip()
        if self.is_running:
            return "running"
        return "can be resumed" if self.checkpoints else "no checkpoint"

    @property
    def has_ended(self) -> bool:
        """True where it is marked as ended, well or not."""
        return (self.folder / ENDED).exists()

    @property
    def is_published(self) -> bool:
        """True where it ended with a published model."""
        return self.outcome.startswith("Published ")

    @property
    def figures(self) -> dict[str, float]:
        """The exported model's figures; before there are any, those of the last look."""
        if self.manifest is not None and self.manifest.metrics:
            return {metric.name: metric.value for metric in self.manifest.metrics}
        last = self.looks[-1] if self.looks else {}
        return {name: value for name, value in last.items() if "." not in name and name != _AT}

    def checkpoint(self, which: str) -> int:
        """Images shown at the checkpoint that is named: last, best, or a number of kimg.

        Raises:
            CheckpointError: there is no such checkpoint; the message names those that there are.
        """
        numbers = self.checkpoints
        there = ", ".join(f"{number / 1000:g}" for number in numbers) or "none"
        if which == "last" and numbers:
            return numbers[-1]
        if which == "best":
            best = best_look(self.looks, HEADLINE, among=numbers)
            if best is not None:
                return round(best[_AT])
        with contextlib.suppress(ValueError):
            near = [n for n in numbers if abs(n / 1000 - float(which)) < _NEAR_KIMG]
            if len(near) == 1:
                return near[0]
        raise CheckpointError(
            f"checkpoint is {which!r}, allowed: last, best (where it was looked at the images), or "
            f"one of these kimg: {there}; {self.folder} holds no other"
        )


_AT = "cur_nimg"
_TOO_LARGE = int(sys.float_info.max)
_NEAR_KIMG = 0.05


def _text(path: Path) -> str:
    """A file that a killed process may have left half written, in bytes that are no text."""
    return path.read_text(encoding="utf-8", errors="replace")


def is_number(value: object) -> TypeGuard[float]:
    """True for a float, NaN and infinity as well, and for an int that fits into one."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < _TOO_LARGE
    return isinstance(value, float)


def _is_place(value: object) -> bool:
    return is_number(value) and math.isfinite(value)


def runs_in(folder: Path) -> list[Run]:
    """The runs in a folder, by number."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _RUN.fullmatch(path.name) and path.is_dir()]
    return [Run(path) for path in sorted(found, key=lambda path: _order(path.name))]


def leftovers(folder: Path) -> list[Path]:
    """What is left in a folder of runs whose deletion was interrupted: whole or in part."""
    return sorted(folder.glob(f"{GONE}*")) if folder.is_dir() else []


def find_run(word: str, folder: Path) -> Run:
    """The run that a word names: its folder, its name in `folder`, or its number there.

    Raises:
        ConfigError: there is no such run.
    """
    for path in (Path(word), folder / word):
        if (run := Run(path)).options:  # other programs have a config.json, too
            return run
    if _NUMBER.fullmatch(word):
        found = [run for run in runs_in(folder) if _order(run.folder.name) == int(word)]
        if len(found) == 1:
            return found[0]
    names = ", ".join(run.folder.name for run in runs_in(folder)[-5:]) or "none"
    raise ConfigError(
        f"RUN is {word!r}, allowed: a run's folder, or its name or number in {folder} (the newest "
        f"there: {names}); set --runs"
    )


def run_of_model(manifest: Manifest, bundle: Path, runs: Path) -> Run | None:
    """The run that a model came from: the one around its bundle, or one in `runs`; None for none.

    A run is the model's where it has a bundle of the same time of export, or was trained on the
    same images by the same recipe.
    """
    near = Run(bundle.absolute().parent)
    found = [near] if near.options else []
    found += [run for run in reversed(runs_in(runs)) if run.manifest is not None]
    exact = [run for run in found if run.manifest and run.manifest.created == manifest.created]
    alike = [run for run in found if run.manifest and run.manifest.dataset == manifest.dataset]
    return next(iter([*exact, *alike, *([near] if near.options else [])]), None)


def labels_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run, unlike the others': of its path the last parts that tell it apart.

    That is its folder's name, unless runs of several folders have the same.
    """
    paths = [run.folder.resolve().parts for run in runs]
    found = []
    for parts in paths:
        num = 1
        while num < len(parts) and sum(other[-num:] == parts[-num:] for other in paths) > 1:
            num += 1
        found.append(str(Path(*parts[-num:])))
    # The same folder twice has nothing that tells it apart but its place in the list.
    return [
        f"{name} ({found[:index].count(name) + 1})" if name in found[:index] else name
        for index, name in enumerate(found)
    ]


def same_value(runs: Sequence[Run], name: str) -> bool:
    """True where an option has the same value in all runs."""
    values = [run.options.get(name) for run in runs]
    return all(value == values[0] for value in values)


def _order(name: str) -> int:
    return int(name.partition("-")[0])
