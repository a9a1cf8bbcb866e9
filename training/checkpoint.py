"""Checkpoints: a training between two steps, on disk, whole or not at all.

Written under a temporary name, flushed, renamed: a kill -9 at any point leaves the old checkpoints
or the new one beside them. Read with weights_only, so a checkpoint can't run code. It holds both
networks, the average, both optimisers, cur_nimg, the configuration and the data's fingerprint.
There is no random state in it and no data order, as both follow from the seed and cur_nimg
(`training.randomness`, `training.data.Batches`).
"""

import io
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.bundle import sync_folder, write_synced
from training.config import TrainingConfig, flag, flatten, to_builtins
from training.constraints import CONSTRAINTS
from training.corruption import Corruption
from training.errors import CheckpointError, ConfigError
from training.schedules import Schedule
from training.state import State
from training.terms import Term

FORMAT = 2
NUM_KEPT = 2
_NAME = re.compile(r"checkpoint-([0-9]{10})\.pt")
_TEMPORARY = ".checkpoint.tmp"


@dataclass(frozen=True)
class Checkpoint:
    """A file that was read."""

    path: Path
    content: dict[str, Any]

    @property
    def cur_nimg(self) -> int:
        """Images shown before it was saved."""
        return int(self.content["cur_nimg"])


class Checkpoints:
    """A folder of them, the newest NUM_KEPT."""

    def __init__(self, folder: Path) -> None:
        """folder: made at the first save."""
        self.folder = folder

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def save(
        self, state: State, config: TrainingConfig, fingerprint: str, pin_nimg: int | None = None
    ) -> Path:
        """Writes one and drops the oldest.

        Args:
            state: what to save.
            config: of the training.
            fingerprint: of its data.
            pin_nimg: keep the newest from before this many images too.

        Raises:
            OSError: it could not be written, for a full disk, say; the old ones are untouched.
        """
        buffer = io.BytesIO()
        torch.save(_content(state, config, fingerprint), buffer)
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / _TEMPORARY
        try:
            write_synced(temporary, buffer.getvalue())
            path = temporary.rename(self.folder / f"checkpoint-{state.cur_nimg:010d}.pt")
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(self.folder)
        pinned = self.before(pin_nimg) if pin_nimg is not None else None
        for old in self.paths()[:-NUM_KEPT]:
            if old != pinned:
                old.unlink()
        return path

    def before(self, cur_nimg: int) -> Path | None:
        """The newest from before that many images; None where all are later."""
        earlier = [path for path in self.paths() if _cur_nimg(path) < cur_nimg]
        return earlier[-1] if earlier else None

    def drop_after(self, path: Path) -> None:
        """Deletes all that are newer."""
        for other in self.paths():
            if other.name > path.name:
                other.unlink()
        sync_folder(self.folder)

    def latest(self) -> Checkpoint:
        """Reads the newest.

        Raises:
            CheckpointError: there is none, or it can't be read.
        """
        paths = self.paths()
        if not paths:
            raise CheckpointError(
                f"resume: {self.folder} holds no checkpoint; the run ended before its first tick, "
                "start it again without --resume"
            )
        return read(paths[-1])


