"""`python -m training.evaluate anomaly MODEL`: how well it tells the unusual from the usual."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from models.bundle import ENCODER, Bundle
from models.bundle.anomaly import CALIBRATION, read_calibration
from training.anomaly.figures import Judged, Scores, best_of, expected_false_alarms, judge
from training.anomaly.images import Learned, Unseen, default_data, learned, unseen_images
from training.anomaly.methods import METHODS, Given
from training.cli.arguments import peek, read
from training.data import DataConfig
from training.data.sources import DATASETS
from training.errors import (
    CheckpointError,
    ConfigError,
    require,
    require_number,
)
from training.evaluation.report import require_folder, write_report
from training.finite_json import as_json
from training.interpretation.published import open_model
from training.inversion.opened import Opened, to_img
from training.inversion.score_command import scored
from training.runs.model_data import RUNS
from training.stdout import ClosedPipeIgnored

Say = Callable[[str], None]
MODEL = "generator and encoder"


@dataclass(frozen=True, kw_only=True)
class AnomalyCommand:
    """Judge a model of one class that has an encoder and a calibration, on test images.

    Beside it stand pixel kNN, PCA and an autoencoder of equal size, which learn from the images
    that the model was trained on and are calibrated with the same. Test images are scored last, and
    once. The model is not changed.
    """

    repository: Path = Path("model-repository")
    """Folder of published models."""
    runs: Path = RUNS
    """Folder of runs: that of the model knows where its images lay."""
    data: DataConfig = field(default_factory=DataConfig)
    """Test images of all classes; by default the test part of the data that it was trained on."""
    normal: tuple[str, ...] = ()
    """Classes that are usual; by default the one that it was trained on."""
    alpha: float = 0.05
    """An image alarms where its p is at most this: the share of false alarms that is accepted."""
    trained_on: Path | None = None
    """Where the images of the training lie; by default where its run had them or, of a set in
    several parts such as mnist, where the test images lie."""
    autoencoder_kimg: float = 40.0
    """Thousands of images to train the autoencoder with."""
    seed: int = 0
    """Decides the autoencoder's weights, and which images the intervals draw."""
    report: Path | None = None
    """Write the JSON to this file as well."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self, bundle: Bundle, say: Say) -> str:
        """Judges, and returns the table or JSON."""
        require_number("autoencoder_kimg", self.autoencoder_kimg, above=0)
        fits = math.isfinite(self.alpha) and 0 < self.alpha < 1
        require(fits, "alpha", self.alpha, "more than 0, less than 1", "set --alpha")
        require(self.seed >= 0, "seed", self.seed, "0 or more", "set --seed")
        normal = self._normal(bundle)
        require_folder(self.report)
        model, manifest = Opened(bundle), bundle.manifest
        model.scorer()
        if model.traits.needs_label:
            raise ConfigError(
                f"MODEL is {manifest.name!r}, whose encoder must be told the class; allowed: one "
                "of one class, or whose encoder finds it: train it with --data.only CLASS"
            )
        calibration = read_calibration(bundle)
        if calibration is None:
            raise CheckpointError(
                f"{manifest.name} has no {CALIBRATION}; make it: python -m training.inversion "
                f"calibrate {manifest.name}"
            )
        known = learned(bundle, self.runs, self._training_images(bundle), say)
        test = unseen_images(model, self.data, normal, known, say)
        score = {name: each for name, each in self._fitted(bundle, known, say)}
        methods = {
            MODEL: _of(scored(model, test.images, None).score, test, calibration.scores),
            **{
                name: _of(each(to_img(test.images)), test, _calibrated(each, known))
                for name, each in score.items()
            },
        }
        judged = judge(methods, alpha=self.alpha, seed=self.seed)
        record = self._record(bundle, judged, test, known, len(calibration.scores))
        text = as_json(record)
        write_report(self.report, text)
        return text if self.json else table(record)

    def _training_images(self, bundle: Bundle) -> Path | None:
        name, data = bundle.manifest.options.get("data", {}).get("dataset"), self.data
        beside = data.dataset == name and DATASETS[data.dataset].has_test
        return self.trained_on or (data.path if beside else None)

    def _normal(self, bundle: Bundle) -> tuple[str, ...]:
        only = bundle.manifest.options.get("data", {}).get("only", "")
        normal = self.normal or ((only,) if only else ())
        allowed = "classes, as the manifest names none: it was not trained with --data.only"
        require(bool(normal), "normal", "not given", allowed, "set --normal")
        return normal

    def _fitted(self, bundle: Bundle, known: Learned, say: Say) -> Any:
        given = Given(
            x=known.train.seen(slice(None)),
            z_dim=bundle.manifest.z_dim,
            num_parameters=num_parameters(bundle),
            autoencoder_kimg=self.autoencoder_kimg,
            seed=self.seed,
        )
        for name, fit in METHODS.items():
            say(f"{name}: {(fit.__doc__ or '').strip()} Learns from {len(given.x):,} images")
            yield name, fit(given)

    def _record(
        self,
        bundle: Bundle,
        judged: dict[str, Judged],
        test: Unseen,
        known: Learned,
        num_calibration: int,
    ) -> dict[str, Any]:
        manifest = bundle.manifest
        return {
            "name": manifest.name,
            "version": manifest.version,
            "digest": bundle.digest,
            "normal": list(self._normal(bundle)),
            "alpha": self.alpha,
            "images": {
                "train": len(known.train),
                "calibration": num_calibration,
                "usual": int(test.is_usual.sum()),
                "unusual": int((~test.is_usual).sum()),
            },
            "expected_false_alarms": expected_false_alarms(num_calibration, self.alpha),
            "num_parameters": num_parameters(bundle),
            "best": best_of(judged),
            "methods": {name: asdict(each) for name, each in judged.items()},
        }


def main(words: list[str], prog: str) -> None:
    """Runs a command line without its first word, and prints the result; prog: how it began."""
    about = AnomalyCommand.__doc__ or ""
    if {"-h", "--help"} & set(words):
        read(AnomalyCommand, words, AnomalyCommand(), prog=f"{prog} MODEL", description=about)
    name = words.pop(0)
    bundle, _ = open_model(name, Path(peek(words, "--repository") or AnomalyCommand.repository))
    default = AnomalyCommand(data=default_data(bundle, words, _say))
    command = read(AnomalyCommand, words, default, prog=f"{prog} MODEL", description=about)
    text = command.run(bundle, _say)
    with ClosedPipeIgnored():
        print(text)


def num_parameters(bundle: Bundle) -> int:
    """Parameters of generator and encoder together: encoder.onnx has both."""
    graph = onnx.load(str(bundle.path / ENCODER), load_external_data=False).graph
    is_float = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return sum(math.prod(each.dims) for each in graph.initializer if each.data_type in is_float)


def table(record: dict[str, Any]) -> str:
    """The figures as a table in Markdown, the best AUROC in bold, and what they say."""
    images, alpha = record["images"], record["alpha"]
    lines = [
        f"| method | AUROC | average precision | false alarms at p <= {alpha:g} | found |",
        "|---|---|---|---|---|",
    ]
    for name, each in record["methods"].items():
        cells = [name, _cell(each["auroc"]), _cell(each["average_precision"])]
        cells += [_cell(each["false_alarms"]), _cell(each["found"])]
        if name == record["best"]:
            cells[0], cells[1] = f"**{name}**", f"**{cells[1]}**"
        lines.append(f"| {' | '.join(cells)} |")
    share = images["unusual"] / (images["usual"] + images["unusual"])
    lines += [
        "",
        f"{record['name']} version {record['version']}, usual: {', '.join(record['normal'])}; "
        f"{images['train']:,} images to learn from, {images['calibration']:,} to calibrate, "
        f"{images['usual']:,} usual and {images['unusual']:,} unusual to test",
        f"expected: average precision {share:.3f} of a score that knows nothing; false alarms "
        f"{record['expected_false_alarms']:.3f} with so many calibration images",
        _verdict(record),
    ]
    return "\n".join(lines)


def _verdict(record: dict[str, Any]) -> str:
    best, mine = record["best"], record["methods"][MODEL]
    if best == MODEL:
        return f"the best AUROC is of {MODEL}"
    low, high = mine["behind"]["interval"]
    sure = "" if low > 0 else "; the difference may be chance"
    return (
        f"{best} is better than {MODEL}: AUROC higher by {mine['behind']['value']:.3f} "
        f"({low:.3f} .. {high:.3f}){sure}"
    )


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    low, high = figure["interval"]
    return f"{figure['value']:.3f} ({low:.3f} .. {high:.3f})"


def _of(scores: np.ndarray, test: Unseen, calibration: np.ndarray | None) -> Scores:
    return Scores(
        usual=scores[test.is_usual], unusual=scores[~test.is_usual], calibration=calibration
    )


def _calibrated(score: Callable[..., Any], known: Learned) -> np.ndarray | None:
    if known.calibration is None:
        return None
    found: np.ndarray = score(known.calibration.seen(slice(None)))
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def is_asked(words: Sequence[str]) -> bool:
    """Whether `anomaly` is the word before a model, and not the model's own name."""
    if list(words[:1]) != ["anomaly"] or len(words) == 1:
        return False
    return not words[1].startswith("-") or words[1] in ("-h", "--help")
