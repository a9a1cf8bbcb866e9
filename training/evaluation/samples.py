"""The samples that measures compare: real, generated and held-out images and noise, as rows.

Images are made once, a batch at a time, and reduced to features, small pixels and predicted
classes, so that memory doesn't grow with the size of the images. This module knows no measure.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.bundle.generator import Sampler
from training.data import ImageSet
from training.data.sources.mixtures import MIXTURES
from training.errors import EvaluationError
from training.evaluation.features.base import Extractor, Rows, Say, averaged_pixels
from training.evaluation.features.svm import Labels, SvmClassifier
from training.evaluation.metrics.memorisation import SIDE

BATCH_SIZE = 64
CLASS_IMAGES = 1000
_NOISE_STREAM = 3
_REPORT_INTERVAL_S = 5.0

Points = npt.NDArray[np.float64]
Reducer = Callable[[Tensor], npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """One set of images to measure, as rows. Rows that no measure needs are empty."""

    features: Rows
    """[n, d]."""
    pixels: Rows
    """[n, C * 256] in [0, 1]."""
    points: Points
    """Coordinates in the plane, [n, 2] float64."""
    predicted: Labels
    """Classes that the SVM sees in them, [m]."""
    labels: Labels | None
    """Classes that were requested, [m]; None where the model takes no label."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """What generated images are compared with: the input of every measure beside them."""

    name: str
    """The data's, as in --data.dataset."""
    real: Rows
    """Features of the reference, a half of the real images or all of them, [n, d]."""
    real_half: Rows
    """Features of a half of them, which the held-out half is compared with, [n, d]."""
    nearest_k: int
    """The neighbour that neighbourhoods reach to."""
    train_pixels: Rows
    """Pixels of every image of the data, [N, C * 256]."""
    halves: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    """Indices of the reference and of the held-out images (the floor), [n] each."""
    label_counts: Labels
    """Number of images of each class of the data, [K]; empty without classes."""
    floor: Subject
    """Held-out real images."""
    ceiling: Subject
    """Uniform noise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleBuilder:
    """Makes the samples of an evaluation."""

    num_classes: int
    """Classes of the model; 0 where it takes no label."""
    image_set: ImageSet
    num_images: int
    """Images of each kind."""
    whole_data: bool
    """True where the reference is all real images, not a half."""
    nearest_k: int
    """The neighbour that neighbourhoods reach to."""
    seed: int
    extractor: Extractor | None
    """None where no measure needs features."""
    svm: SvmClassifier | None
    """None where no measure needs classes."""
    wants_pixels: bool
    wants_points: bool
    say: Say
    reducers: dict[str, Reducer] = field(init=False, default_factory=dict)
    """Functions from a batch [n, C, H, W] uint8 to rows, by the field of `Subject` they fill."""

    def __post_init__(self) -> None:
        """Collects the reducers that the measures need."""
        if self.extractor is not None:
            self.reducers["features"] = self.extractor.run
        if self.wants_pixels:
            self.reducers["pixels"] = partial(averaged_pixels, side=SIDE)
        if self.wants_points:
            self.reducers["points"] = MIXTURES[self.image_set.name].coordinates
        if self.svm is not None:
            self.reducers["predicted"] = self.svm

    @property
    def num_class_images(self) -> int:
        """Images for class figures: ten for each class, at least 1,000, also of small data."""
        return max(CLASS_IMAGES, 10 * self.image_set.shape.num_classes)

    @property
    def num_half(self) -> int:
        """Real images in each of the halves that give the floor."""
        return min(self.num_images, len(self.image_set) // 2)

    @property
    def num_reference(self) -> int:
        """Real images that generated ones are compared with."""
        return len(self.image_set) if self.whole_data else self.num_half

    @property
    def first_seed(self) -> int:
        """The first generated image's seed. Plans of different seeds share no images."""
        return self.seed * max(self.num_images, self.num_class_images)

    def seeds(self, start: int, stop: int) -> npt.NDArray[np.uint64]:
        """The seeds of generated images start .. stop - 1."""
        return np.arange(start, stop, dtype=np.uint64) + np.uint64(self.first_seed)

    def build(self, sampler: Sampler) -> Samples:
        """Reduces the real images and noise to rows; sampler: for the labels it would be given.

        Raises:
            EvaluationError: a feature of an image is not finite.
        """
        image_set = self.image_set
        order = np.random.default_rng(self.seed).permutation(len(image_set))
        first, second = order[: self.num_half], order[self.num_half : 2 * self.num_half]
        of_features = {k: v for k, v in self.reducers.items() if k == "features"}
        of_pixels = {k: v for k, v in self.reducers.items() if k == "pixels"}
        everything = np.arange(len(image_set))
        train = self._reduce("training images", self._real(everything), of_pixels)
        reference = order if self.whole_data else first
        real = self._reduce("real images", self._real(reference), of_features)
        of_points = {k: v for k, v in self.reducers.items() if k == "points"}
        of_held_out = {**of_features, **of_points}
        held_out = self._reduce("held-out real images", self._real(second), of_held_out)
        train_pixels = train.get("pixels", _none())
        counts = np.bincount(
            _none() if image_set.labels is None else image_set.labels.cpu().numpy(),
            minlength=image_set.shape.num_classes,
        )
        svm = self.svm
        num_class = self.num_class_images if svm else 0
        labels = sampler.labels(self.seeds(0, num_class))
        features = real.get("features", _none())
        return Samples(
            name=image_set.name,
            real=features,
            real_half=features[: self.num_half],
            nearest_k=self.nearest_k,
            train_pixels=train_pixels,
            halves=(first, second),
            label_counts=counts,
            floor=Subject(
                features=held_out.get("features", _none()),
                pixels=train_pixels[second] if len(train_pixels) else train_pixels,
                points=held_out.get("points", _none()),
                predicted=_none() if svm is None else svm.predicted,
                labels=None if svm is None else svm.held_out,
            ),
            ceiling=self._subject("noise", self._noise, labels),
        )

    def generated(self, sampler: Sampler) -> Subject:
        """Makes the generated images and reduces them to rows.

        Raises:
            EvaluationError: a feature of an image is not finite.
        """
        num_class = self.num_class_images if self.svm else 0

        def made(start: int, stop: int) -> Iterator[Tensor]:
            return self._made(sampler, start, stop)

        return self._subject("generated images", made, sampler.labels(self.seeds(0, num_class)))

    def _subject(
        self, what: str, made: Callable[[int, int], Iterator[Tensor]], labels: Labels | None
    ) -> Subject:
        """Rows of images 0 .. num_images - 1 and, for classes, of 0 .. num_class_images - 1.

        what: names the images in messages. made: the batches of images from a number to another.
        """
        # Images that both need are made once, and reduced to everything.
        num, num_class = self.num_images, self.num_class_images if self.svm else 0
        both = min(num, num_class)
        of_class = {k: v for k, v in self.reducers.items() if k == "predicted"}
        others = {k: v for k, v in self.reducers.items() if k != "predicted"}
        parts = [
            self._reduce(what, made(0, both), self.reducers),
            self._reduce(what, made(both, num), others),
            self._reduce(what, made(both, num_class), of_class),
        ]

        def rows(name: str) -> npt.NDArray[Any]:
            found = [part[name] for part in parts if name in part]
            return np.concatenate(found) if found else _none()

        return Subject(
            features=rows("features"),
            pixels=rows("pixels"),
            points=rows("points"),
            predicted=rows("predicted"),
            labels=labels,
        )

    def _reduce(
        self, what: str, batches: Iterator[Tensor], reducers: dict[str, Reducer]
    ) -> dict[str, npt.NDArray[Any]]:
        """Each reducer's rows of all images; empty where there are no images or reducers."""
        parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in reducers}
        num, last = 0, time.monotonic()
        for images in batches if reducers else ():
            for name, reducer in reducers.items():
                rows = reducer(images)
                _require_finite(name, rows, what)
                parts[name].append(rows)
            num += len(images)
            if time.monotonic() - last > _REPORT_INTERVAL_S:
                last = time.monotonic()
                self.say(f"{what}: {num:,} done")
        return {name: np.concatenate(rows) for name, rows in parts.items() if rows}

    def _real(self, index: npt.NDArray[np.int64]) -> Iterator[Tensor]:
        images = self.image_set.images
        for start in range(0, len(index), BATCH_SIZE):
            yield images[torch.from_numpy(index[start : start + BATCH_SIZE]).to(images.device)]

    def _made(self, sampler: Sampler, start: int, stop: int) -> Iterator[Tensor]:
        for first in range(start, stop, BATCH_SIZE):
            images = sampler(self.seeds(first, min(first + BATCH_SIZE, stop)))
            yield torch.from_numpy(images).permute(0, 3, 1, 2)

    def _noise(self, start: int, stop: int) -> Iterator[Tensor]:
        shape = self.image_set.images.shape[1:]
        for first in range(start, stop, BATCH_SIZE):
            rng = np.random.default_rng((self.seed, _NOISE_STREAM, first))
            size = (min(BATCH_SIZE, stop - first), *shape)
            yield torch.from_numpy(rng.integers(256, size=size, dtype=np.uint8))


def _require_finite(name: str, rows: npt.NDArray[Any], what: str) -> None:
    """Raises EvaluationError for a value that isn't finite.

    It is checked in every batch, since a NaN would spoil some figures and be invisible in others.
    """
    bad = ~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    if bad.any():
        raise EvaluationError(
            f"{name} of {bad.sum()} of {len(bad)} {what} are not finite; allowed: finite numbers; "
            "the network overflows on them, or expects pixels in another form: correct it, or take "
            "other --features"
        )


def _none() -> npt.NDArray[Any]:
    return np.empty(0, dtype=np.int64)
