"""`python -m training.evaluate BUNDLE [--option value]`: measure how good a model is.

BUNDLE is a bundle's folder, or NAME[@VERSION] in --repository. The model is compared with the data
that its manifest names, unless --data.* options name other data. The bundle is not changed.

With the word `anomaly` before MODEL it judges a model of what is usual: how well it tells other
images. A model that is called `anomaly` is measured where no name follows.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from models.bundle import Bundle
from models.bundle.manifest import Manifest, Metric
from models.errors import ModelError
from models.repository import Repository
from models.repository.lookup import open_named
from training.anomaly import command as anomaly
from training.cli.arguments import peek, read
from training.config.compute import device_names
from training.data import DataConfig, ImageSet, load
from training.errors import ConfigError, EvaluationError, TrainingError, require
from training.evaluation import Plan, evaluate, resolve
from training.evaluation.evaluator import protocols
from training.evaluation.gates import (
    Gate,
    check_comparable,
    check_gates,
    check_measured,
    current_of,
    figures_against_current,
    parse_gates,
)
from training.evaluation.metrics.manifold import NEAREST_K
from training.evaluation.plan import AUTO, ResolvedPlan
from training.evaluation.report import (
    comparisons,
    record,
    require_folder,
    table,
    warnings,
    write_report,
)
from training.evaluation.verdict import Circumstances, verdict
from training.finite_json import as_json
from training.runs.model_data import RUNS, data_of
from training.stdout import ClosedPipeIgnored

PROG = "python -m training.evaluate"


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to measure on which data, and where the results go."""

    repository: Path = Path("model-repository")
    """Folder of published models."""
    runs: Path = RUNS
    """Folder of runs: that of the model knows where its images lay."""
    data: DataConfig = field(default_factory=DataConfig)
    """Real images to compare with; by default those that it was trained on."""
    features: str = AUTO
    """classifier (trained on the data), random, inception or onnx (both need --weights); auto:
    classifier where the data has classes, else random."""
    weights: Path | None = None
    """Inception's weights (2015-12-05-6726825d.pth), or an ONNX file that maps images to
    features."""
    num_images: int | None = None
    """Images of each kind to compare; by default 10,000, or half of the data if that is less."""
    whole_data: bool = False
    """Compare with all real images, as published figures do, instead of a half; 50,000 generated
    images by default."""
    nearest_k: int = NEAREST_K
    """Neighbour that neighbourhoods of precision, recall, density and coverage reach to; published
    precision and recall have 3."""
    measures: tuple[str, ...] = ()
    """Figures to measure, by name; by default all that fit the model and the data."""
    seed: int = 0
    """Decides which images are generated and which real ones are chosen."""
    gate: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Exit with 8 unless this condition holds: 'coverage>=0.8', not-worse, not-worse:FIGURE or
    not-worse:FIGURE:MARGIN (than CURRENT of the same name in the repository). Can be given several
    times."""
    cache: Path | None = None
    """Folder that keeps trained classifiers, so that there is one training for each dataset."""
    report: Path | None = None
    """Write the JSON to this file as well."""
    json: bool = False
    """Print JSON instead of a table."""
    device: str = "cpu"
    """Device that computes the features: cpu, cuda or cuda:N; the model runs on the CPU."""

    def plan(self) -> Plan:
        """The plan of the evaluation.

        Raises:
            ConfigError: this machine has no such device.
        """
        devices = device_names()
        allowed = ", ".join(devices)
        require(self.device in devices, "device", self.device, allowed, "set --device")
        return Plan(
            features=self.features,
            weights=self.weights,
            cache=self.cache,
            num_images=self.num_images,
            figures=self.measures,
            whole_data=self.whole_data,
            nearest_k=self.nearest_k,
            seed=self.seed,
            device=self.device,
        )


def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs a command line and returns the exit code; prog: how it was called."""
    words = list(argv)
    try:
        if anomaly.is_asked(words):
            anomaly.main(words[1:], f"{prog} anomaly")
        else:
            _run(words, prog)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(words: list[str], prog: str) -> None:
    bundle = None if {"-h", "--help"} & set(words) else _open(words, prog)
    command = _parse(words, bundle, prog)
    assert bundle is not None  # --help has ended
    manifest = bundle.manifest
    plan, gates = command.plan(), parse_gates(command.gate)
    require_folder(command.report)
    image_set = load(command.data)
    _check_fits(manifest, image_set)
    num_classes = len(manifest.labels or ())
    resolved = resolve(plan, image_set, num_classes=num_classes, labels=manifest.labels)
    check_measured(gates, resolved.figures, "name it in --measures, or leave the gate out")
    _require_comparable(command, manifest, gates, resolved, image_set)
    _say(
        f"{manifest.name} version {manifest.version}: {resolved.num_images:,} images, "
        f"{resolved.features} features, against {len(image_set):,} images of {image_set.name}"
    )
    if (manifest.dataset.content or manifest.dataset.fingerprint) not in _fingerprints(image_set):
        _say("note: the model was trained on other data, or on the same data in another form")
    metrics = evaluate(
        bundle.model_path,
        manifest.z_dim,
        image_set,
        plan,
        num_classes=num_classes,
        labels=manifest.labels,
        say=_say,
    )
    _report(command, bundle, metrics)
    said = verdict(metrics, _circumstances(manifest, image_set))
    for line in (*warnings(metrics), *said, *comparisons(metrics)):
        _say(line)
    current = _current(command, manifest) if gates else None
    for line in check_gates(gates, metrics, current):
        _say(line)


