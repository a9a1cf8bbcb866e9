"""The plan of an evaluation: which figures, with which features, on how many images.

A plan is resolved against the data and the model before a network is trained or an image is made,
and everything that can't be measured is refused then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data import ImageSet
from training.data.sources.mixtures import MIXTURES
from training.errors import ConfigError
from training.evaluation.features.base import (
    NUM_RANDOM_FEATURES,
    Extractor,
    Source,
    random_features,
)
from training.evaluation.features.classifier import NUM_FEATURES, classifier_features
from training.evaluation.features.pretrained import (
    INCEPTION_FEATURES,
    inception_features,
    onnx_features,
)
from training.evaluation.features.svm import SvmClassifier
from training.evaluation.measures import ALL_FIGURES, MEASURES, Measure, figure_directions
from training.evaluation.metrics.manifold import NEAREST_K
from training.evaluation.metrics.modes import NUM_SAMPLES

AUTO = "auto"
WHOLE = "all of the data"
"""What a protocol calls the reference of such an evaluation."""
PUBLISHED_IMAGES = 50_000
"""Generated images that most published FIDs are of."""
_NUM_NAMED = 12  # classes in a message
_LEAST = 10  # images of each kind, for any figure of features


@dataclass(frozen=True, kw_only=True)
class FeatureKind:
    """An entry of FEATURES."""

    make: Callable[[Source], Extractor]
    needs_weights: bool = False
    """True where a file of weights must be given."""
    needs_labels: bool = False
    """True where the data must have classes."""
    num_features: int | None = None
    """None where it depends on the file of weights."""


FEATURES: dict[str, FeatureKind] = {
    "classifier": FeatureKind(
        make=classifier_features, needs_labels=True, num_features=NUM_FEATURES
    ),
    "random": FeatureKind(make=random_features, num_features=NUM_RANDOM_FEATURES),
    "inception": FeatureKind(
        make=inception_features, needs_weights=True, num_features=INCEPTION_FEATURES
    ),
    "onnx": FeatureKind(make=onnx_features, needs_weights=True),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An evaluation as the user wants it."""

    features: str = AUTO
    """Entry of FEATURES; auto: classifier where the data has classes, else random."""
    weights: Path | None = None
    """File of weights for the features inception and onnx."""
    cache: Path | None = None
    """Folder that keeps trained classifiers; None trains one each time."""
    num_images: int | None = None
    """Images to compare; by default half of the data, max_images at most."""
    max_images: int = 10_000
    whole_data: bool = False
    """True compares with all real images, as published figures do, and not with a half; num_images
    is then 50,000 by default, and the floor is still of halves."""
    nearest_k: int = NEAREST_K
    """The neighbour that neighbourhoods of precision, recall, density and coverage reach to."""
    figures: tuple[str, ...] = ()
    """Figures to measure; empty for all that fit the model and the data."""
    seed: int = 0
    """Decides which images are generated and which real ones are chosen."""
    num_resamples: int = 200
    """Resamples for the intervals."""
    device: str = "cpu"
    """Device that computes features."""
    lenient: bool = False
    """True leaves out measures that have too few images; False refuses the plan."""


QUICK = Plan(features="random", max_images=1000, num_resamples=100, lenient=True)
FULL = Plan(lenient=True)
PLANS: dict[str, Plan | None] = {"quick": QUICK, "full": FULL, "none": None}


@dataclass(frozen=True, kw_only=True)
class ResolvedPlan:
    """A plan whose defaults are filled in for a model and its data."""

    plan: Plan
    features: str
    """Entry of FEATURES."""
    num_images: int
    measures: dict[str, Measure]
    """The entries of MEASURES to compute."""
    figures: tuple[str, ...]
    """The figures to report, by the names that they have with these features."""

    @property
    def needs(self) -> set[str]:
        """The kinds of samples that the measures need, as in `Measure.needs`."""
        return {entry.needs for entry in self.measures.values()}