def read(path: Path) -> Checkpoint:
    """Reads one file.

    Raises:
        CheckpointError: it is damaged, or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
        ValueError,
        LookupError,
    ) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{path} can't be read: {first}"
        raise CheckpointError(f"{message}; delete it to resume from the one before") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path} is of format {found!r}, this release reads {FORMAT}; "
            "resume it with the release that wrote it"
        )
    return Checkpoint(path, content)


def restore(checkpoint: Checkpoint, state: State, config: TrainingConfig, fingerprint: str) -> None:
    """Puts a freshly made state where the checkpoint was.

    Raises:
        CheckpointError: the networks or the data are not those of the run; both are named.
    """
    check(checkpoint, config, fingerprint)
    content = checkpoint.content
    state.G.network.load_state_dict(content["G"])
    state.D.network.load_state_dict(content["D"])
    state.G_ema.load_state_dict(content["G_ema"])
    state.G.load_state_dict(content["optim_G"])
    state.D.load_state_dict(content["optim_D"])
    state.augment_p.copy_(content["augment_p"])
    if state.slow:  # without any in the file, lookahead begins here
        slow = content["slow"] or [each.detach() for each in state.parameters()]
        torch._foreach_copy_(state.slow, slow)
    state.history[:] = content.get("history", [])  # a release before the watchdog wrote none
    state.changes[:] = content.get("changes", [])
    state.changes += changes(checkpoint, config)
    state.cur_nimg = checkpoint.cur_nimg


def changes(checkpoint: Checkpoint, config: TrainingConfig) -> list[str]:
    """What a training that goes on from there does differently, a line for each option."""
    old, new = flatten(checkpoint.content["config"]), flatten(to_builtins(config))
    return [
        f"from {checkpoint.cur_nimg / 1000:.3f} kimg: {name} {_told(name, old.get(name))} -> "
        f"{_told(name, new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in _PLACES
    ]


def _cur_nimg(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _content(state: State, config: TrainingConfig, fingerprint: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "cur_nimg": state.cur_nimg,
        "config": to_builtins(config),
        "fingerprint": fingerprint,
        "G": state.G.network.state_dict(),
        "D": state.D.network.state_dict(),
        "G_ema": state.G_ema.state_dict(),
        "optim_G": state.G.state_dict(),
        "optim_D": state.D.state_dict(),
        "slow": state.slow,
        "augment_p": state.augment_p,
        "history": state.history,
        "changes": state.changes,
    }


def check(checkpoint: Checkpoint, config: TrainingConfig, fingerprint: str | None) -> None:
    """What a resumed run must share with the one that was saved.

    fingerprint: of the data; None where it isn't known.

    Raises:
        CheckpointError: it doesn't; what differs is named.
    """
    old, new = flatten(checkpoint.content["config"]), flatten(to_builtins(config))
    names = sorted(old.keys() | new.keys(), key=lambda name: (name != "network.family", name))
    for name in names:
        must_match = name.startswith("network.") or name in _SHAPE
        if must_match and old.get(name) != new.get(name):
            option = "network" if name == "network.family" else name
            raise CheckpointError(
                f"{name} is {new.get(name)!r}, {checkpoint.path} was trained with "
                f"{old.get(name)!r}; leave {flag(option)} out to resume, or start a "
                "new run without --resume"
            )
    _check_growth(checkpoint, config)
    was, now = _installed(checkpoint.content["config"]), _installed(to_builtins(config))
    if was != now:
        raise CheckpointError(
            f"regularizers that are part of D's weights: {now or 'none'}, {checkpoint.path} was "
            f"trained with {was or 'none'}; leave --regularizers out to resume"
        )
    if fingerprint is not None and checkpoint.content["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"the images or their weights are not those of {checkpoint.path}: the fingerprint is "
            f"{fingerprint[:16]}, was {checkpoint.content['fingerprint'][:16]}; "
            "restore the data and --data.weights, or start a new run without --resume"
        )


def _check_growth(checkpoint: Checkpoint, config: TrainingConfig) -> None:
    """A pair that grows does so in a share of the training: another length is another pair."""
    old, new = checkpoint.content["config"]["total_kimg"], config.total_kimg
    share = config.network.grows_until
    cur_kimg = checkpoint.cur_nimg / 1000
    if not share or old == new or cur_kimg >= share * max(old, new):
        return
    remedy = "leave --total-kimg out to resume, and lengthen it once the pair has grown"
    if cur_kimg >= share * old:
        remedy = f"set --total-kimg to {cur_kimg / share:g} at most, with which it stays grown"
    raise CheckpointError(
        f"total_kimg is {new:g}, {checkpoint.path} was trained with {old:g}, of which "
        f"{config.network.name} grows for {share * old:g} kimg: from {cur_kimg:g} kimg on it would "
        f"be smaller, or grow at another pace; {remedy}, or start a new run without --resume"
    )


_PLACES = ("data.path", "data.weights")  # what is there is in the data's fingerprint

_SHAPE = (
    "data.dataset",
    "data.resolution",
    "data.channels",
    "data.conditional",
    "frozen_D",
    "optim_D.method",
    "optim_G.method",
)


_WRITTEN = {"regularizers": Term, "schedules": Schedule, "corruption": Corruption}


def _told(name: str, value: Any) -> str:
    """An option's value as on the command line."""
    kind = _WRITTEN.get(name)
    if kind is not None:
        try:
            value = [str(kind(**each)) for each in value]
        except (ConfigError, TypeError):  # another release took it
            value = [str(each) for each in value]
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return str(value)


def _installed(config: dict[str, Any]) -> list[str]:
    """Constraints that are part of D's weights."""
    names = [term["name"] for term in config["regularizers"]]
    return [name for name in names if name in CONSTRAINTS and CONSTRAINTS[name].install]
