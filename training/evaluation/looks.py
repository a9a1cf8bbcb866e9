"""Quick figures of a generator while it is trained: looks.

The features, the real images and the measures are those of the quick evaluation. Real images and
noise are reduced to features once; a look makes the generated images alone, always of the same
seeds, so that two looks differ by the generator and not by chance. A look draws no random number of
torch.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import torch
from threadpoolctl import threadpool_limits

from models.bundle.generator import Images, Sampler
from training.data import ImageSet
from training.evaluation.evaluator import builder_of
from training.evaluation.measures import ALL_FIGURES
from training.evaluation.metrics.bootstrap import Resampling
from training.evaluation.plan import QUICK, is_mixture, resolve
from training.evaluation.samples import BATCH_SIZE, Samples, Subject

FIGURES = ("frechet_distance", "kernel_distance", "precision", "recall", "coverage")
HEADLINE = "frechet_distance"
OF_POINTS = ("good_points", "gaussians", "gaussians_reverse_kl")
"""The same of points of the plane."""
_PLAN = dataclasses.replace(QUICK, figures=FIGURES, num_resamples=0)

Figures = dict[str, float]


class Looker:
    """Measures a generator's images against one set of real ones."""

    def __init__(self, image_set: ImageSet) -> None:
        """image_set: on any device; features are computed on the CPU, as in the evaluation."""
        num_classes = image_set.shape.num_classes
        is_points = is_mixture(image_set)
        plan = dataclasses.replace(_PLAN, figures=OF_POINTS) if is_points else _PLAN
        self._resolved = resolve(plan, image_set, num_classes=num_classes)
        self._image_set = image_set
        self._builder = builder_of(self._resolved, image_set, num_classes=num_classes)
        self._samples: Samples | None = None
        self.floor: Figures = {}
        """Figures of held-out real images; empty until prepared."""
        self.ceiling: Figures = {}
        """Figures of noise; empty until prepared."""

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures that a look has; none where there are too few real images."""
        return self._resolved.figures

    @property
    def num_images(self) -> int:
        """Images of each kind that a look compares."""
        return self._resolved.num_images

    def prepare(self, sampler: Sampler) -> float:
        """Measures the floor and the ceiling, which takes longer than a look does.

        Returns:
            Seconds that a look is going to take, from one batch of images.
        """
        with self._undisturbed():
            if self._samples is None:
                self._samples = self._builder.build(sampler)
                self.floor = self._measured(self._samples.floor)
            start = time.monotonic()
            self.ceiling = self._measured(self._samples.ceiling)
            measured_s = time.monotonic() - start
            seeds = self._builder.seeds(0, min(BATCH_SIZE, self.num_images))
            sampler(seeds)  # the first batch of a size takes longer
            start = time.monotonic()
            self._features(sampler(seeds))
            return measured_s + (time.monotonic() - start) * self.num_images / len(seeds)

    def look(self, sampler: Sampler) -> Figures:
        """Measures a generator: each figure by its name.

        Raises:
            EvaluationError: a feature of an image is not finite.
        """
        if self._samples is None:
            self.prepare(sampler)
        with self._undisturbed():
            return self._measured(self._builder.generated(sampler))

    def _features(self, images: Images) -> None:
        for reducer in self._builder.reducers.values():
            reducer(torch.from_numpy(images).permute(0, 3, 1, 2))

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Within the block BLAS uses one thread, and torch's random state stays what it is."""
        device = self._image_set.device
        devices = [device] if device.type == "cuda" else []
        # Products this small are slower with two threads.
        with threadpool_limits(1, user_api="blas"), torch.random.fork_rng(devices=devices):
            yield

    def _measured(self, subject: Subject) -> Figures:
        assert self._samples is not None
        found = {
            name: estimate.value
            for entry in self._resolved.measures.values()
            for name, estimate in entry.compute(self._samples, subject, Resampling()).items()
        }
        return {name: float(f"{found[name]:.6g}") for name in self.figures}


def better(name: str, one: float, other: float) -> bool:
    """True where a figure's one value is better than the other."""
    return one > other if ALL_FIGURES[name] == "higher" else one < other
