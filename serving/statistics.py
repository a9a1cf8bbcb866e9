"""What each model did so far, as the v2 protocol says it, out of all processes' metrics."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, multiprocess

from serving.tickets import VersionKey


def statistics(
    name: str | None, version: int | None = None, *, also: Iterable[VersionKey]
) -> list[dict[str, Any]]:
    """Counts and times of one model, or of all that made an image, by version.

    also: versions that are listed even if they made none.

    Times are those of the runs of the model, and those that requests which got images waited for
    one, since the server started.
    """
    totals: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for loaded, number in also:
        totals[loaded, str(number)].clear()
    for sample, labels, value in _samples():
        key = labels["model"], labels["version"]
        if name in (None, key[0]) and str(version or key[1]) == key[1]:
            totals[key][sample] += value
    return [_entry(*key, values) for key, values in sorted(totals.items())]


def _samples() -> Iterator[tuple[str, dict[str, str], float]]:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    wanted = tuple(
        f"saddlepoint_{name}"
        for name in ("rows_generated", "compute_seconds", "queue_wait_seconds")
    )
    for family in registry.collect():
        if family.name in wanted:
            for sample in family.samples:
                yield sample.name.removeprefix("saddlepoint_"), sample.labels, sample.value


def _entry(name: str, version: str, values: dict[str, float]) -> dict[str, Any]:
    num_rows = round(values["rows_generated_total"])
    num_runs = round(values["compute_seconds_count"])
    return {
        "name": name,
        "version": version,
        "inference_count": num_rows,
        "execution_count": num_runs,
        "inference_stats": {
            "queue": _duration(values, "queue_wait_seconds"),
            "compute_infer": _duration(values, "compute_seconds"),
        },
    }


def _duration(values: dict[str, float], name: str) -> dict[str, int]:
    """How often, and for how long altogether."""
    total_ns = round(values[f"{name}_sum"] * 1e9)
    return {"count": round(values[f"{name}_count"]), "ns": total_ns}
