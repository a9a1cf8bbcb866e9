"""The registry of measures: each a function of a stage and who stands on it, under its figures.

A measure is judged thrice by the same protocol: on generated images, on held-out real ones (its
floor: as good as it gets) and on uniform noise (its ceiling). Adding one is one entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from training.evaluation.frechet import frechet_distance
from training.evaluation.interval import Estimate, Resampling, mean, two_sample
from training.evaluation.kid import kernel_distance
from training.evaluation.manifold import NEAREST_K, manifold
from training.evaluation.memorisation import NEAR_QUANTILE, memorisation
from training.evaluation.modes import reverse_kl
from training.evaluation.stage import Stage, Subject
from training.evaluation.vendi import vendi

Better = Literal["higher", "lower"]
Compute = Callable[[Stage, Subject, Resampling], dict[str, Estimate]]
Needs = Literal["features", "pixels", "classes", "labels"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """An entry of MEASURES."""

    figures: dict[str, Better]
    """Its figures in order, with the direction that is better."""
    needs: Needs
    """features: of images; pixels: every training image; classes: data with labels; labels: a
    model that takes them too."""
    compute: Compute
    about: str
    inception: dict[str, str]
    """Figures that have another name where the features are Inception's."""
    protocol: dict[str, Any]
    """What is particular to it."""

    def shown(self, figure: str, features: str) -> str:
        """The name that one of its figures has with such features."""
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
    """Enters a function into MEASURES."""

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
def _frechet(stage: Stage, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """Distance of the Gaussians fitted to real and generated features (Heusel et al. 2017)."""
    return {"frechet_distance": frechet_distance(stage.real, subject.features, resampling)}


@measure(
    "kernel",
    needs="features",
    inception={"kernel_distance": "kid"},
    protocol={"kernel": "(x y / d + 1)^3, all pairs, unbiased"},
    kernel_distance="lower",
)
def _kernel(stage: Stage, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """Squared maximum mean discrepancy under a cubic kernel (Binkowski et al. 2018)."""
    return {"kernel_distance": kernel_distance(stage.real, subject.features, resampling)}


@measure(
    "manifold",
    needs="features",
    protocol={"nearest_k": NEAREST_K},
    precision="higher",
    recall="higher",
    density="higher",
    coverage="higher",
)
def _manifold(stage: Stage, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """Who lies in whose neighbourhood (Kynkaanniemi et al. 2019, Naeem et al. 2020)."""
    found = manifold(stage.real, subject.features, resampling=resampling)
    return {name: getattr(found, name) for name in MEASURES["manifold"].figures}


@measure(
    "vendi",
    needs="features",
    protocol={"kernel": "cosine of features less the real mean"},
    vendi="higher",
)
def _vendi(stage: Stage, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """How many different images there effectively are (Friedman and Dieng 2023)."""
    return {"vendi": vendi(subject.features - stage.real.mean(axis=0), resampling)}


@measure(
    "memorisation",
    needs="pixels",
    protocol={"near": f"nearest {NEAR_QUANTILE:.0%} of held-out images"},
    memorised="lower",
    authenticity="higher",
)
def _memorisation(stage: Stage, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """How near the nearest training image is (authenticity: Alaa et al. 2022)."""
    first, second = (stage.train_pixels[half] for half in stage.halves)
    found = memorisation(
        train=first if subject is stage.floor else stage.train_pixels,
        held_out=second,
        against=first,
        fake=subject.pixels,
        resampling=resampling,
    )
    return {"memorised": found.memorised, "authenticity": found.authenticity}


@measure("modes", needs="classes", modes="higher", mode_reverse_kl="lower")
def _modes(stage: Stage, subject: Subject, resampling: Resampling) -> dict[str, Estimate]:
    """Classes that are made at all, and how far their shares are from the data's."""
    num_classes = len(stage.label_counts)
    one_hot = np.eye(num_classes)[subject.recognised]

    def kl(_unused: Any, weights: Any) -> float:
        return reverse_kl(weights @ one_hot, stage.label_counts)

    return {
        "modes": Estimate(value=float((one_hot.sum(axis=0) > 0).sum())),
        "mode_reverse_kl": two_sample(kl, 1, len(one_hot), resampling, least=0.0),
    }


@measure("label_agreement", needs="labels", label_agreement="higher")
def _label_agreement(
    _stage: Stage, subject: Subject, resampling: Resampling
) -> dict[str, Estimate]:
    """How often an image shows the class that was asked for (after Ravuri and Vinyals 2019)."""
    assert subject.labels is not None
    return {"label_agreement": mean(subject.recognised == subject.labels, resampling)}


def directions(features: str) -> dict[str, Better]:
    """Every figure's better direction, by the names that figures have with such features."""
    return {
        entry.shown(name, features): better
        for entry in MEASURES.values()
        for name, better in entry.figures.items()
    }


ALL_FIGURES: dict[str, Better] = directions("") | directions("inception")