def resolve(
    plan: Plan, image_set: ImageSet, *, num_classes: int, labels: Sequence[str] | None = None
) -> ResolvedPlan:
    """Fills in a plan's defaults and checks it against the model and the data.

    Args:
        plan: the evaluation to resolve.
        image_set: the real images.
        num_classes: classes of the model, 0 where it takes no label.
        labels: names of the model's classes; by default the data's.

    Raises:
        ConfigError: a name is unknown, options contradict each other, or the model or the data
            can't give a figure that is named.
    """
    if not 0 <= plan.seed < 2**31:
        raise ConfigError(f"seed is {plan.seed}, allowed: 0 .. 2**31 - 1; set --seed")
    if plan.nearest_k < 1:
        raise ConfigError(f"nearest_k is {plan.nearest_k}, allowed: 1 or more; set --nearest-k")
    features = _features(plan, image_set)
    num_images = _num_images(plan, image_set)
    names = figure_directions(features)
    for figure in plan.figures:
        _check_known(figure, features, list(names))
    measures, figures = {}, []
    for key, entry in MEASURES.items():
        wanted = [
            name
            for name in (entry.figure_name(own, features) for own in entry.figures)
            if name in plan.figures or not plan.figures
        ]
        if not wanted:
            continue
        if entry.needs == "labels" and labels and image_set.label_names:
            _check_labels(wanted, labels, image_set.label_names)
        reason = _unfit(entry, image_set, num_classes)
        if reason and plan.figures:
            raise ConfigError(f"measures names {', '.join(wanted)}: {reason}; leave it out")
        least = min(num_images, len(image_set) // 2)  # the floor has halves, however many are made
        exempt = entry.needs in ("classes", "labels", "points")
        few = "" if exempt else _too_few(key, features, least, plan)
        if few and not reason and not plan.lenient:
            raise ConfigError(
                f"num_images is {least}, allowed for {', '.join(wanted)}: {few}; take more "
                "images, or other --features, or leave it out with --measures"
            )
        if reason or few:
            continue
        measures[key] = entry
        figures += wanted
    return ResolvedPlan(
        plan=plan,
        features=features,
        num_images=num_images,
        measures=measures,
        figures=tuple(figures),
    )


def _features(plan: Plan, image_set: ImageSet) -> str:
    name = plan.features
    has_classes = SvmClassifier.possible(image_set)
    if name == AUTO:
        name = "classifier" if has_classes else "random"
    if name not in FEATURES:
        known = ", ".join([AUTO, *FEATURES])
        raise ConfigError(f"features is {name!r}, allowed: {known}; set --features")
    kind = FEATURES[name]
    if kind.needs_labels and not has_classes:
        raise ConfigError(
            f"features is {name!r}, but the data {image_set.name!r} ({len(image_set)} images) has "
            "no labels of two classes or more to train it on; take --features random"
        )
    _check_weights(name, plan.weights, needed=kind.needs_weights)
    return name


def _check_weights(name: str, weights: Path | None, *, needed: bool) -> None:
    if needed and weights is None:
        raise ConfigError(
            f"weights is not given, the features {name!r} need a file; set --weights PATH, or take "
            "--features classifier or random"
        )
    if needed and weights is not None and not weights.is_file():
        raise ConfigError(
            f"weights is {str(weights)!r}, allowed: a file that exists; nothing is downloaded: put "
            "it there, or take --features classifier or random"
        )
    if not needed and weights is not None:
        raise ConfigError(
            f"weights is {str(weights)!r}, but the features {name!r} read none; leave --weights "
            "out, or take --features inception or onnx"
        )


def _num_images(plan: Plan, image_set: ImageSet) -> int:
    half = len(image_set) // 2
    if plan.num_images is None and is_mixture(image_set):
        return NUM_SAMPLES
    if plan.whole_data:
        num = PUBLISHED_IMAGES if plan.num_images is None else plan.num_images
        if num < 2:
            raise ConfigError(f"num_images is {num}, allowed: 2 or more; set --num-images")
        return num
    if plan.num_images is None:
        return min(plan.max_images, half)
    if not 2 <= plan.num_images <= half:
        raise ConfigError(
            f"num_images is {plan.num_images}, allowed: 2 .. {half}, half of the "
            f"{len(image_set)} real images: the other half stands for new ones; set --num-images"
        )
    return plan.num_images


def _check_known(figure: str, features: str, known: list[str]) -> None:
    if figure in known:
        return
    reason = ""
    if figure in ALL_FIGURES:
        reason = " (the names fid and kid are for the features 'inception' alone, and theirs)"
    raise ConfigError(
        f"measures names {figure!r}, allowed with the features {features!r}: "
        f"{', '.join(known)}{reason}; set --measures"
    )


def is_mixture(image_set: ImageSet) -> bool:
    """True where the images are points of a mixture in the plane."""
    return image_set.name in MIXTURES


def _unfit(entry: Measure, image_set: ImageSet, num_classes: int) -> str:
    """Why the data or the model can't give the measure; empty where they can."""
    is_points = is_mixture(image_set)
    if is_points != (entry.needs == "points"):
        form = "points of the plane" if is_points else "images, and no mixture in the plane"
        return f"the data {image_set.name!r} has {form}"
    if entry.needs not in ("classes", "labels"):
        return ""
    if not SvmClassifier.possible(image_set):
        return f"the data {image_set.name!r} has no labels of two classes or more"
    if entry.needs == "labels" and num_classes != image_set.shape.num_classes:
        takes = f"{num_classes} classes" if num_classes else "no labels"
        return f"the model takes {takes}, the data has {image_set.shape.num_classes} classes"
    return ""


def _check_labels(wanted: list[str], labels: Sequence[str], names: Sequence[str]) -> None:
    """Raises ConfigError where the model's classes aren't the data's, in the same order.

    An equal number of classes isn't enough: the figures would be wrong and look right.
    """
    if tuple(labels) != tuple(names):
        raise ConfigError(
            f"measures names {', '.join(wanted)}, or all: the model's classes are "
            f"{_listed(labels)}, the data's {_listed(names)}; give data with the model's classes, "
            "or name figures without labels in --measures"
        )


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > _NUM_NAMED else ""
    return f"[{', '.join(map(repr, names[:_NUM_NAMED]))}{more}]"


def _too_few(key: str, features: str, num_images: int, plan: Plan) -> str:
    """The number of images that a measure of features needs; empty where there are enough."""
    num_features = FEATURES[features].num_features or 0
    if key == "frechet" and num_images <= num_features:
        return f"more than the {num_features} features, or their covariance has not full rank"
    least = plan.nearest_k + 1 if key == "manifold" else _LEAST
    return "" if num_images >= least else f"{least} or more"
