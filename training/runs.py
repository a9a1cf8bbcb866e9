"""Folders of runs: a new one, the one to go on with, and who trains it.

`--resume auto` is for jobs that are started again until their work is done. Kubernetes starts a pod
in an evicted one's place with the same arguments, which can't name the run that the first one
began. The run to go on with is the newest under --runs that has the same options and a checkpoint,
hasn't ended, and that no other process is training.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from training.checkpoint import Checkpoints, restore
from training.command import AUTO, CONFIG, Command, resumed
from training.distributed import World
from training.errors import CheckpointError, require
from training.state import State

_RUN = re.compile(r"([0-9]{5,})-.*")
_ENDED = "ended.txt"
_LOCK = ".lock"


def new_run_folder(runs: Path, recipe: str) -> Path:
    """Makes RUNS/NNNNN-RECIPE, one number above the highest there."""
    runs.mkdir(parents=True, exist_ok=True)
    while True:
        numbers = [int(match[1]) for path in runs.iterdir() if (match := _RUN.match(path.name))]
        folder = runs / f"{max(numbers, default=-1) + 1:05d}-{recipe}"
        try:
            folder.mkdir()
        except FileExistsError:  # another run was started at the same moment
            continue
        return folder


def check_writable(field: str, folder: Path) -> None:
    """Raises ConfigError where a folder, or the one it would be made in, can't be written to.

    Hours later it would be too late to hear of it.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    remedy = f"{existing} can't be written to by user {os.geteuid()}; mount it writable, or name "
    allowed = "a folder that can be written to"
    require(writable, field, str(folder), allowed, f"{remedy}another with --{field}")


def open_run(
    command: Command, state: State, fingerprint: str, stream: TextIO, world: World
) -> tuple[Path, TextIO | None]:
    """The run that was asked for, its state restored where it isn't new.

    Args:
        command: what was asked for.
        state: freshly made; put where the run's checkpoint was.
        fingerprint: of the data.
        stream: where to say what was found.
        world: the processes of this training; the leading one chooses.

    Returns:
        The run's folder and, in the leading process, what holds it until it is closed.

    Raises:
        CheckpointError: the run that was named can't be resumed.
    """
    options, lock = command.options, None
    run = options.resume
    if run == AUTO:
        found = continue_unfinished(command, state, fingerprint, stream) if world.leads else None
        folder, lock = found or ("", None)
        shared = world.share(str(folder))
        run = Path(shared) if shared else None
    if run is not None and lock is None:
        restore(Checkpoints(run / "checkpoints").latest(), state, command.config, fingerprint)
        lock = claim(run) if world.leads else None
    if run is None:
        folder = new_run_folder(options.runs, command.config.recipe) if world.leads else ""
        run = Path(world.share(str(folder)))
        lock = claim(run) if world.leads else None
    if world.leads:
        (run / _ENDED).unlink(missing_ok=True)
    return run, lock


def as_rescued(command: Command) -> Command:
    """The command as the watchdog has changed it, where `--resume auto` goes on with such a run."""
    if command.options.resume != AUTO:
        return command
    wanted = json.loads(command.to_json())
    for folder, record in _open_runs(command):
        if {**record, **_as_asked(record)} == wanted:
            try:
                claim(folder).close()
            except CheckpointError:  # another process goes on with it
                continue
            rescued = resumed(folder, None)
            return replace(
                command, config=rescued.config, rescues=rescued.rescues, asked=rescued.asked
            )
    return command


def claim(folder: Path) -> TextIO:
    """Takes a run for this process, until the file is closed.

    Raises:
        CheckpointError: another process is training it.
    """
    lock = (folder / _LOCK).open("w", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise CheckpointError(
            f"resume is {str(folder)!r}, a run that another process is training; "
            "wait for its end, or start a new run without --resume"
        ) from None
    return lock


def mark_ended(folder: Path, outcome: str) -> None:
    """No restart goes on with this run by itself; naming it with --resume still does."""
    (folder / _ENDED).write_text(outcome + "\n", encoding="utf-8")


def continue_unfinished(
    command: Command, state: State, fingerprint: str, stream: TextIO
) -> tuple[Path, TextIO] | None:
    """Restores the state of the run to go on with; None where there is none.

    A run whose checkpoint or data can't be used any more is said to have ended: the next restart
    would stumble over it again. Arguments as in `open_run`.

    Returns:
        The run's folder, and what holds it for this process.
    """
    for folder in _unfinished(command):
        try:
            lock = claim(folder)
        except CheckpointError:
            continue
        try:
            checkpoint = Checkpoints(folder / "checkpoints").latest()
            restore(checkpoint, state, command.config, fingerprint)
        except CheckpointError as error:
            lock.close()
            mark_ended(folder, f"error: {error}")
            print(f"warning: {folder} can't be continued: {error}", file=stream, flush=True)
        else:
            return folder, lock
    return None


def _unfinished(command: Command) -> Iterator[Path]:
    """Runs with the same options that have a checkpoint and no end, the newest first."""
    wanted = json.loads(command.to_json())
    yield from (folder for folder, record in _open_runs(command) if record == wanted)


def _as_asked(record: dict[str, Any]) -> dict[str, Any]:
    """What config.json held before the first rescue, as far as it was another."""
    began = record.get("asked")
    return {} if began is None else {"training": began, "rescues": [], "asked": None}


def _open_runs(command: Command) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Runs of the recipe with a checkpoint and no end, and their config.json, the newest first."""
    folders = command.options.runs.glob(f"*-{command.config.recipe}")
    numbered = [(int(match[1]), path) for path in folders if (match := _RUN.fullmatch(path.name))]
    for _, folder in sorted(numbered, reverse=True):
        try:
            record = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        ended = (folder / _ENDED).exists()
        if not ended and Checkpoints(folder / "checkpoints").paths():
            yield folder, record
