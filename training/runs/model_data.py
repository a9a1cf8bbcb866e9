"""The images that a model was trained on, found again by its manifest or its run."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import tyro

from models.bundle import Bundle
from training.cli.arguments import peek
from training.cli.command import resumed
from training.data import DataConfig
from training.data.config import EARLIER
from training.data.sources import DATASETS
from training.errors import ConfigError, TrainingError
from training.runs.catalogue import run_of_model

RUNS = Path("runs")


def data_of(bundle: Bundle, words: Sequence[str], *, say: Callable[[str], None]) -> DataConfig:
    """The data that the model was trained on, or --data.dataset, with labels if it has any.

    words: the options of the command line, of which --data.* and --runs are looked at.

    Raises:
        ConfigError: the data isn't known, or isn't there; the message says what helps.
    """
    manifest = bundle.manifest
    options = manifest.options.get("data", {})
    options = options if isinstance(options, dict) else {}
    trained_on = options.get("dataset")
    name = peek(words, "--data.dataset") or trained_on
    if name not in DATASETS:
        raise ConfigError(
            f"data.dataset is {name!r}, allowed: {', '.join(sorted(DATASETS))}; set --data.dataset"
        )
    entry = DATASETS[name]
    labelled = entry.labelled
    if entry.needs_path and name == trained_on and peek(words, "--data.path") is None:
        return _own_data(bundle, Path(peek(words, "--runs") or RUNS), say)
    if entry.needs_path:  # subfolders may be classes or not: take what the training took
        labelled = bool(options.get("conditional", False)) and name == trained_on
    # Of other data than the training's nothing is known; a manifest of an earlier release lacks
    # options that it didn't know.
    own = {**EARLIER, **options} if name == trained_on else {}
    return DataConfig(
        dataset=name,
        **{option: own[option] for option in EARLIER if option in own},
        path=tyro.MISSING if entry.needs_path else None,  # a manifest names no path
        resolution=f"{manifest.image.width}x{manifest.image.height}",
        channels=manifest.image.channels,
        conditional=labelled and not own.get("only"),
    )


def _own_data(bundle: Bundle, runs: Path, say: Callable[[str], None]) -> DataConfig:
    """The model's own images, as the run that made it had them.

    Raises:
        ConfigError: no such run is there, or its images are gone; the message says what helps.
    """
    manifest = bundle.manifest
    run = run_of_model(manifest, bundle.path, runs)
    called = manifest.options.get("data", {}).get("path")
    asked = f"data.path is not given: the model was trained on images of its own, {called!r}; "
    try:
        data = None if run is None else resumed(run.folder, None).config.data
    except TrainingError:  # of another release
        data = None
    if run is None or data is None or data.path is None:
        raise ConfigError(
            f"{asked}its run, which knows where they lay, is not in {runs}: give their folder with "
            "--data.path DIR, or the folder of the run with --runs DIR"
        )
    if not data.path.exists():
        raise ConfigError(
            f"{asked}by its run {run.folder} they lay in {data.path}, which is not there any more: "
            "give their folder with --data.path DIR"
        )
    say(f"data: {data.path}, by the run {run.folder}")
    return replace(data, weights=())
