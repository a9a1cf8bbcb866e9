"""Runs an evaluation: computes every planned figure of a generator, with its protocol."""

import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from models.bundle.generator import CpuGenerator, Sampler
from models.bundle.manifest import Metric
from models.errors import ModelError
from training.data import ImageSet
from training.errors import EvaluationError
from training.evaluation.features.base import Extractor, Say, Source, silent
from training.evaluation.features.svm import SvmClassifier
from training.evaluation.measures import Measure
from training.evaluation.metrics.bootstrap import LEVEL, Estimate, Resampling
from training.evaluation.metrics.frechet import check_rank
from training.evaluation.metrics.memorisation import SIDE
from training.evaluation.plan import FEATURES, QUICK, WHOLE, Plan, ResolvedPlan, resolve
from training.evaluation.samples import SampleBuilder, Samples, Subject

# Entries of a protocol that are results. Figures are comparable where all other entries are equal.
RESULTS = (
    *("interval", "resamples", "floor", "ceiling", "held_out_accuracy", "held_out_n"),
    *("near_steps", "duplicates", "floor_n"),
)
_FEW_RESAMPLES = 20  # for figures of which one resample takes a second
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
    """Measures the figures that the plan names, or all that fit the model and the data.

    Args:
        model_path: model.onnx, run on the CPU as the golden images are.
        z_dim: width of its latent.
        image_set: real images of the model's size.
        plan: what to measure, and on how many images.
        num_classes: classes of the model, 0 where it takes no label; by default the data's.
        labels: names of the model's classes; by default the data's.
        say: called with progress messages.

    Returns:
        The metrics, each with its interval, floor and ceiling; the same for the same arguments.

    Raises:
        ConfigError: the plan names a figure that can't be measured.
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
    return evaluate_sampler(
        sampler, image_set, plan, num_classes=num_classes, labels=labels, say=say
    )


def evaluate_sampler(
    sampler: Sampler,
    image_set: ImageSet,
    plan: Plan,
    *,
    num_classes: int,
    labels: Sequence[str] | None = None,
    say: Say = silent,
) -> tuple[Metric, ...]:
    """Measures the figures of any sampler; otherwise as `evaluate`."""
    resolved = resolve(plan, image_set, num_classes=num_classes, labels=labels)
    if not resolved.measures:
        return ()
    with _threads(resolved):
        builder = builder_of(resolved, image_set, num_classes=num_classes, say=say)
        samples, generated = builder.build(sampler), builder.generated(sampler)
        return tuple(
            metric
            for key, entry in resolved.measures.items()
            for metric in _measured(key, entry, samples, generated, builder, resolved)
        )


def protocols(
    resolved: ResolvedPlan,
    image_set: ImageSet,
    figures: Collection[str],
    *,
    num_classes: int,
    say: Say = silent,
) -> dict[str, dict[str, Any]]:
    """The protocols of figures before they are measured, without results.

    Makes the feature extractor, since the digest of a trained one is part of the protocol, but no
    images.

    Args:
        resolved: the plan, which measures these figures.
        image_set: real images.
        figures: names of the figures.
        num_classes: classes of the model, 0 where it takes no label.
        say: called with progress messages.

    Raises:
        ConfigError, EvaluationError: the features can't be used.
    """
    wanted = {
        name: (key, entry)
        for key, entry in resolved.measures.items()
        for own in entry.figures
        if (name := entry.figure_name(own, resolved.features)) in figures
    }
    needed = dataclasses.replace(resolved, measures=dict(wanted.values()))
    with _threads(resolved):
        builder = builder_of(needed, image_set, num_classes=num_classes, say=say)
    return {figure: _protocol(entry, builder) for figure, (_, entry) in wanted.items()}


def _threads(resolved: ResolvedPlan) -> contextlib.AbstractContextManager[None]:
    few = (FEATURES[resolved.features].num_features or _MANY_FEATURES) < _MANY_FEATURES
    return _one_thread() if few else contextlib.nullcontext()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Within the block torch and BLAS use one thread.

    Small networks and matrices are slower with two, most of all on a busy machine. It also makes a
    trained classifier independent of the number of threads.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(num_threads)


def builder_of(
    resolved: ResolvedPlan, image_set: ImageSet, *, num_classes: int, say: Say = silent
) -> SampleBuilder:
    """The builder of a plan's samples, with the features and the classifier that it needs.

    Arguments and errors are those of `protocols`.
    """
    extractor = _extractor(resolved, image_set, say) if "features" in resolved.needs else None
    svm = SvmClassifier.fit(image_set) if resolved.needs & {"classes", "labels"} else None
    return SampleBuilder(
        num_classes=num_classes,
        image_set=image_set,
        num_images=resolved.num_images,
        whole_data=resolved.plan.whole_data,
        nearest_k=resolved.plan.nearest_k,
        seed=resolved.plan.seed,
        extractor=extractor,
        svm=svm,
        wants_pixels="pixels" in resolved.needs,
        wants_points="points" in resolved.needs,
        say=say,
    )


def _extractor(resolved: ResolvedPlan, image_set: ImageSet, say: Say) -> Extractor:
    plan = resolved.plan
    source = Source(
        image_set=image_set, weights=plan.weights, cache=plan.cache, device=plan.device, say=say
    )
    extractor = FEATURES[resolved.features].make(source)
    if "frechet" in resolved.measures:  # the plan didn't know how many features a file gives
        check_rank(resolved.figures[0], resolved.num_images, extractor.num_features)
    return extractor


def _measured(
    key: str,
    entry: Measure,
    samples: Samples,
    generated: Subject,
    builder: SampleBuilder,
    resolved: ResolvedPlan,
) -> list[Metric]:
    """The figures of one measure, on generated images, on the floor and on the ceiling."""
    builder.say(f"{key}: {entry.about}")
    resampling = Resampling(
        num=_num_resamples(key, builder, resolved.plan), seed=resolved.plan.seed
    )
    found = entry.compute(samples, generated, resampling)
    halves = dataclasses.replace(samples, real=samples.real_half)
    floor = entry.compute(halves, samples.floor, Resampling())
    ceiling = entry.compute(samples, samples.ceiling, Resampling())
    metrics = []
    for name, estimate in found.items():
        figure = entry.figure_name(name, resolved.features)
        if figure not in resolved.figures:
            continue
        results = _results(estimate, resampling, floor[name], ceiling[name])
        if not math.isfinite(estimate.value):
            raise EvaluationError(
                f"{figure} is {estimate.value}, which is not finite; take other --features, or "
                "leave it out with --measures"
            )
        protocol = _protocol(entry, builder) | _held_out(entry, builder) | results
        if builder.whole_data and "reference_n" in protocol:
            protocol["floor_n"] = builder.num_half  # the floor has fewer images, and is higher
        metrics.append(Metric(name=figure, value=_round(estimate.value), protocol=protocol))
    return metrics


def _num_resamples(key: str, builder: SampleBuilder, plan: Plan) -> int:
    num_features = 0 if builder.extractor is None else builder.extractor.num_features
    slow = key in ("frechet", "vendi") and num_features > _MANY_FEATURES
    return min(plan.num_resamples, _FEW_RESAMPLES) if slow else plan.num_resamples


def _protocol(entry: Measure, builder: SampleBuilder) -> dict[str, Any]:
    """Everything that the figure depends on; comparable figures have equal protocols."""
    data, svm = builder.image_set, builder.svm
    of_classes = entry.needs in ("classes", "labels")
    num = builder.num_class_images if of_classes else builder.num_images
    first = builder.first_seed
    seeds = f"{first}..{first + num - 1}"
    if builder.num_classes:
        seeds += f", label seed % {builder.num_classes}"
    protocol: dict[str, Any] = {"n": num, "seeds": seeds}
    if of_classes and svm is not None:
        protocol["features"] = svm.description
    elif entry.needs == "points":
        protocol["features"] = "coordinates, rounded to bytes"
    elif entry.needs == "pixels":
        protocol["features"] = f"pixels averaged to {SIDE}x{SIDE}"
        protocol["reference_n"] = len(data)
    elif builder.extractor is not None:
        protocol["features"] = builder.extractor.description
        protocol["reference_n"] = builder.num_reference
        if builder.whole_data:
            protocol["reference"] = WHOLE
    protocol["data"] = f"{data.name}, sha256 {data.content[:16]}, split {builder.seed}"
    protocol |= entry.protocol
    if "nearest_k" in protocol:
        protocol["nearest_k"] = builder.nearest_k
    return protocol


def _held_out(entry: Measure, builder: SampleBuilder) -> dict[str, Any]:
    """The accuracy of the SVM that class figures depend on; empty for other figures."""
    svm = builder.svm
    if entry.needs not in ("classes", "labels") or svm is None:
        return {}
    accuracy = (svm.predicted == svm.held_out).mean()
    return {"held_out_accuracy": _round(float(accuracy)), "held_out_n": len(svm.held_out)}


def _results(
    estimate: Estimate, resampling: Resampling, floor: Estimate, ceiling: Estimate
) -> dict[str, Any]:
    results: dict[str, Any] = dict(estimate.details)
    results |= {"floor": _round(floor.value), "ceiling": _round(ceiling.value)}
    if estimate.interval is not None:
        results["interval"] = [_round(bound) for bound in estimate.interval]
        results["resamples"] = f"{resampling.num}, {LEVEL:.0%}"
    return results


def _round(value: float) -> float:
    """Rounds to six digits: further digits differ between processors."""
    return float(f"{value:.6g}")
