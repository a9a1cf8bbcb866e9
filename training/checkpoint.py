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
from training.config import TrainingConfig, flatten, to_builtins
from training.constraints import CONSTRAINTS
from training.errors import CheckpointError
from training.state import State

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
    _check(checkpoint, config, fingerprint)
    content = checkpoint.content
    state.G.network.load_state_dict(content["G"])
    state.D.network.load_state_dict(content["D"])
    state.G_ema.load_state_dict(content["G_ema"])
    state.G.load_state_dict(content["optim_G"])
    state.D.load_state_dict(content["optim_D"])
    state.augment_p.copy_(content["augment_p"])
    if state.slow:
        torch._foreach_copy_(state.slow, content["slow"])
    state.history[:] = content.get("history", [])  # a release before the watchdog wrote none
    state.cur_nimg = checkpoint.cur_nimg


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
    }


def _check(checkpoint: Checkpoint, config: TrainingConfig, fingerprint: str) -> None:
    """What a resumed run must share with the one that was saved."""
    old, new = flatten(checkpoint.content["config"]), flatten(to_builtins(config))
    names = sorted(old.keys() | new.keys(), key=lambda name: (name != "network.family", name))
    for name in names:
        must_match = name.startswith("network.") or name in _SHAPE
        if must_match and old.get(name) != new.get(name):
            raise CheckpointError(
                f"{name} is {new.get(name)!r}, {checkpoint.path} was trained with "
                f"{old.get(name)!r}; leave --{name.replace('_', '-')} out to resume, or start a "
                "new run without --resume"
            )
    was, now = _installed(checkpoint.content["config"]), _installed(to_builtins(config))
    if was != now:
        raise CheckpointError(
            f"regularizers that are part of D's weights: {now or 'none'}, {checkpoint.path} was "
            f"trained with {was or 'none'}; leave --regularizers out to resume"
        )
    if checkpoint.content["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"the images or their weights are not those of {checkpoint.path}: the fingerprint is "
            f"{fingerprint[:16]}, was {checkpoint.content['fingerprint'][:16]}; "
            "restore the data and --data.weights, or start a new run without --resume"
        )


_SHAPE = (
    "data.dataset",
    "data.resolution",
    "data.channels",
    "data.conditional",
    "frozen_D",
    "optim_D.method",
    "optim_G.method",
)


def _installed(config: dict[str, Any]) -> list[str]:
    """Constraints that are part of D's weights."""
    names = [term["name"] for term in config["regularizers"]]
    return [name for name in names if name in CONSTRAINTS and CONSTRAINTS[name].install]
