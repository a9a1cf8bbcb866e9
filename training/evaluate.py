"""`python -m training.evaluate BUNDLE [--option value]`: how good is this model?

BUNDLE is a bundle's folder, or NAME[@VERSION] in --repository. The data is what the model was
trained on, as its manifest tells, unless --data.* says otherwise. The bundle is left as it is.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from models.bundle import MANIFEST, Bundle
from models.errors import ModelError
from models.manifest import Manifest, Metric
from models.repository import Repository
from training.arguments import read
from training.data import DataConfig, ImageSet, load
from training.datasets import DATASETS
from training.errors import ConfigError, EvaluationError, TrainingError
from training.evaluation import Plan, evaluate, resolve
from training.evaluation.judge import protocols
from training.evaluation.plan import AUTO, Schedule
from training.evaluation.report import record, table, warnings
from training.gate import (
    Gate,
    check_comparable,
    check_measured,
    current_of,
    figures_against_current,
    judge,
    parse_gates,
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to judge, on what, and how."""

    repository: Path = Path("model-repository")
    """Folder of published models."""
    data: DataConfig = field(default_factory=DataConfig)
    """Real images to compare with; by default those that the manifest names."""
    features: str = AUTO
    """classifier (trained on the data), random, inception or onnx (both need --weights); auto:
    classifier where the data has classes, else random."""
    weights: Path | None = None
    """Inception's (2015-12-05-6726825d.pth), or an ONNX file that maps images to features."""
    num_images: int | None = None
    """Images of each kind to compare; by default 10,000, or half of the data if that is less."""
    measures: tuple[str, ...] = ()
    """Figures to measure, by name; by default every one that fits the model and the data."""
    seed: int = 0
    """Of the images that are made and of the real ones that are chosen."""
    gate: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Exit with 8 unless it holds: 'coverage>=0.8', not-worse, not-worse:FIGURE or
    not-worse:FIGURE:MARGIN (than CURRENT of the same name in the repository). Can be given several
    times."""
    cache: Path | None = None
    """Folder that keeps classifiers, so that the same data's is trained once."""
    report: Path | None = None
    """File to write the JSON to, too."""
    json: bool = False
    """Print JSON, not a table."""
    device: str = "cpu"
    """Where features are computed: cpu, cuda or cuda:N; the model itself runs on the CPU."""

    def plan(self) -> Plan:
        """What of it the evaluation must know.

        Raises:
            ConfigError: there is no such device.
        """
        num_gpus = torch.cuda.device_count()
        devices = ["cpu", *(["cuda"] if num_gpus else []), *(f"cuda:{i}" for i in range(num_gpus))]
        if self.device not in devices:
            raise ConfigError(
                f"device is {self.device!r}, allowed: {', '.join(devices)}; set --device"
            )
        return Plan(
            features=self.features,
            weights=self.weights,
            cache=self.cache,
            num_images=self.num_images,
            figures=self.measures,
            seed=self.seed,
            device=self.device,
        )


def main(argv: Sequence[str]) -> int:
    """Runs a command line and returns the exit code."""
    try:
        _run(list(argv))
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(words: list[str]) -> None:
    bundle = None if {"-h", "--help"} & set(words) else _open(words)
    command = _parse(words, None if bundle is None else bundle.manifest)
    assert bundle is not None  # --help has ended
    manifest = bundle.manifest
    plan, gates = command.plan(), parse_gates(command.gate)
    if command.report is not None and not command.report.absolute().parent.is_dir():
        raise ConfigError(f"report is {str(command.report)!r}: its folder does not exist; make it")
    image_set = load(command.data)
    _check_fits(manifest, image_set)
    num_classes = len(manifest.labels or ())
    schedule = resolve(plan, image_set, num_classes=num_classes, labels=manifest.labels)
    check_measured(gates, schedule.figures, "name it in --measures, or leave the gate out")
    _check_gates(command, manifest, gates, schedule, image_set)
    _say(
        f"{manifest.name} version {manifest.version}: {schedule.num_images:,} images, "
        f"{schedule.features} features, against {len(image_set):,} images of {image_set.name}"
    )
    if (manifest.dataset.content or manifest.dataset.fingerprint) not in _fingerprints(image_set):
        _say("note: this is not the data, or not in the form, that the model was trained on")
    metrics = evaluate(
        bundle.model_path,
        manifest.z_dim,
        image_set,
        plan,
        num_classes=num_classes,
        labels=manifest.labels,
        say=_say,
    )
    _tell(command, bundle, metrics)
    for line in warnings(metrics):
        _say(line)
    _judge(command, manifest, gates, metrics)


