"""Run folders: making a new one, finding the one to resume, and locking it.

`--resume auto` is for jobs that are restarted until their work is done. Kubernetes replaces an
evicted pod by one with the same arguments, which can't name the run that the first pod began. The
run to resume is the newest under --runs that has the same options and a checkpoint, has not ended,
and is not being trained by another process.
"""

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from training.cli.command import AUTO, CONFIG, RECORDED, Command, resumed
from training.cli.paths import found_again, with_absolute
from training.config.training import completed
from training.data import DataConfig, ImageSet
from training.data.config import EARLIER
from training.data.images_record import as_recorded
from training.engine.checkpoint import Checkpoints, restore
from training.engine.distributed import World
from training.engine.state import State
from training.errors import CheckpointError, require
from training.stdout import Stream

_RUN = re.compile(r"([0-9]{5,})-.*")
WATCHDOG = "watchdog.json"
ENDED = "ended.txt"
LOCK = ".lock"
_CLAIM_S = 0.2  # how long a run must be locked by another process before it counts as trained


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
    """Checks that a folder, or the one that it would be made in, can be written to.

    It is checked before the training, since otherwise the failure would come hours later.

    Raises:
        ConfigError: this user can't write there.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    remedy = f"{existing} can't be written to by user {os.geteuid()}; mount it writable, or name "
    allowed = "a folder that can be written to"
    require(writable, field, str(folder), allowed, f"{remedy}another with --{field}")


def open_run(
    command: Command, state: State, image_set: ImageSet, stream: Stream, world: World
) -> tuple[Path, TextIO | None, ImageSet]:
    """Makes a new run folder, or opens the run that --resume names and restores its state.

    Args:
        command: its options decide which run it is.
        state: freshly made; a resumed run's checkpoint is loaded into it.
        image_set: the data, which must be the run's.
        stream: where warnings are printed.
        world: the processes of this training; the leading one chooses the run.

    Returns:
        The run's folder; in the leading process its lock, held until the file is closed; and the
        data in the run's order.

    Raises:
        CheckpointError: the run that was named can't be resumed.
    """
    options, lock = command.options, None
    run = options.resume
    if run == AUTO:
        # Only one process may choose: two could find different runs.
        found = continue_unfinished(command, state, image_set, stream) if world.leads else None
        folder, lock, image_set = found or ("", None, image_set)
        shared = world.share(str(folder))
        run = Path(shared) if shared else None
    if run is not None and lock is None:
        image_set = as_recorded(image_set, run)
        checkpoint = Checkpoints(run / "checkpoints").latest()
        restore(checkpoint, state, command.config, image_set.fingerprint)
        lock = claim(run) if world.leads else None
    if run is None:
        folder = new_run_folder(options.runs, command.config.recipe) if world.leads else ""
        run = Path(world.share(str(folder)))
        lock = claim(run) if world.leads else None
    if world.leads:
        (run / ENDED).unlink(missing_ok=True)
    return run, lock, image_set


def as_rescued(command: Command) -> Command:
    """The command with the rescues of the run that `--resume auto` is going to resume.

    The arguments of a restarted job are those from before the rescues, and perhaps those of an
    earlier release, to which they meant what `EARLIER` says. The command is returned unchanged
    where no such run exists.
    """
    if command.options.resume != AUTO:
        return command
    wanted = json.loads(command.to_json())
    for folder, record in _open_runs(command):
        began = _named(command, {**record, **_before_rescues(record)})
        if began == _as_known(wanted, began):
            if is_claimed(folder):
                continue
            rescued = resumed(folder, None)
            return replace(
                command,
                config=rescued.config,
                rescues=rescued.rescues,
                original=rescued.original,
            )
    return command


def changed_places(command: Command, folder: Path) -> list[str]:
    """Lines on what a resumed run's record says otherwise than the command.

    They are about where it publishes, and say how to undo it. config.json is replaced afterwards.
    """
    try:
        record = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        was = with_absolute(found_again(record, folder))
    except (OSError, ValueError, LookupError, TypeError):  # a new run has none
        return []
    now = json.loads(command.to_json())
    return [
        f"{name} {was[name]} -> {now[name]}, from now on; --{name} {was[name]} undoes it, what was "
        "published stays"
        for name in ("name", "repository")
        if was.get(name) != now[name]
    ]


def claim(folder: Path) -> TextIO:
    """Locks a run for this process, until the returned file is closed or the process ends.

    Raises:
        CheckpointError: another process is training it.
    """
    lock = (folder / LOCK).open("w", encoding="ascii")
    end = time.monotonic() + _CLAIM_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A reader (`is_claimed`) has it for microseconds; a training for hours.
            if time.monotonic() < end:
                time.sleep(_CLAIM_S / 20)
                continue
            lock.close()
            raise CheckpointError(
                f"resume is {str(folder)!r}, a run that another process is training; "
                "wait until it has ended, or start a new run without --resume"
            ) from None
        return lock


def is_claimed(folder: Path) -> bool:
    """True while a process trains a run. Only reads: the run may be another user's."""
    try:
        with (folder / LOCK).open(encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it was never locked, or may not be looked into
        return False
    return False


def mark_ended(folder: Path, outcome: str) -> None:
    """Records that a run has ended, so that `--resume auto` leaves it alone.

    `--resume FOLDER` still resumes it. On a full disk it is marked without the outcome.
    """
    path = folder / ENDED
    with contextlib.suppress(OSError):
        path.touch()
        path.write_text(outcome + "\n", encoding="utf-8")


def continue_unfinished(
    command: Command, state: State, image_set: ImageSet, stream: Stream
) -> tuple[Path, TextIO, ImageSet] | None:
    """Locks the newest unfinished run with these options and restores its state.

    A run whose checkpoint or data can't be used any more is marked as ended, since every restart
    would fail on it again. The arguments are those of `open_run`.

    Returns:
        The run's folder, its lock, and the data in its order; None where there is no such run.
    """
    for folder in _unfinished(command):
        try:
            lock = claim(folder)
        except CheckpointError:
            continue
        try:
            found = as_recorded(image_set, folder)
            checkpoint = Checkpoints(folder / "checkpoints").latest()
            restore(checkpoint, state, command.config, found.fingerprint)
        except CheckpointError as error:
            lock.close()
            mark_ended(folder, f"error: {error}")
            stream.write(f"warning: {folder} can't be continued: {error}\n")
            stream.flush()
        else:
            return folder, lock, found
    return None


def _unfinished(command: Command) -> Iterator[Path]:
    """Unfinished runs with the same options and a checkpoint, the newest first."""
    wanted = json.loads(command.to_json())
    for folder, record in _open_runs(command):
        known = {**record, "training": completed(record["training"])}
        if _named(command, known) == wanted:
            yield folder


def _named(command: Command, record: dict[str, Any]) -> dict[str, Any]:
    """A run's record with the name that the command has where none was given.

    Earlier releases named the model after the recipe then.
    """
    if command.options.name is None and record.get("name") == command.config.recipe:
        return {**record, "name": command.name}
    return record


def _as_known(wanted: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """The wanted config.json without options of the data that a run's release didn't know.

    Those that were given stay, so that the two differ.
    """
    data, known = dict(wanted["training"]["data"]), record["training"]["data"]
    fields = DataConfig.__dataclass_fields__
    for name, earlier in EARLIER.items():
        if name not in known and data[name] in (fields[name].default, earlier):
            del data[name]
    return {**wanted, "training": {**wanted["training"], "data": data}}


def _before_rescues(record: dict[str, Any]) -> dict[str, Any]:
    """The entries of config.json that rescues changed, as they were before the first one."""
    original = record.get("asked")
    return {} if original is None else {"training": original, "rescues": [], "asked": None}


def _open_runs(command: Command) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Unfinished runs of the recipe with a checkpoint, and their config.json, the newest first."""
    folders = command.options.runs.glob(f"*-{command.config.recipe}")
    wanted = json.loads(command.to_json())
    numbered = [(int(match[1]), path) for path in folders if (match := _RUN.fullmatch(path.name))]
    for _, folder in sorted(numbered, reverse=True):
        try:
            found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            found["training"]["data"].keys()
            # An earlier release didn't write these: it is still the run that was asked for.
            found = with_absolute(found_again(found, folder))
            record = {name: wanted[name] for name in RECORDED} | found
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
        ended = (folder / ENDED).exists()
        if not ended and Checkpoints(folder / "checkpoints").paths():
            yield folder, record
