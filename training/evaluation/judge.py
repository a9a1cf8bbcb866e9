"""The evaluation itself: a schedule carried out on an ONNX file, as metrics with their protocol."""

import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from models.errors import ModelError
from models.generator import CpuGenerator, Sampler
from models.manifest import Metric
from training.data import ImageSet
from training.errors import EvaluationError
from training.evaluation.features import Extractor, Say, Source, silent
from training.evaluation.frechet import check_rank
from training.evaluation.interval import LEVEL, Estimate, Resampling
from training.evaluation.measures import Measure
from training.evaluation.memorisation import SIDE
from training.evaluation.plan import FEATURES, QUICK, Plan, Schedule, resolve
from training.evaluation.recogniser import Recogniser
from training.evaluation.stage import Setting, Stage

# Parts of a protocol that are results themselves: two figures with the rest alike are comparable.
RESULTS = (
    *("interval", "resamples", "floor", "ceiling", "held_out_accuracy", "held_out_n"),
    *("near_steps", "duplicates"),
)
_FEW_RESAMPLES = 20  # where a resample takes a second
_MANY_FEATURES = 512


def evaluate(
    model_path: Path,
    z_dim: int,
    image_set: ImageSet,
    plan: Plan = QUICK,
    *,
    num_classes: int | None = None,
    labels: Sequence[str] | None = None,
    say: Say = silent,
) -> tuple[Metric, ...]:
    """Every figure that was asked for, or that fits.

    Args:
        model_path: model.onnx, run on the CPU as the golden images are.
        z_dim: width of its latent.
        image_set: real images of its size.
        plan: what to measure, and on how many images.
        num_classes: of the model; the data's where not given, 0 where it takes no label.
        labels: names of the model's classes; the data's where not given.
        say: told how far it is.

    Returns:
        The metrics, each with its interval, floor and ceiling; the same for the same arguments.

    Raises:
        ConfigError: the plan asks for what can't be measured.
        EvaluationError: the model or the features' weights can't be used, or features or figures
            are not finite.
    """
    if num_classes is None:
        num_classes = image_set.shape.num_classes
    try:
        generate = CpuGenerator(model_path)
    except ModelError as error:
        raise EvaluationError(str(error)) from error
    sampler = Sampler(generate, z_dim=z_dim, num_classes=num_classes)
    return assess(sampler, image_set, plan, num_classes=num_classes, labels=labels, say=say)


def assess(
    sampler: Sampler,
    image_set: ImageSet,
    plan: Plan,
    *,
    num_classes: int,
    labels: Sequence[str] | None = None,
    say: Say = silent,
) -> tuple[Metric, ...]:
    """The same for images from anywhere."""
    schedule = resolve(plan, image_set, num_classes=num_classes, labels=labels)
    if not schedule.measures:
        return ()
    with _threads(schedule):
        setting = _setting(schedule, image_set, num_classes=num_classes, say=say)
        stage = setting.build(sampler)
        return tuple(
            metric
            for key, entry in schedule.measures.items()
            for metric in _judged(key, entry, stage, setting, schedule)
        )


def protocols(
    schedule: Schedule,
    image_set: ImageSet,
    figures: Collection[str],
    *,
    num_classes: int,
    say: Say = silent,
) -> dict[str, dict[str, Any]]:
    """What the protocols of such figures are going to say, but for their results.

    Makes the features, as only then a trained network's digest is known, and no image.

    Raises:
        ConfigError, EvaluationError: as `evaluate`, of the features.
    """
    wanted = {
        shown: (key, entry)
        for key, entry in schedule.measures.items()
        for own in entry.figures
        if (shown := entry.shown(own, schedule.features)) in figures
    }
    needed = dataclasses.replace(schedule, measures=dict(wanted.values()))
    with _threads(schedule):
        setting = _setting(needed, image_set, num_classes=num_classes, say=say)
    return {figure: _protocol(entry, setting) for figure, (_, entry) in wanted.items()}


def _threads(schedule: Schedule) -> contextlib.AbstractContextManager[None]:
    few = (FEATURES[schedule.features].num_features or _MANY_FEATURES) < _MANY_FEATURES
    return _one_thread() if few else contextlib.nullcontext()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Of torch and BLAS: small networks and matrices lose by a second one, most on a busy machine.

    It also makes a trained classifier independent of how many there are.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(num_threads)


