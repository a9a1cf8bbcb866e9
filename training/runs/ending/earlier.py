"""Exports a run's checkpoint, the last or an earlier one, and publishes it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from models.bundle import Bundle
from training.cli.command import Command, Options, resumed
from training.data import load
from training.data.images_record import as_recorded
from training.engine.checkpoint import Checkpoints, check, load_average, read
from training.engine.distributed import World
from training.runs.catalogue import Run
from training.runs.ending.model import circumstances, export_model, told
from training.runs.initial_state import initial_state

Say = Callable[[str], None]


def export_checkpoint(
    run: Run, command: Command, which: str, *, destination: Path | None, log: Say
) -> tuple[Bundle, list[str]]:
    """Exports the averaged generator of a checkpoint into a bundle.

    Args:
        run: the run.
        command: of `command_to_publish`.
        which: last, best, or a number of kimg.
        destination: the bundle's folder; RUN/bundle-NNNNNNNNNN by default, which is replaced.
        log: gets progress messages.

    Returns:
        The bundle, and its figures and what they mean as lines.

    Raises:
        TrainingError: there is no such checkpoint, its data is not there, or it can't be exported.
    """
    cur_nimg = run.checkpoint(which)
    config = command.config
    checkpoint = read(Checkpoints(run.folder / "checkpoints").at(cur_nimg))
    image_set = as_recorded(load(config.data), run.folder)
    check(checkpoint, config, image_set.fingerprint)
    # Without its options: --init-from would be read for weights that are replaced at once.
    state, _ = initial_state(replace(command, options=Options()), image_set, World())
    load_average(checkpoint, state, config)
    state.looks[:] = [look for look in run.looks if look["cur_nimg"] <= cur_nimg]
    if destination is None:
        destination = run.folder / f"bundle-{cur_nimg:010d}"
        shutil.rmtree(destination, ignore_errors=True)
    bundle = export_model(
        command,
        state,
        image_set,
        destination=destination,
        weights_nimg=cur_nimg,
        selected=[f"checkpoint at {cur_nimg / 1000:.3f} kimg"],
        log=log,
        say=log,
    )
    return bundle, told(bundle, command, circumstances(command, state, image_set))


def command_to_publish(
    run: Run,
    *,
    name: str | None,
    repository: Path | None,
    evaluation: Literal["quick", "full", "none"],
) -> Command:
    """The run's command with another name, repository or evaluation; without gates.

    name, repository: None for the run's own.
    """
    command = resumed(run.folder, None)
    options = replace(
        command.options,
        name=name or command.name,
        repository=repository or command.options.repository,
        evaluation=evaluation,
        gate=(),
    )
    return replace(command, options=options)
