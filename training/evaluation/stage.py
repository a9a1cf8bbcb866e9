"""What measures look at: real images, generated ones, held-out ones and noise, reduced to rows.

Images pass by once, a batch at a time, and only their features, small pixels and recognised classes
stay: memory does not grow with their size. Knows no measure.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.generator import Sampler
from training.data import ImageSet
from training.errors import EvaluationError
from training.evaluation.features import Extractor, Rows, Say
from training.evaluation.memorisation import pixels
from training.evaluation.recogniser import Labels, Recogniser

BATCH_SIZE = 64
CLASS_IMAGES = 1000
_NOISE_STREAM = 3
_REPORT_INTERVAL_S = 5.0

Reducer = Callable[[Tensor], npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """Images to judge, as rows; empty what no measure asked for."""

    features: Rows
    """[n, d]."""
    pixels: Rows
    """[n, C * 256]."""
    recognised: Labels
    """Classes that they show, [m]."""
    labels: Labels | None
    """Classes that were asked for, [m]; None where the model takes none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """All that measures need."""

    real: Rows
    """Features of the reference, [n, d]."""
    train_pixels: Rows
    """Of every image of the data."""
    halves: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    """Which of the data are the reference and the held-out images of the floor."""
    label_counts: Labels
    """How many images each class of the data has, [K]; empty without classes."""
    generated: Subject
    floor: Subject
    ceiling: Subject


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """Where a stage is built from. extractor, recogniser: None where no measure needs them."""

    num_classes: int
    image_set: ImageSet
    num_images: int
    seed: int
    extractor: Extractor | None
    recogniser: Recogniser | None
    wants_pixels: bool
    say: Say
    reducers: dict[str, Reducer] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Collects what each image is reduced to."""
        if self.extractor is not None:
            self.reducers["features"] = self.extractor.run
        if self.wants_pixels:
            self.reducers["pixels"] = pixels
        if self.recogniser is not None:
            self.reducers["recognised"] = self.recogniser

    @property
    def num_class_images(self) -> int:
        """That class figures look at: enough for every class, whatever the reference has."""
        return max(CLASS_IMAGES, 10 * self.image_set.shape.num_classes)

    @property
    def first_seed(self) -> int:
        """Of the generated images: another seed of the plan gives others, none twice."""
        return self.seed * max(self.num_images, self.num_class_images)

    def seeds(self, start: int, stop: int) -> npt.NDArray[np.uint64]:
        """Of generated images number start to stop."""
        return np.arange(start, stop, dtype=np.uint64) + np.uint64(self.first_seed)

    def build(self, sampler: Sampler) -> Stage:
        """Makes, reduces and forgets all images.

        Raises:
            EvaluationError: a feature of some image is not finite.
        """
        num, image_set = self.num_images, self.image_set
        order = np.random.default_rng(self.seed).permutation(len(image_set))
        first, second = order[:num], order[num : 2 * num]
        of_features = {k: v for k, v in self.reducers.items() if k == "features"}
        of_pixels = {k: v for k, v in self.reducers.items() if k == "pixels"}
        everything = np.arange(len(image_set))
        train = self._reduce("training images", self._real(everything), of_pixels)
        real = self._reduce("real images", self._real(first), of_features)
        held_out = self._reduce("held-out real images", self._real(second), of_features)
        train_pixels = train.get("pixels", _none())
        counts = np.bincount(
            _none() if image_set.labels is None else image_set.labels.cpu().numpy(),
            minlength=image_set.shape.num_classes,
        )
        recogniser = self.recogniser
        num_class = self.num_class_images if recogniser else 0
        asked = sampler.labels(self.seeds(0, num_class))

        def generated(start: int, stop: int) -> Iterator[Tensor]:
            return self._made(sampler, start, stop)

        return Stage(
            real=real.get("features", _none()),
            train_pixels=train_pixels,
            halves=(first, second),
            label_counts=counts,
            generated=self._subject("generated images", generated, asked),
            floor=Subject(
                features=held_out.get("features", _none()),
                pixels=train_pixels[second] if len(train_pixels) else train_pixels,
                recognised=_none() if recogniser is None else recogniser.recognised,
                labels=None if recogniser is None else recogniser.held_out,
            ),
            ceiling=self._subject("noise", self._noise, asked),
        )

    def _subject(
        self, what: str, made: Callable[[int, int], Iterator[Tensor]], labels: Labels | None
    ) -> Subject:
        """Rows of images 0, 1, ...: so many for features and pixels, so many for classes."""
        num, num_class = self.num_images, self.num_class_images if self.recogniser else 0
        both = min(num, num_class)
        of_class = {k: v for k, v in self.reducers.items() if k == "recognised"}
        others = {k: v for k, v in self.reducers.items() if k != "recognised"}
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
            recognised=rows("recognised"),
            labels=labels,
        )

    def _reduce(
        self, what: str, batches: Iterator[Tensor], reducers: dict[str, Reducer]
    ) -> dict[str, npt.NDArray[Any]]:
        """Each reducer's rows of all images; none where there is nothing to do."""
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
    """At the first batch, not hours later: a NaN would spoil some figures and hide in others."""
    bad = ~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    if bad.any():
        raise EvaluationError(
            f"{name} of {bad.sum()} of {len(bad)} {what} are not finite; allowed: finite numbers; "
            "the network overflows on them, or takes pixels in another form: mend it, or take "
            "other --features"
        )


def _none() -> npt.NDArray[Any]:
    return np.empty(0, dtype=np.int64)
