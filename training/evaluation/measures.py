"""The registry of measures: functions from samples to one or more figures.

Every measure is computed three times by the same protocol: on generated images, on held-out real
ones (the floor: the best to expect) and on uniform noise (the ceiling). A new measure is one
function here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from training.evaluation.metrics.bootstrap import Estimate, Resampling, mean, two_sample
from training.evaluation.metrics.frechet import frechet_distance
from training.evaluation.metrics.kid import kernel_distance
from training.evaluation.metrics.manifold import NEAREST_K, manifold
from training.evaluation.metrics.memorisation import NEAR_QUANTILE, memorisation
from training.evaluation.metrics.modes import GOOD_SIGMAS, MIXTURES, modes, reverse_kl
from training.evaluation.metrics.vendi import vendi
from training.evaluation.samples import Samples, Subject

Better = Literal["higher", "lower"]
Compute = Callable[[Samples, Subject, Resampling], dict[str, Estimate]]
Needs = Literal["features", "pixels", "classes", "labels", "points"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """An entry of MEASURES."""

    figures: dict[str, Better]
    """Names of its figures, in order, and whether higher or lower is better."""
    needs: Needs
    """features: rows of features; pixels: small pixels, also of every training image; classes:
    data with labels; labels: also a model that takes labels; points: a mixture in the plane."""
    compute: Compute
    """The samples, the subject to measure and the resampling to an estimate for each figure."""
    about: str
    """One sentence for progress messages."""
    inception: dict[str, str]
    """Other names of figures where the features are Inception's: fid, kid."""
    protocol: dict[str, Any]
    """Entries that it adds to the protocol of its figures."""

    def figure_name(self, figure: str, features: str) -> str:
        """The name that a figure has with these features."""
        return self.inception.get(figure, figure) if features == "inception" else figure


MEASURES: dict[str, Measure] = {}


def measure(
    name: str,
    *,
    needs: Needs,
    inception: dict[str, str] | None = None,
    protocol: dict[str, Any] | None = None,
    **figures: Better,
) -> Callable[[Compute], Compute]:
    """Registers a function in MEASURES; its docstring's first line is the measure's sentence.

    Args:
        name: key in MEASURES.
        needs: what it needs of the samples, as `Measure.needs`.
        inception: figures that have another name with Inception's features.
        protocol: entries to add to the protocol.
        figures: its figures, each with the direction that is better.
    """

    def enter(compute: Compute) -> Compute:
        MEASURES[name] = Measure(
            figures=figures,
            needs=needs,
            compute=compute,
            about=(compute.__doc__ or "").splitlines()[0],
            inception=inception or {},
            protocol=protocol or {},
        )
        return compute

    return enter


@measure(
    "frechet",
    needs="features",
    inception={"frechet_distance": "fid"},
    frechet_distance="lower",
)
def _frechet(samples: Samples, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """Distance between Gaussians fitted to real and generated features (Heusel et al. 2017)."""
    return {"frechet_distance": frechet_distance(samples.real, subject.features, resampling)}


@measure(
    "kernel",
    needs="features",
    inception={"kernel_distance": "kid"},
    protocol={"kernel": "(x y / d + 1)^3, all pairs, unbiased"},
    kernel_distance="lower",
)
def _kernel(samples: Samples, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """Squared maximum mean discrepancy under a cubic kernel (Binkowski et al. 2018)."""
    return {"kernel_distance": kernel_distance(samples.real, subject.features, resampling)}


@measure(
    "manifold",
    needs="features",
    protocol={"nearest_k": NEAREST_K},  # by default: the plan's is what counts
    precision="higher",
    recall="higher",
    density="higher",
    coverage="higher",
)
def _manifold(samples: Samples, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """Overlap of neighbourhoods of features (Kynkaanniemi et al. 2019, Naeem et al. 2020)."""
    found = manifold(
        samples.real, subject.features, nearest_k=samples.nearest_k, resampling=resampling
    )
    return {name: getattr(found, name) for name in MEASURES["manifold"].figures}


@measure(
    "vendi",
    needs="features",
    protocol={"kernel": "cosine of features less the real mean"},
    vendi="higher",
)
def _vendi(samples: Samples, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """The effective number of different images (Friedman and Dieng 2023)."""
    return {"vendi": vendi(subject.features - samples.real.mean(axis=0), resampling)}


@measure(
    "memorisation",
    needs="pixels",
    protocol={"near": f"nearest {NEAR_QUANTILE:.0%} of held-out images"},
    memorised="lower",
    authenticity="higher",
)
def _memorisation(
    samples: Samples, subject: Subject, resampling: Resampling
) -> dict[str, Estimate]:
    """Distance to the nearest training image (authenticity: Alaa et al. 2022)."""
    # The floor's images are training images themselves: they are searched in the other half.
    first, second = (samples.train_pixels[half] for half in samples.halves)
    found = memorisation(
        train=first if subject is samples.floor else samples.train_pixels,
        held_out=second,
        against=first,
        fake=subject.pixels,
        resampling=resampling,
    )
    return {"memorised": found.memorised, "authenticity": found.authenticity}


@measure("modes", needs="classes", modes="higher", mode_reverse_kl="lower")
def _modes(samples: Samples, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """The number of classes that are generated, and how far their shares are from the data's."""
    num_classes = len(samples.label_counts)
    one_hot = np.eye(num_classes)[subject.predicted]

    def kl(_unused: Any, weights: Any) -> float:
        return reverse_kl(weights @ one_hot, samples.label_counts)

    return {
        "modes": Estimate(value=float((one_hot.sum(axis=0) > 0).sum())),
        "mode_reverse_kl": two_sample(kl, 1, len(one_hot), resampling, least=0.0),
    }


@measure("label_agreement", needs="labels", label_agreement="higher")
def _label_agreement(
    _samples: Samples, subject: Subject, resampling: Resampling
) -> dict[str, Estimate]:
    """Share of images that show the class requested (after Ravuri and Vinyals 2019)."""
    assert subject.labels is not None
    return {"label_agreement": mean(subject.predicted == subject.labels, resampling)}


@measure(
    "mixture",
    needs="points",
    protocol={"good": "within 3 sigma of the nearest centre"},
    gaussians="higher",
    good_points="higher",
    gaussians_reverse_kl="lower",
)
def _mixture(samples: Samples, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """Which Gaussians of a mixture are generated, and how well (Lin et al. 2018, sec. 4.1)."""
    mixture = MIXTURES[samples.name]
    found = modes(subject.points, mixture)
    distances = np.linalg.norm(subject.points[:, None] - mixture.centres, axis=2)
    good = distances.min(1) <= GOOD_SIGMAS * mixture.sigma
    one_hot = np.eye(len(mixture.centres))[distances.argmin(1)]

    def kl(_unused: Any, weights: Any) -> float:
        return reverse_kl(weights @ one_hot, np.ones(len(mixture.centres)))

    return {
        "gaussians": Estimate(value=float(found.caught)),
        "good_points": mean(good, resampling),
        "gaussians_reverse_kl": two_sample(kl, 1, len(one_hot), resampling, least=0.0),
    }


def figure_directions(features: str) -> dict[str, Better]:
    """Every figure's better direction, by the names that the figures have with these features."""
    return {
        entry.figure_name(name, features): better
        for entry in MEASURES.values()
        for name, better in entry.figures.items()
    }


ALL_FIGURES: dict[str, Better] = figure_directions("") | figure_directions("inception")