def _open(words: list[str]) -> Bundle:
    """The bundle that the first word names, its files verified."""
    if not words or words[0].startswith("-"):
        raise ConfigError(
            "BUNDLE is not given, allowed: a bundle's folder or NAME[@VERSION]; put it first: "
            "python -m training.evaluate digits"
        )
    name = words.pop(0)
    try:
        bundle = _named(name, Path(_early(words, "--repository") or Command.repository))
        bundle.verify_files()
    except ModelError as error:
        raise EvaluationError(f"BUNDLE is {name!r}: {error}") from error
    return bundle


def _named(name: str, repository: Path) -> Bundle:
    if (Path(name) / MANIFEST).is_file():
        return Bundle.open(Path(name))
    model, _, version = name.partition("@")
    if "/" in name or (version and not version.isdecimal()):
        raise EvaluationError(
            f"BUNDLE is {name!r}, allowed: a folder that holds a {MANIFEST}, or NAME[@VERSION] "
            f"with a whole number; {repository} is looked in for names, set --repository"
        )
    return Repository(repository).bundle(model, int(version) if version else None)


def _early(words: Sequence[str], option: str) -> str | None:
    """An option's value before the rest is read, since it decides the others' defaults."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument(option, nargs="?", dest="value")
    value: str | None = early.parse_known_args(list(words))[0].value
    return value


def _parse(words: list[str], manifest: Manifest | None) -> Command:
    """Reads the arguments, to which the manifest gives defaults."""
    return read(
        Command,
        words,
        Command() if manifest is None else Command(data=_data_of(manifest, words)),
        prog="python -m training.evaluate BUNDLE",
        description=(__doc__ or "").partition("\n\n")[2],
    )


def _data_of(manifest: Manifest, words: list[str]) -> DataConfig:
    """The data that the model was trained on, with labels where the set has any."""
    options = manifest.options.get("data", {})
    options = options if isinstance(options, dict) else {}
    trained_on = options.get("dataset")
    name = _early(words, "--data.dataset") or trained_on
    if name not in DATASETS:
        raise ConfigError(
            f"data.dataset is {name!r}, allowed: {', '.join(sorted(DATASETS))}; set --data.dataset"
        )
    entry = DATASETS[name]
    labelled = entry.labelled
    if entry.needs_path:  # of a folder only its owner knows whether subfolders are classes
        labelled = bool(options.get("conditional", False)) and name == trained_on
    return DataConfig(
        dataset=name,
        path=tyro.MISSING if entry.needs_path else None,  # a manifest tells no folder's place
        resolution=manifest.image.height,
        channels=manifest.image.channels,
        conditional=labelled,
    )


def _check_fits(manifest: Manifest, image_set: ImageSet) -> None:
    image, shape = manifest.image, image_set.shape
    made = [image.channels, image.height, image.width]
    real = [shape.channels, shape.resolution, shape.resolution]
    if made != real:
        raise ConfigError(
            f"data gives images {real}, the model makes {made} (channels, height, width); set "
            "--data.resolution and --data.channels to the model's"
        )


def _fingerprints(image_set: ImageSet) -> tuple[str, str]:
    """With the labels, and as an unconditional training tells it: without."""
    pixels = np.ascontiguousarray(image_set.images.numpy())
    return image_set.content, hashlib.sha256(pixels.data).hexdigest()


def _tell(command: Command, bundle: Bundle, metrics: tuple[Metric, ...]) -> None:
    manifest = bundle.manifest
    subject = {"name": manifest.name, "version": manifest.version, "digest": bundle.digest}
    text = json.dumps(record(subject, metrics), indent=2)
    if command.report is not None:
        try:
            command.report.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise EvaluationError(
                f"report is {str(command.report)!r}: {error.strerror}; choose another file"
            ) from error
    print(text if command.json else table(metrics))


def _check_gates(
    command: Command,
    manifest: Manifest,
    gates: tuple[Gate, ...],
    schedule: Schedule,
    image_set: ImageSet,
) -> None:
    """Before anything is measured: what CURRENT was measured by is what will be measured."""
    compared = figures_against_current(gates, schedule.figures)
    current = _current(command, manifest) if compared else None
    if current is not None:
        num_classes = len(manifest.labels or ())
        alike = protocols(schedule, image_set, compared, num_classes=num_classes, say=_say)
        check_comparable(gates, alike, current)


def _current(command: Command, manifest: Manifest) -> Manifest | None:
    try:
        return current_of(Repository(command.repository), manifest.name)
    except ModelError as error:
        raise EvaluationError(str(error)) from error


def _judge(
    command: Command, manifest: Manifest, gates: tuple[Gate, ...], metrics: tuple[Metric, ...]
) -> None:
    """All gates are tried, so that one run tells of every one that fails."""
    current = _current(command, manifest) if gates else None
    for line in judge(gates, metrics, current):
        _say(line)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
