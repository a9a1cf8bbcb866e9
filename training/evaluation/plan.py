"""What to measure, with which features, on how many images: asked for, and then resolved.

Everything that can be refused is refused here, before a network is trained or an image is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data import ImageSet
from training.errors import ConfigError
from training.evaluation.classifier import NUM_FEATURES, classifier_features
from training.evaluation.features import NUM_RANDOM_FEATURES, Extractor, Source, random_features
from training.evaluation.manifold import NEAREST_K
from training.evaluation.measures import ALL_FIGURES, MEASURES, Measure, directions
from training.evaluation.pretrained import INCEPTION_FEATURES, inception_features, onnx_features
from training.evaluation.recogniser import Recogniser

AUTO = "auto"
_NUM_NAMED = 12  # classes in a message
_LEAST = 10  # images of each kind, for any figure of features


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An entry of FEATURES."""

    make: Callable[[Source], Extractor]
    needs_weights: bool = False
    needs_labels: bool = False
    num_features: int | None = None
    """None where the weights' file tells."""


FEATURES: dict[str, Kind] = {
    "classifier": Kind(make=classifier_features, needs_labels=True, num_features=NUM_FEATURES),
    "random": Kind(make=random_features, num_features=NUM_RANDOM_FEATURES),
    "inception": Kind(make=inception_features, needs_weights=True, num_features=INCEPTION_FEATURES),
    "onnx": Kind(make=onnx_features, needs_weights=True),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked for."""

    features: str = AUTO
    """Entry of FEATURES; auto: classifier where the data has classes, else random."""
    weights: Path | None = None
    """File of the features inception and onnx."""
    cache: Path | None = None
    """Folder that keeps trained classifiers."""
    num_images: int | None = None
    """Images to compare; by default all there are, max_images at most."""
    max_images: int = 10_000
    figures: tuple[str, ...] = ()
    """Figures to measure; none named: every one that fits the model and the data."""
    seed: int = 0
    """Of the images made and of the choice of real ones."""
    num_resamples: int = 200
    device: str = "cpu"
    """Where features are computed."""
    lenient: bool = False
    """Leave out what there are too few images for, rather than to refuse."""


QUICK = Plan(features="random", max_images=1000, num_resamples=100, lenient=True)
FULL = Plan(lenient=True)
PLANS: dict[str, Plan | None] = {"quick": QUICK, "full": FULL, "none": None}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What will be measured."""

    plan: Plan
    features: str
    num_images: int
    measures: dict[str, Measure]
    figures: tuple[str, ...]
    """By the names that they have with these features."""

    @property
    def needs(self) -> set[str]:
        """What of the stage the measures look at."""
        return {entry.needs for entry in self.measures.values()}


def resolve(
    plan: Plan, image_set: ImageSet, *, num_classes: int, labels: Sequence[str] | None = None
) -> Schedule:
    """Decides, or refuses.

    Args:
        plan: what is asked for.
        image_set: the real images.
        num_classes: of the model; 0 where it takes no label.
        labels: names of its classes; the data's where not given.

    Raises:
        ConfigError: it asks for what is unknown, contradicts itself, or the data can't give it.
    """
    if not 0 <= plan.seed < 2**31:
        raise ConfigError(f"seed is {plan.seed}, allowed: 0 .. 2**31 - 1; set --seed")
    features = _features(plan, image_set)
    num_images = _num_images(plan, image_set)
    names = directions(features)
    for figure in plan.figures:
        _check_known(figure, features, list(names))
    measures, figures = {}, []
    for key, entry in MEASURES.items():
        wanted = [
            name
            for name in (entry.shown(own, features) for own in entry.figures)
            if name in plan.figures or not plan.figures
        ]
        if not wanted:
            continue
        if entry.needs == "labels" and labels and image_set.label_names:
            _check_labels(wanted, labels, image_set.label_names)
        reason = _unfit(entry, image_set, num_classes)
        if reason and plan.figures:
            raise ConfigError(f"measures names {', '.join(wanted)}: {reason}; leave it out")
        few = "" if entry.needs in ("classes", "labels") else _too_few(key, features, num_images)
        if few and not reason and not plan.lenient:
            raise ConfigError(
                f"num_images is {num_images}, allowed for {', '.join(wanted)}: {few}; take more "
                "images, or other --features, or leave it out with --measures"
            )
        if reason or few:
            continue
        measures[key] = entry
        figures += wanted
    return Schedule(
        plan=plan,
        features=features,
        num_images=num_images,
        measures=measures,
        figures=tuple(figures),
    )


def _features(plan: Plan, image_set: ImageSet) -> str:
    name = plan.features
    has_classes = Recogniser.possible(image_set)
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
    if plan.num_images is None:
        return min(plan.max_images, half)
    if not 2 <= plan.num_images <= half:
        raise ConfigError(
            f"num_images is {plan.num_images}, allowed: 2 .. {half}, half of the "
            f"{len(image_set)} real images: the other half gives the floor; set --num-images"
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


def _unfit(entry: Measure, image_set: ImageSet, num_classes: int) -> str:
    """Why the data or the model can't give it; empty where they can."""
    if entry.needs not in ("classes", "labels"):
        return ""
    if not Recogniser.possible(image_set):
        return f"the data {image_set.name!r} has no labels of two classes or more"
    if entry.needs == "labels" and num_classes != image_set.shape.num_classes:
        takes = f"{num_classes} classes" if num_classes else "no labels"
        return f"the model takes {takes}, the data has {image_set.shape.num_classes} classes"
    return ""


def _check_labels(wanted: list[str], labels: Sequence[str], names: Sequence[str]) -> None:
    """Raises ConfigError where a label means one class to the model and another in the data.

    As many classes are not the same classes: figures would be wrong, and look right.
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


def _too_few(key: str, features: str, num_images: int) -> str:
    """How many images a measure of features takes; empty where there are enough."""
    num_features = FEATURES[features].num_features or 0
    if key == "frechet" and num_images <= num_features:
        return f"more than the {num_features} features, or their covariance has not full rank"
    least = NEAREST_K + 1 if key == "manifold" else _LEAST
    return "" if num_images >= least else f"{least} or more"
