"""`python -m training.inversion calibrate MODEL`: the scores of images that are usual."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.bundle.anomaly import CALIBRATION, Calibration
from models.bundle.manifest import Metric
from models.repository import Repository
from training.data import DataConfig, ImageSet, load
from training.data.images_record import recorded_rows
from training.errors import ConfigError, require
from training.interpretation.published import publish
from training.inversion.opened import Opened, as_bytes, require_fitting
from training.inversion.score_command import require_own_class, scored
from training.inversion.seen import (
    encoder_images,
    is_trained_on,
    trained_options,
    without_recorded,
)
from training.runs.catalogue import run_of_model
from training.runs.model_data import RUNS

Say = Callable[[str], None]
FIGURE = "calibration images"
_LEAST, _MOST = 19, 100_000


@dataclass(frozen=True, kw_only=True)
class CalibrateCommand:
    """Score images that are known to be usual, and publish the model with that scale.

    They must be of the kind that is usual, and neither the model nor its encoder may have seen
    them: images that were held out (--data.held-out at the training), or other ones (--data.path).
    """

    repository: Path = Path("model-repository")
    """Folder of published models."""
    runs: Path = RUNS
    """Folder of runs: that of the model knows where its images lay."""
    data: DataConfig = field(default_factory=DataConfig)
    """The images; of those that the model was trained on, what was held out is taken."""
    num_images: int = 1000
    """Images to score at most. With n of them the smallest p is 1 / (n + 1)."""
    label: str | None = None
    """Class of the images, where the encoder must be told it and the data has none."""
    publish: bool = True
    """Publish the model with its calibration, as the next version of its name."""

    def run(self, bundle: Bundle, say: Say) -> str:
        """Scores, publishes, and returns the table."""
        num = self.num_images
        require(_LEAST <= num <= _MOST, "num_images", num, f"{_LEAST} .. {_MOST:,}", "--num-images")
        model = Opened(bundle)
        model.scorer()  # before any image is read
        require_own_class(model, self.label, "the scale of p is made so")
        image_set = unseen(model, load(self.data), self.data, self._recorded(bundle), say)
        require_fitting(model, image_set)
        chosen = image_set.subset(num)
        found = len(chosen)
        require(found >= _LEAST, "data", f"{found} images", f"{_LEAST} or more", "give more images")
        images = as_bytes(chosen)
        labels = model.labels_named(self.label, found)
        # An encoder that finds classes is not told those of the data: p is for images without.
        if labels is None and chosen.labels is not None and not model.traits.infers_label:
            labels = chosen.labels.numpy()
        scores = np.sort(scored(model, images, labels).score)
        if self.publish:
            protocol = {"data": chosen.name, "content": chosen.content}
            publish(
                bundle,
                {CALIBRATION: Calibration(scores).to_bytes()},
                Repository(self.repository),
                say,
                what="calibration",
                metrics=(Metric(name=FIGURE, value=float(found), protocol=protocol),),
            )
        lines = ["| false-alarm rate | score from which it alarms |", "|---|---|"]
        lines += [f"| {rate:g} | {threshold(scores, rate):.4g} |" for rate in (0.1, 0.05, 0.01)]
        return "\n".join([f"{found} images, smallest p {1 / (found + 1):.2g}", "", *lines])

    def _recorded(self, bundle: Bundle) -> frozenset[str]:
        """Digests of the images that the model was trained on, where its run is there."""
        run = run_of_model(bundle.manifest, bundle.path, self.runs)
        rows = None if run is None else recorded_rows(run.folder)
        return frozenset(digest for digest, _ in rows or ())


def unseen(
    model: Opened,
    image_set: ImageSet,
    data: DataConfig,
    recorded: Collection[str] = (),
    say: Say = print,
) -> ImageSet:
    """The images that neither the model nor its encoder has seen.

    Args:
        model: what was trained.
        image_set: the images.
        data: where they are from.
        recorded: digests of the images that it was trained on, as its run has them. Those of the
            encoder are in the bundle.
        say: told what was left out, and what isn't known.

    Raises:
        ConfigError: they are those that it was trained on, and none were held out, or others; or
            the encoder was trained on them.
        CheckpointError: the record of the encoder's images can't be read.
    """
    found = _unseen_by_the_model(model, image_set, data, recorded, say)
    learned = encoder_images(model.bundle)
    if learned is None:
        say(
            "note: the bundle doesn't say which real images its encoder learned from (that of an "
            "earlier release doesn't, nor one that was trained together with the model): see to it "
            "that none but the model's own were among them, or train the encoder again"
        )
    return without_recorded(found, learned or (), say, by="the encoder")


def _unseen_by_the_model(
    model: Opened, image_set: ImageSet, data: DataConfig, recorded: Collection[str], say: Say
) -> ImageSet:
    manifest = model.bundle.manifest
    trained_share = trained_options(manifest)["held_out"]
    if image_set.held_out is not None and data.held_out != trained_share:
        raise ConfigError(
            f"data.held_out is {data.held_out:g}, allowed: {trained_share:g}, as at the "
            "training: another share would hold out images that the model has seen; leave "
            "--data.held-out out, or give other images with --data.path"
        )
    if not is_trained_on(manifest, image_set, data):
        # Of other images none need be held out.
        whole = image_set if image_set.held_out is None else load(replace(data, held_out=0.0))
        return without_recorded(whole, recorded, say)
    if image_set.held_out is None:
        remedy = "leave --data.held-out out" if trained_share else "train with --data.held-out 0.1"
        raise ConfigError(
            "data is what the model was trained on: these images score too low, and every other "
            f"would alarm; give others with --data.path, or {remedy}"
        )
    return without_recorded(image_set.held_out, recorded, say)


def threshold(scores: npt.NDArray[np.float64], rate: float) -> float:
    """The least score whose p is at most `rate`; inf where there are too few images for it."""
    allowed = int(rate * (len(scores) + 1)) - 1  # calibration scores that may be as large
    return float("inf") if allowed < 0 else float(np.nextafter(scores[-1 - allowed], np.inf))