def _setting(schedule: Schedule, image_set: ImageSet, *, num_classes: int, say: Say) -> Setting:
    extractor = _extractor(schedule, image_set, say) if "features" in schedule.needs else None
    recogniser = Recogniser.fit(image_set) if schedule.needs & {"classes", "labels"} else None
    return Setting(
        num_classes=num_classes,
        image_set=image_set,
        num_images=schedule.num_images,
        seed=schedule.plan.seed,
        extractor=extractor,
        recogniser=recogniser,
        wants_pixels="pixels" in schedule.needs,
        say=say,
    )


def _extractor(schedule: Schedule, image_set: ImageSet, say: Say) -> Extractor:
    plan = schedule.plan
    source = Source(
        image_set=image_set, weights=plan.weights, cache=plan.cache, device=plan.device, say=say
    )
    extractor = FEATURES[schedule.features].make(source)
    if "frechet" in schedule.measures:  # again: only now a file's number of features is known
        check_rank(schedule.figures[0], schedule.num_images, extractor.num_features)
    return extractor


def _judged(
    key: str, entry: Measure, stage: Stage, setting: Setting, schedule: Schedule
) -> list[Metric]:
    """One measure on all three subjects."""
    setting.say(f"{key}: {entry.about}")
    resampling = Resampling(
        num=_num_resamples(key, setting, schedule.plan), seed=schedule.plan.seed
    )
    found = entry.compute(stage, stage.generated, resampling)
    floor = entry.compute(stage, stage.floor, Resampling())
    ceiling = entry.compute(stage, stage.ceiling, Resampling())
    metrics = []
    for name, estimate in found.items():
        shown = entry.shown(name, schedule.features)
        if shown not in schedule.figures:
            continue
        results = _results(estimate, resampling, floor[name], ceiling[name])
        if not math.isfinite(estimate.value):
            raise EvaluationError(
                f"{shown} is {estimate.value}: no figure to judge by; take other --features, or "
                "leave it out with --measures"
            )
        protocol = _protocol(entry, setting) | _held_out(entry, setting) | results
        metrics.append(Metric(name=shown, value=_round(estimate.value), protocol=protocol))
    return metrics


def _num_resamples(key: str, setting: Setting, plan: Plan) -> int:
    num_features = 0 if setting.extractor is None else setting.extractor.num_features
    slow = key in ("frechet", "vendi") and num_features > _MANY_FEATURES
    return min(plan.num_resamples, _FEW_RESAMPLES) if slow else plan.num_resamples


def _protocol(entry: Measure, setting: Setting) -> dict[str, Any]:
    """All that the figure depends on, and that a comparable one must share."""
    data, recogniser = setting.image_set, setting.recogniser
    of_classes = entry.needs in ("classes", "labels")
    num = setting.num_class_images if of_classes else setting.num_images
    first = setting.first_seed
    seeds = f"{first}..{first + num - 1}"
    if setting.num_classes:
        seeds += f", label seed % {setting.num_classes}"
    protocol: dict[str, Any] = {"n": num, "seeds": seeds}
    if of_classes and recogniser is not None:
        protocol["features"] = recogniser.description
    elif entry.needs == "pixels":
        protocol["features"] = f"pixels averaged to {SIDE}x{SIDE}"
        protocol["reference_n"] = len(data)
    elif setting.extractor is not None:
        protocol["features"] = setting.extractor.description
        protocol["reference_n"] = setting.num_images
    protocol["data"] = f"{data.name}, sha256 {data.content[:16]}, split {setting.seed}"
    return protocol | entry.protocol


def _held_out(entry: Measure, setting: Setting) -> dict[str, Any]:
    """How well the recogniser that class figures rest on does itself."""
    recogniser = setting.recogniser
    if entry.needs not in ("classes", "labels") or recogniser is None:
        return {}
    accuracy = (recogniser.recognised == recogniser.held_out).mean()
    return {"held_out_accuracy": _round(float(accuracy)), "held_out_n": len(recogniser.held_out)}


def _results(
    estimate: Estimate, resampling: Resampling, floor: Estimate, ceiling: Estimate
) -> dict[str, Any]:
    results: dict[str, Any] = dict(estimate.told)
    results |= {"floor": _round(floor.value), "ceiling": _round(ceiling.value)}
    if estimate.interval is not None:
        results["interval"] = [_round(bound) for bound in estimate.interval]
        results["resamples"] = f"{resampling.num}, {LEVEL:.0%}"
    return results


def _round(value: float) -> float:
    """To six digits: what lies beyond differs between processors."""
    return float(f"{value:.6g}")
