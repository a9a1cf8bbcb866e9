"""Folders of runs as a training leaves them, with a course that is known."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.cli.command import Command
from training.recipes import RECIPES
from training.runs.folders import ENDED, WATCHDOG

Line = dict[str, Any]
NUM_TICKS = 40


def plant(
    folder: Path,
    lines: Sequence[Line],
    *,
    recipe: str = "digits",
    outcome: str | None = "Published digits version 1",
    watchdog: dict[str, Any] | None = None,
    num_grids: int = 3,
    **options: Any,
) -> Path:
    """Writes a run's folder."""
    (folder / "samples").mkdir(parents=True)
    config = replace(RECIPES[recipe].config, total_kimg=40, **options)
    (folder / "config.json").write_text(Command(config=config).to_json())
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if outcome is not None:
        (folder / ENDED).write_text(outcome + "\n")
    if watchdog is not None:
        (folder / WATCHDOG).write_text(json.dumps(watchdog))
    rng = np.random.default_rng(0)
    for index in range(num_grids):
        pixels = rng.integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "samples" / f"samples-{index * 10:010.3f}.png")
    return folder


def healthy(index: int, num: int = NUM_TICKS) -> Line:
    """A tick of a training in which nothing fails."""
    share = index / num
    return {
        "tick": index + 1,
        "cur_nimg": (index + 1) * 1000,
        "loss_D.adversarial": 1.2 + 0.1 * math.sin(index),
        "loss_D.r1": 0.05,
        "loss_G.adversarial": 0.9,
        "scores.real": 0.4,
        "scores.fake": -0.4,
        "D_real": 0.6,
        "D_fake": 0.4,
        "gradient_D": 1.5,
        "gradient_G": 0.7,
        "watch.weights_G": 20 + index / 100,
        "watch.weights_D": 25.0,
        "watch.logits": 1.0,
        "watch.logit_spread": 0.5,
        "watch.margin": 0.8,
        "watch.slope": 0.5,
        "watch.spread": 0.9,
        "watch.twins": 0.0,
        "watch.sure": 0.1,
        "watch.r_t": 0.5,
        "watch.copied": 0.02,
        "watch.swing": 0.1,
        "nimg_per_s": 210.0,
        **({} if index % 2 else look(8.0 * math.exp(-3 * share))),
    }


def look(distance: float) -> Line:
    return {
        "quality.frechet_distance": distance,
        "quality.frechet_distance.floor": 0.1,
        "quality.frechet_distance.ceiling": 40.0,
        "quality.coverage": 1 / (1 + distance),
        "quality.coverage.floor": 0.95,
        "quality.coverage.ceiling": 0.0,
    }


def course(**changes: Any) -> list[Line]:
    """A healthy training with some numbers changed: a value, or a function of the tick."""
    lines = []
    for index in range(NUM_TICKS):
        line = healthy(index)
        for name, change in changes.items():
            line[name] = change(index) if callable(change) else change
        lines.append(line)
    return lines


def settled() -> list[Line]:
    lines = course()
    for index, line in enumerate(lines):
        if index % 2 == 0:
            line |= look(max(0.8, 8 * math.exp(-0.4 * index)) + 0.002 * (index % 3))
    return lines


def past_its_best() -> list[Line]:
    lines = course()
    for index, line in enumerate(lines):
        if index % 2 == 0:
            line |= look(1 + 0.01 * (index - 14) ** 2)
    return lines


PLANTED: dict[str, tuple[list[Line], dict[str, Any]]] = {
    "improving": (course(), {}),
    "settled": (settled(), {}),
    "past": (past_its_best(), {}),
    "collapse": (course(**{"watch.spread": lambda i: 0.9 if i < 20 else 0.03}), {}),
    "saturation": (
        [
            {**line, "watch.sure": 0.99 if index > 15 else 0.2}
            for index, line in enumerate(settled())
        ],
        {},
    ),
    "overfitting": (
        [{**line, "watch.r_t": min(1.0, 0.5 + index / 40)} for index, line in enumerate(settled())],
        {},
    ),
    "oscillation": (
        [{**line, "watch.swing": 0.8} for line in settled()],
        {},
    ),
    "memorisation": (course(**{"watch.copied": lambda i: 0.02 if i < 20 else 0.7}), {}),
    "divergence": (
        course()[:12],
        {
            "outcome": "error: loss_D.adversarial is not finite in tick 13 (12.500 kimg); no "
            "weight was updated by it."
        },
    ),
    "settled points": (
        [
            {
                **{n: v for n, v in line.items() if not n.startswith("quality.")},
                "quality.good_points": min(0.95, index / 10),
                "quality.good_points.floor": 0.99,
                "quality.good_points.ceiling": 0.01,
                "quality.gaussians": 8.0,
            }
            for index, line in enumerate(course())
        ],
        {},
    ),
    "early": (course()[:3], {"outcome": None}),
    "unmeasured": (
        [{n: v for n, v in line.items() if not n.startswith("quality.")} for line in course()],
        {},
    ),
    "empty": ([], {"outcome": None, "num_grids": 0}),
}
"""By the state that they are in, its first word."""


def results(folder: Path) -> None:
    """Adds what the instrument leaves in a run."""
    where = folder / "stability"
    where.mkdir(exist_ok=True)
    batch = {"round": {"values": [[0.9, 0.3], [0.9, -0.3], [-0.2, 0.0]]}}
    spectrum = {
        "command": "spectrum",
        "cur_nimg": 40_000,
        "verdict": "No growth beyond 0.001 a round: deviations stay or decay here.",
        "point": "unstable: neither Nash nor strict local minmax",
        "batches": [batch, batch],
        "step_limit": {"factor": 2.0, "says": "Largest stable rates here: 2 times."},
        "flow": [[-0.1, 0.3], [-0.1, -0.3], [-90.0, 0.0]],
        "region": {"border": [[0, 0], [-1, 1], [-2, 0], [-1, -1]], "rule": "plain steps",
                   "exact": False},
        "limits": ["A checkpoint is no equilibrium."],
    }  # fmt: skip
    gamma = {
        "command": "gamma",
        "cur_nimg": 40_000,
        "penalties": {
            "r1": {
                "weight": 0.3,
                "advice": 1.0,
                "modes": [{"lambda": [-0.15, 0.477], "slope": [-0.5, 0.157]}],
                "solved": [[0.5, [-0.25, 0.43], -0.1], [1.0, [-0.5, 0.01], -0.1]],
            }
        },
    }
    shares = np.linspace(-0.1, 1.1, 100)
    path = {
        "command": "path",
        "cur_nimg": 40_000,
        "since": "start",
        "verdict": "The end attracts along this line.",
        "a": shares.tolist(),
        "cosine": np.tanh(20 * (shares - 1)).tolist(),
        "speed": (0.1 + np.abs(shares - 1)).tolist(),
    }
    exponent = {
        "command": "exponent",
        "cur_nimg": 40_000,
        "verdict": "Twins meet.",
        "exponent": -0.01,
        "block": 20,
        "blocks": [-0.012, -0.008, -0.01],
    }
    for record in (spectrum, gamma, path, exponent):
        name = f"{record['command']}-0000040000.json"
        (where / name).write_text(json.dumps(record))
