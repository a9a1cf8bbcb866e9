"""Checkpoints: a training between two steps, on disk, whole or not at all.

Written under a temporary name, flushed, renamed: a kill -9 at any point leaves the old checkpoints
or the new one beside them. Read with weights_only, so a checkpoint can't run code. It holds both
networks, the average, both optimisers, cur_nimg, the configuration and the data's fingerprint.
There is no random state in it and no data order, as both follow from the seed and cur_nimg
(`training.randomness`, `training.data.Batches`).
"""

import errno
import io
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.bundle import sync_folder, write_synced
from models.networks import Growing
from training.config.training import TrainingConfig, completed, flag, flatten, to_builtins
from training.engine.state import State
from training.errors import CheckpointError, ConfigError
from training.game.regularizers import Term
from training.optim.constraints import CONSTRAINTS
from training.optim.schedules import Schedule
from training.transforms.corruption import Corruption

FORMAT = 2
NUM_KEPT = 2
_NAME = re.compile(r"checkpoint-([0-9]{10})\.pt")
_TEMPORARY = ".checkpoint.tmp"
_NEEDED = {"augment_p", "config", "cur_nimg", "D", "fingerprint", "G", "G_ema", "optim_D",
           "optim_G"}  # fmt: skip
"""What every release of this format has written, and a training can't go on without."""


class UnreadableError(CheckpointError):
    """A file that can't be read as a checkpoint, with the reason apart from the remedy."""

    def __init__(self, reason: str, remedy: str = "make it readable, or name another file") -> None:
        """reason: what is wrong, beginning with the path. remedy: what to do about it."""
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    path: Path
    content: dict[str, Any]

    @property
    def cur_nimg(self) -> int:
        """Images shown before it was saved."""
        return int(self.content["cur_nimg"])


class Checkpoints:
    """The checkpoints in a run's folder, of which the newest NUM_KEPT are always kept."""

    def __init__(self, folder: Path) -> None:
        """folder: made at the first save."""
        self.folder = folder

    def paths(self) -> list[Path]:
        """Returns the complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def save(
        self,
        state: State,
        config: TrainingConfig,
        fingerprint: str,
        pin_nimg: int | None = None,
        keep: Callable[[list[int]], Collection[int]] = lambda _numbers: (),
    ) -> Path:
        """Writes a checkpoint and deletes the oldest.

        Args:
            state: what to save.
            config: of the training.
            fingerprint: of its data.
            pin_nimg: the newest checkpoint from before this many images is kept as well.
            keep: from the images shown at each checkpoint to those that are kept as well.

        Raises:
            OSError: it could not be written, for a full disk, say; the old ones are untouched.
        """
        buffer = io.BytesIO()
        # Serialised in memory first: a failure of that leaves no file behind.
        torch.save(_content(state, config, fingerprint), buffer)
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / _TEMPORARY
        held = self._held(state.cur_nimg, pin_nimg, keep)
        try:
            self._write(temporary, buffer.getvalue(), held)
            path = temporary.rename(self.folder / f"checkpoint-{state.cur_nimg:010d}.pt")
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(self.folder)
        for old in self.paths()[:-NUM_KEPT]:
            if cur_nimg_of(old) not in held:
                old.unlink()
        return path

    def _held(
        self, cur_nimg: int, pin_nimg: int | None, keep: Callable[[list[int]], Collection[int]]
    ) -> set[int]:
        """The checkpoints that stay whatever their age, as soon as there is one at cur_nimg."""
        numbers = sorted({cur_nimg, *map(cur_nimg_of, self.paths())})
        pinned = [] if pin_nimg is None else [n for n in numbers if n < pin_nimg][-1:]
        return {*pinned, *keep(numbers)}

    def _write(self, path: Path, content: bytes, held: Collection[int]) -> None:
        """Writes a file; where the disk is full, once more without the last but one checkpoint.

        Of two old checkpoints the older one is no more needed as soon as the new one is there.
        """
        try:
            write_synced(path, content)
        except OSError as error:
            spare = [old for old in self.paths()[:-1] if cur_nimg_of(old) not in held]
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not spare:
                raise
            path.unlink(missing_ok=True)
            spare[-1].unlink()
            write_synced(path, content)

    def before(self, cur_nimg: int) -> Path | None:
        """Returns the newest from before that many images; None where all are later."""
        earlier = [path for path in self.paths() if cur_nimg_of(path) < cur_nimg]
        return earlier[-1] if earlier else None

    def at(self, cur_nimg: int) -> Path:
        """Returns the checkpoint of so many images shown.

        Raises:
            CheckpointError: there is none; the message names those that there are.
        """
        paths = {cur_nimg_of(path): path for path in self.paths()}
        if cur_nimg not in paths:
            there = ", ".join(f"{number / 1000:g}" for number in paths) or "none"
            raise CheckpointError(
                f"{self.folder} holds no checkpoint at {cur_nimg / 1000:g} kimg, only at {there}; "
                "name one of these"
            )
        return paths[cur_nimg]

    def drop_after(self, path: Path) -> None:
        """Deletes the checkpoints that are newer than this one."""
        for other in self.paths():
            if other.name > path.name:
                other.unlink()
        sync_folder(self.folder)

    def latest(self) -> Checkpoint:
        """Reads the newest checkpoint.

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
    """Reads a checkpoint; nothing in it is executed.

    Raises:
        UnreadableError: it is damaged, no checkpoint, or of another format. To delete the file is
            advised only where it has the name of a run's checkpoint.
    """
    is_own = _NAME.fullmatch(path.name) is not None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UnreadableError(f"{path} can't be read: {error.strerror or error}") from error
    except Exception as error:  # of torch, zip or the unpickler, whose words are for programmers
        reason = f"{path} is damaged, or no checkpoint of a training"
        remedy = "delete it to resume from the one before" if is_own else "name another file"
        raise UnreadableError(reason, remedy) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found is None:
        raise UnreadableError(f"{path} is no checkpoint of a training", "name another file")
    if found != FORMAT:
        raise UnreadableError(
            f"{path} is of format {found!r}, this release reads {FORMAT}",
            "resume it with the release that wrote it",
        )
    if missing := sorted(_NEEDED - content.keys()):
        raise UnreadableError(f"{path} has no {', '.join(missing)}", "name another file")
    return Checkpoint(path, content)


