"""Counts what each model did, from the metrics of all processes, for the v2 protocol."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from serving.api.schemas import V2Duration, V2ModelStats, V2Times
from serving.inference.frames import VersionKey
from serving.observability.exposition import summed
from serving.observability.shared_values import SharedMetrics

_OF_MODELS = ("rows_generated", "compute_seconds", "queue_wait_seconds")
_OF_PARTS = {"part_rows": "rows_generated", "part_compute_seconds": "compute_seconds"}


def statistics(
    shared: SharedMetrics,
    name: str | None,
    version: int | None = None,
    *,
    also: Iterable[VersionKey],
) -> list[V2ModelStats]:
    """Sums counts and times since the server started, by model and version.

    Two times are summed: how long the model ran, and how long the requests that got images waited
    for it. A part of a model, such as NAME:encoder, has counts and times of its own; what requests
    waited for it is counted with the model.

    Args:
        shared: the values of all processes.
        name: the model; None for all that made an image.
        version: the version; None for all.
        also: versions to list even if they made no image.
    """
    totals: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for loaded, number in also:
        totals[loaded, str(number)].clear()
    for sample, key, value in _samples(shared):
        if name in (None, key[0]) and str(version or key[1]) == key[1]:
            totals[key][sample] += value
    return [_entry(*key, values) for key, values in sorted(totals.items())]


def _samples(shared: SharedMetrics) -> Iterator[tuple[str, tuple[str, str], float]]:
    """Each sample's name, as it is of models, with the name and version that it is of."""
    families = summed(shared.entries())
    for metric in (*_OF_MODELS, *_OF_PARTS):
        if family := families.get(f"saddlepoint_{metric}"):
            for sample in family.samples:
                labels = sample.labels
                of = labels["model"] + (f":{labels['part']}" if "part" in labels else "")
                told = sample.name.removeprefix("saddlepoint_")
                told = told.replace(metric, _OF_PARTS.get(metric, metric), 1)
                yield told, (of, labels["version"]), sample.value


def _entry(name: str, version: str, values: dict[str, float]) -> V2ModelStats:
    num_rows = round(values["rows_generated_total"])
    num_runs = round(values["compute_seconds_count"])
    times = V2Times(
        queue=_duration(values, "queue_wait_seconds"),
        compute_infer=_duration(values, "compute_seconds"),
    )
    return V2ModelStats(name, version, num_rows, num_runs, times)


def _duration(values: dict[str, float], name: str) -> V2Duration:
    total_ns = round(values[f"{name}_sum"] * 1e9)
    return V2Duration(count=round(values[f"{name}_count"]), ns=total_ns)
