"""What `training.stability` left in a run's folder, as charts and drawings."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.report.charts import Chart, curve
from training.report.plane import Points, plane
from training.runs.catalogue import is_number
from training.stability.commands.results import FOLDER

Record = Mapping[str, Any]
Results = Mapping[str, Record]
_NUM_WEIGHTS = 60
_DECADES = 2.0  # around the present weight
_LEAST_WEIGHT = 1e-3
_MALFORMED = (TypeError, LookupError, ValueError, ArithmeticError, AttributeError)
"""What comes of a result that another program has written; its chart is left out."""


def results_of(run: Path) -> dict[str, Record]:
    """The newest result of each command, by its name; files that can't be read are left out."""
    found: dict[str, Record] = {}
    for path in sorted((run / FOLDER).glob("*.json")):  # by name, then by images shown
        with contextlib.suppress(OSError, ValueError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(record, dict) and isinstance(record.get("command"), str):
                found[record["command"]] = record
    return found


def drawings(results: Results) -> list[tuple[str, str, str]]:
    """(title, how to read it, SVG) of each plane of eigenvalues."""
    record = results.get("spectrum")
    if record is None:
        return []
    found = []
    batches = record.get("batches")
    rounds = [
        Points(label=f"batch {index}", values=_complex(_path(batch, "round", "values")))
        for index, batch in enumerate(batches if isinstance(batches, list) else [], 1)
    ]
    circle = np.exp(2j * np.pi * np.arange(181) / 180)
    if any(len(each.values) for each in rounds):
        found.append(
            (
                "Eigenvalues of one round",
                "Inside the circle a deviation shrinks from round to round, outside it grows; off "
                "the real axis it turns.",
                plane(rounds, circle, "the unit circle"),
            )
        )
    flow, region = _complex(record.get("flow")), record.get("region")
    if len(flow):
        border = _complex(_path(region, "border"))
        rule = _path(region, "rule") or ""
        exact = "" if _path(region, "exact") else ", a guide: this run's players take turns"
        named = f"stable for {rule}{exact}" if len(border) else ""
        found.append(
            (
                "Eigenvalues of the flow, times the step",
                "Left of the axis the flow contracts; inside the border so do steps of the present "
                "length.",
                plane([Points(label="flow", values=flow)], border, named),
            )
        )
    return found


def curves(results: Results) -> Iterator[Chart]:
    """Yields the charts of damping and of trials over gamma, and of the path."""
    penalties = _path(results.get("gamma"), "penalties")
    for name, record in penalties.items() if isinstance(penalties, dict) else ():
        with contextlib.suppress(*_MALFORMED):
            if (chart := _damping(name, record)) is not None:
                yield chart
    tried = _path(results.get("gamma"), "trials")
    for name, record in tried.items() if isinstance(tried, dict) else ():
        with contextlib.suppress(*_MALFORMED):
            yield _trials(name, record)
    path = results.get("path")
    with contextlib.suppress(*_MALFORMED):
        if path is not None and path["a"]:
            yield from _path_charts(path)
    exponent = results.get("exponent")
    with contextlib.suppress(*_MALFORMED):
        if exponent is not None and exponent["blocks"]:
            yield _exponents(exponent)


def _damping(name: str, record: Record) -> Chart | None:
    """The law of each turning mode over the weight, and what was solved beside it."""
    weight = float(record["weight"])
    modes = [mode for mode in record["modes"] if abs(mode["lambda"][1]) > 0]
    solved = record.get("solved") or []
    if not modes:
        return None
    middle = max(weight, record.get("advice") or 0.0, _LEAST_WEIGHT)
    weights = np.geomspace(middle / 10**_DECADES, middle * 10**_DECADES, _NUM_WEIGHTS)
    weights = np.unique(np.concatenate([weights, [each[0] for each in solved]]))
    series: list[dict[str, Any]] = []
    for index, mode in enumerate(modes[:5], 1):
        value, slope = complex(*mode["lambda"]), mode["slope"][0]
        real = value.real + slope * (weights - weight)
        ratio = np.clip(-real / abs(value), -1, 1)
        series.append(
            {"label": f"mode {index}, {value.real:.3g} {value.imag:+.3g}i", "y": ratio.tolist()}
        )
    if solved:
        at = {each[0]: -each[1].real / abs(each[1]) for each in map(_solved, solved)}
        y = [at.get(float(each)) for each in weights]
        series.append({"label": "solved again", "y": y, "points": True})
    return curve(
        title=f"Damping over the weight of {name}",
        read="0 circles for ever, 1 is critical; the present weight is "
        f"{weight:g}, the advice {_advice(record)}.",
        x=weights.tolist(),
        x_label=f"weight of {name}",
        series=series,
        log_x=True,
    )


def _trials(name: str, record: Record) -> Chart:
    """Each trial's figure over its weight."""
    own = [each for each in record["weights"] if each["weight"] > 0 and is_number(each["mean"])]
    alike = ", ".join(f"{weight:g}" for weight in record["alike"])
    return curve(
        title=f"Trials of the weight of {name}",
        read=f"Mean of {record['figure']} after {record['kimg']:g} kimg from "
        f"{'new weights' if record.get('from_start') else 'the checkpoint'} on; "
        f"can't be told apart from the best: {alike or 'none'}. Advice {_advice(record)}.",
        x=[each["weight"] for each in own],
        x_label=f"weight of {name}",
        series=[{"label": record["figure"], "y": [each["mean"] for each in own]}],
        log_x=True,
    )


def _solved(entry: Sequence[Any]) -> tuple[float, complex]:
    return entry[0], complex(*entry[1])


def _advice(record: Record) -> str:
    advice = record.get("advice")
    return f"{advice:.3g}" if is_number(advice) else "none"


def _path_charts(record: Record) -> Iterator[Chart]:
    x = record["a"]
    yield curve(
        title=f"Angle of the field on the way from {record.get('since', 'the start')}",
        read="From - to + at a = 1: the end attracts. A bump there without a change of sign: "
        "rotation around it.",
        x=x,
        x_label="share of the way, a",
        series=[{"label": "cosine", "y": record["cosine"]}],
    )
    yield curve(
        title="Size of the field on the same way",
        read="A dip at a = 1: the game stands nearly still there.",
        x=x,
        x_label="share of the way, a",
        series=[{"label": "|v|", "y": record["speed"]}],
        log=all(is_number(value) and value > 0 for value in record["speed"]),
    )


def _exponents(record: Record) -> Chart:
    block = record.get("block") or 1
    blocks = record["blocks"]
    return curve(
        title="How fast twins part",
        read="Above 0 a hair's difference grows, below 0 it is forgotten; the mean is the Lyapunov "
        f"exponent, {record['exponent']:+.4g} a round.",
        x=[block * (index + 2) for index in range(len(blocks))],
        x_label="rounds",
        series=[{"label": "growth a round", "y": blocks}],
    )


def _path(record: Any, *names: str) -> Any:
    """What stands at a path of names; None where there is nothing."""
    for name in names:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def _complex(pairs: Any) -> np.ndarray:
    """[[re, im], ...] as complex numbers, those that are finite."""
    found = []
    for pair in pairs if isinstance(pairs, list) else []:
        if isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair)):
            value = complex(*pair)
            if math.isfinite(value.real) and math.isfinite(value.imag):
                found.append(value)
    return np.array(found, dtype=np.complex128)