def restore(checkpoint: Checkpoint, state: State, config: TrainingConfig, fingerprint: str) -> None:
    """Loads a checkpoint into a newly made state.

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
    for name in ("augment_signs", "path_length"):  # older releases had neither
        if name in content:
            getattr(state, name).copy_(content[name])
    if state.slow:  # without any in the file, lookahead begins here
        slow = content["slow"] or [each.detach() for each in state.parameters()]
        torch._foreach_copy_(state.slow, slow)
    state.untrained = dict(content.get("untrained", {}))
    state.history[:] = content.get("history", [])  # a release before the watchdog wrote none
    state.looks[:] = content.get("looks", [])
    state.changes[:] = content.get("changes", [])
    state.changes += changes(checkpoint, config)
    state.cur_nimg = checkpoint.cur_nimg


def load_average(checkpoint: Checkpoint, state: State, config: TrainingConfig) -> None:
    """Loads the averaged generator alone, to export it, and which options were changed before.

    The state can't be trained on then.
    """
    state.changes[:] = checkpoint.content.get("changes", [])
    state.G_ema.load_state_dict(checkpoint.content["G_ema"])
    if isinstance(state.G_ema, Growing):
        state.G_ema.set_progress(min(checkpoint.cur_nimg / config.total_nimg, 1.0))


def changes(checkpoint: Checkpoint, config: TrainingConfig) -> list[str]:
    """Lists the options in which a resumed training differs, a line each."""
    old = flatten(completed(checkpoint.content["config"]))
    new = flatten(to_builtins(config))
    return [
        f"from {checkpoint.cur_nimg / 1000:.3f} kimg: {name} {_told(name, old.get(name))} -> "
        f"{_told(name, new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in _PLACES
    ]


def cur_nimg_of(path: Path) -> int:
    """Images shown before a checkpoint was saved, from its name."""
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
        "augment_signs": state.augment_signs,
        "path_length": state.path_length,
        "untrained": state.untrained,
        "history": state.history,
        "looks": state.looks,
        "changes": state.changes,
    }


def check(checkpoint: Checkpoint, config: TrainingConfig, fingerprint: str | None) -> None:
    """Checks that a configuration can go on from a checkpoint.

    fingerprint: of the data; None where it isn't known.

    Raises:
        CheckpointError: networks, data or optimisers differ; the message names which.
    """
    old = flatten(completed(checkpoint.content["config"]))
    new = flatten(to_builtins(config))
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
    """Refuses another length while a pair grows: growth is a share of the length."""
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


_PLACES = ("data.path", "data.weights", "data.labels")  # what is there is in the data's fingerprint

_SHAPE = (
    "data.dataset",
    "data.resolution",
    "data.channels",
    "data.conditional",
    "frozen_D",
    "packing",
    "optim_D.method",
    "optim_G.method",
)


_WRITTEN = {"regularizers": Term, "schedules": Schedule, "corruption": Corruption}


def _told(name: str, value: Any) -> str:
    """Writes an option's value as on the command line."""
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
    """Returns the names of constraints that are part of D's weights."""
    names = [term["name"] for term in config["regularizers"]]
    return [name for name in names if name in CONSTRAINTS and CONSTRAINTS[name].install]
