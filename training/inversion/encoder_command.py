"""`python -m training.inversion encoder MODEL`: an encoder, published with its model."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.bundle.anomaly import CALIBRATION
from models.bundle.manifest import Metric
from models.repository import Repository
from training.data import DataConfig, ImageSet, load
from training.data.image_set import reordered
from training.errors import require, require_number
from training.interpretation.published import assembled, publish, write_files
from training.inversion.figures import figures
from training.inversion.fit import EncoderFit, FitConfig, Subject
from training.inversion.graph import encoder_files
from training.inversion.network import EncoderConfig
from training.inversion.opened import Opened, as_bytes, require_fitting
from training.inversion.seen import ENCODER_IMAGES, encoder_record, require_held_out
from training.inversion.work import Work
from training.runs.model_data import RUNS

Say = Callable[[str], None]
_APART = 10  # every tenth real image is kept for the figures
_MOST_APART = 1000
_LEAST_SIDE = 8
HEADING = "## The way back"


@dataclass(frozen=True, kw_only=True)
class EncoderCommand:
    """Train an encoder for a model, and publish the model with it as its next version.

    It learns from the model's own images, whose latents are known, and from the data. One encoder
    serves whole images, those with holes and small ones. model.onnx stays as it is, byte by byte.
    """

    repository: Path = Path("model-repository")
    """Folder of published models."""
    runs: Path = RUNS
    """Folder of runs: that of the model knows where its images lay."""
    data: DataConfig = field(default_factory=DataConfig)
    """Real images to learn from; by default those that the model was trained on."""
    real: float = 0.25
    """Share of real images; 0 to learn from the model's own alone, without any data."""
    label: Literal["inferred", "given"] = "inferred"
    """Of conditional models: whether the encoder finds the class of an image, or is told it."""
    kimg: float = 50.0
    """Thousands of images to train with."""
    batch_size: int = 128
    """Images that are worked on at once."""
    lr: float = 2e-3
    """Learning rate."""
    width: int = 32
    """Channels of the encoder's widest-resolution map."""
    passes: int = 4
    """Residual passes: 3 to 5 are usual."""
    seed: int = 0
    """Decides every draw."""
    folder: Path | None = None
    """Folder of the training's state; by default runs/encoders/NAME-VERSION."""
    resume: bool = False
    """Go on with the training in the folder, if there is one."""
    out: Path | None = None
    """Folder for the files of the bundle that are new."""
    publish: bool = True
    """Publish the model with its encoder, as the next version of its name."""

    def run(self, bundle: Bundle, say: Say) -> str:
        """Trains, exports, measures and publishes; returns a table of figures."""
        config = self._config()
        model = Opened(bundle)
        side = min(model.shape.height, model.shape.width)
        remedy = "choose a model with larger images, or train one with --data.resolution"
        allowed = f"{_LEAST_SIDE} or more on each side"
        require(side >= _LEAST_SIDE, "MODEL", f"{side} pixels", allowed, remedy)
        seen, apart = self._real_images(model)
        infers = self.label == "inferred" and bool(model.shape.num_classes)
        subject = Subject(model.subject.G, model.subject.z_dim, model.shape, infers)
        manifest = bundle.manifest
        folder = self.folder or self.runs / "encoders" / f"{manifest.name}-{manifest.version}"
        fit = EncoderFit(subject, config, seen)
        images = "" if seen is None else seen.content
        work = Work(folder, manifest.files["model.onnx"].sha256, say, images)
        work.train(fit, resume=self.resume)
        files = encoder_files(fit.average.eval(), subject, self.passes, bundle.golden)
        files[ENCODER_IMAGES] = encoder_record(seen)
        return self._finish(model, files, apart, say)

    def _config(self) -> FitConfig:
        require_number("kimg", self.kimg, above=0)
        require_number("lr", self.lr, above=0)
        require(0 <= self.real <= 0.9, "real", self.real, "0 .. 0.9", "set --real")
        require(1 <= self.passes <= 10, "passes", self.passes, "1 .. 10", "set --passes")
        require(8 <= self.width <= 256, "width", self.width, "8 .. 256", "set --width")
        fits = self.passes <= self.batch_size <= 4096
        require(fits, "batch_size", self.batch_size, "passes .. 4096", "set --batch-size")
        return FitConfig(
            network=EncoderConfig(width=self.width, passes=self.passes),
            kimg=self.kimg,
            batch_size=self.batch_size,
            lr=self.lr,
            real=self.real,
            seed=self.seed,
        )

    def _real_images(self, model: Opened) -> tuple[ImageSet | None, ImageSet | None]:
        """The images to learn from, and those that are kept for the figures."""
        if not self.real:
            return None, None
        image_set = load(self.data)
        require_fitting(model, image_set)
        require_held_out(model.bundle.manifest, image_set, self.data)
        has_classes = image_set.labels is not None or not model.shape.num_classes
        remedy = "set --data.conditional, or --real 0 to learn from the model's own images alone"
        require(has_classes, "data", "without classes", "classes, as the model has them", remedy)
        numbers = np.arange(len(image_set))
        chosen = numbers % _APART == 0
        return (
            reordered(image_set, numbers[~chosen]),
            reordered(image_set, _spread(numbers[chosen], _MOST_APART)),
        )

    def _finish(
        self, model: Opened, files: dict[str, bytes], apart: ImageSet | None, say: Say
    ) -> str:
        """Measures the exported files, writes and publishes them."""
        images = labels = None
        if apart is not None:
            images = as_bytes(apart)
            labels = None if apart.labels is None else apart.labels.numpy()
        with tempfile.TemporaryDirectory() as place:
            trial = assembled(model.bundle, files, Path(place, "bundle"), without=(CALIBRATION,))
            measured = figures(Opened(trial), images, labels)
        card = _card(measured)
        if self.out is not None:
            write_files(self.out, files, say)
        if self.publish:
            if CALIBRATION in model.bundle.manifest.files:
                say(f"note: {CALIBRATION} was of the old encoder and is left out: calibrate again")
            publish(
                model.bundle,
                files,
                Repository(self.repository),
                say,
                what="encoder",
                metrics=measured,
                card=card,
                without=(CALIBRATION,),
            )
        return "\n".join(f"{metric.name}: {metric.value:.4g}" for metric in measured)


def _spread(numbers: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """At most so many of them, from the first to the last: data is often sorted by class."""
    if len(numbers) <= most:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, most).astype(np.int64)]


def _card(measured: tuple[Metric, ...]) -> str:
    rows = "\n".join(f"| {metric.name} | {metric.value:.4g} |" for metric in measured)
    return (
        f"{HEADING}\n\n`encoder.onnx` finds the latent of an image (mask: 1 where a pixel is "
        "known; start: zeros for the best answer). What the generator never learned can't come "
        "back.\n\n"
        f"| figure | |\n|---|---|\n{rows}\n"
    )