def _open(words: list[str], prog: str) -> Bundle:
    """Takes the first word and opens the bundle that it names, with its files verified."""
    if not words or words[0].startswith("-"):
        raise ConfigError(
            "BUNDLE is not given, allowed: a bundle's folder or NAME[@VERSION]; put it first: "
            f"{prog} digits"
        )
    name = words.pop(0)
    try:
        bundle = open_named(name, Path(peek(words, "--repository") or Command.repository))
    except ModelError as error:
        raise EvaluationError(f"BUNDLE is {name!r}: {error}") from error
    return bundle


def _parse(words: list[str], bundle: Bundle | None, prog: str = PROG) -> Command:
    """Parses the options; the model decides the defaults of --data."""
    return read(
        Command,
        words,
        Command() if bundle is None else Command(data=data_of(bundle, words, say=_say)),
        prog=f"{prog} BUNDLE",
        description=(__doc__ or "").partition("\n\n")[2],
    )


def _check_fits(manifest: Manifest, image_set: ImageSet) -> None:
    image, shape = manifest.image, image_set.shape
    made = [image.channels, image.height, image.width]
    real = [shape.channels, shape.height, shape.width]
    if made != real:
        raise ConfigError(
            f"data gives images {real}, the model makes {made} (channels, height, width); set "
            "--data.resolution and --data.channels to the model's"
        )


def _fingerprints(image_set: ImageSet) -> tuple[str, str]:
    """The digests that a manifest may have of this data: with labels, and without."""
    pixels = np.ascontiguousarray(image_set.images.numpy())
    return image_set.content, hashlib.sha256(pixels.data).hexdigest()


def _report(command: Command, bundle: Bundle, metrics: tuple[Metric, ...]) -> None:
    """Prints the figures, and writes them to --report."""
    manifest = bundle.manifest
    subject = {"name": manifest.name, "version": manifest.version, "digest": bundle.digest}
    text = as_json(record(subject, metrics))
    write_report(command.report, text)
    with ClosedPipeIgnored():
        print(text if command.json else table(metrics))


def _require_comparable(
    command: Command,
    manifest: Manifest,
    gates: tuple[Gate, ...],
    resolved: ResolvedPlan,
    image_set: ImageSet,
) -> None:
    """Checks, before anything is measured, that gates can compare the figures with CURRENT's.

    Raises:
        ConfigError: CURRENT lacks a figure, or was measured in another way.
    """
    compared = figures_against_current(gates, resolved.figures)
    current = _current(command, manifest) if compared else None
    if current is not None:
        num_classes = len(manifest.labels or ())
        expected = protocols(resolved, image_set, compared, num_classes=num_classes, say=_say)
        check_comparable(gates, expected, current)


def _circumstances(manifest: Manifest, image_set: ImageSet) -> Circumstances:
    augment = manifest.options.get("augment", {})
    augmented = bool(augment.get("policy")) if isinstance(augment, dict) else False
    return Circumstances(num_images=len(image_set), augmented=augmented)


def _current(command: Command, manifest: Manifest) -> Manifest | None:
    try:
        return current_of(Repository(command.repository), manifest.name)
    except ModelError as error:
        raise EvaluationError(str(error)) from error


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
