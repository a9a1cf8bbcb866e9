"""Is the advised gamma the best one: a sweep of seven weights beside what `gamma RUN` advises.

Each data set is trained with the weight of R1 at seven values, half a decade apart, and what comes
out is measured: on the mixtures the share of good points (2,500, within 3 sigma of a centre), on
digits the Frechet distance to held-out digits. At the end of each training the instrument says
which weight would damp the game critically there (`python -m training.stability gamma`), so that a
table can tell by what factor the advice misses. At some of the weights trials are asked, too, of
half of the training's length: which weight to go on with (`--trials`), and which to begin with
(`--from-start`). The second is what the sweep can judge.

    ring-8, grid-25   non-saturating loss and R1 on the harness of modes.py, rate 0.003
    digits            the recipe digits without R2: classes, DCGAN, non-saturating

Every training is a line of --log, which is part of the repository, and is played once.

Run: python benchmarks/training/gamma.py [--quick] [--write docs/stability.md]
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _digits_eye import DigitsEye
from _log import Log, Record, key_of
from _modes_arms import Knobs, harness
from _modes_runs import points
from _tables import fill, listed, mean, row, table

from training.config.training import TrainingConfig
from training.data import Batches, load
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import StabilityError
from training.evaluation.metrics.modes import MIXTURES, modes
from training.game.regularizers import Term
from training.recipes import RECIPES
from training.stability.commands import trials
from training.stability.critical_weights import rounds_at
from training.stability.damping import DAMPED, Damping, damping
from training.stability.run_game import RunGame
from training.stability.trials.choice import nearest

WEIGHTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
KIMG = {"ring-8": 100.0, "grid-25": 400.0, "digits": 10.0}
CPU = torch.device("cpu")
_FACTOR = 2.0  # within which an advice is right
TRIED = {"ring-8": (0.1, 1.0), "grid-25": (1.0,), "digits": (1.0,)}
"""Weights at whose ends trials are played."""
_TRIAL = 0.5  # of the training's length
_DRAWS = 3


def config_of(job: dict[str, Any]) -> TrainingConfig:
    dataset, weight, kimg, seed = (job[name] for name in ("dataset", "weight", "kimg", "seed"))
    if dataset in MIXTURES:
        config = harness("r1", dataset, Knobs(lr=3e-3), kimg=kimg, seed=seed)
    else:
        config = replace(
            RECIPES[dataset].config, schedules=(), total_kimg=kimg, tick_kimg=kimg, seed=seed
        )
    return replace(config, regularizers=(Term(name="r1", weight=weight),))


def play(job: dict[str, Any], cache: Path) -> Record:
    """Trains at one weight, asks the instrument on the way, and measures what came out."""
    config = config_of(job)
    images = load(config.data)
    state = State.fresh(config, images.shape, CPU)
    stepper = Stepper(
        config, state, Batches(images, batch_size=config.batch_size, seed=config.seed)
    )
    start, failed = time.process_time(), None
    while state.cur_nimg < config.total_nimg and failed is None:
        stepper.step()
        if (non_finite := stepper.non_finite()) is not None:
            failed = f"{', '.join(non_finite.terms)} not finite"
    trained = time.process_time()
    if "trials" in job:
        return {"job": job, "failed": failed, **({} if failed else tried(job, config, state))}
    said = {} if failed else asked(config, state, job["weight"])
    spent_s, asked_s = trained - start, time.process_time() - trained
    return {
        "job": job,
        "failed": failed,
        "figures": {} if failed else figures(job, config, state, cache),
        **said,
        "cpu_s": round(spent_s, 1),
        "asked_s": round(asked_s, 1),
    }


def asked(config: TrainingConfig, state: State, weight: float) -> dict[str, Any]:
    """What the instrument says of the game where it stands."""
    here = Path()
    images = load(config.data)
    game = RunGame(folder=here, config=config, image_set=images, state=state, checkpoint=here)
    (batch,) = game.batches(1, game.size_up_to(config.batch_size))
    try:
        found: Damping = damping(rounds_at(game, batch, "r1"), weight)
    except (StabilityError, FloatingPointError) as error:
        return {"advice": None, "says": str(error), "damping_ratio": None}
    turning = [mode for mode in found.modes if mode.turns]
    ratio = min((mode.damping_ratio for mode in turning), default=None)
    return {"advice": found.advice, "modes": len(found.modes), "damping_ratio": ratio}


def tried(job: dict[str, Any], config: TrainingConfig, state: State) -> dict[str, Any]:
    """What trials say of the game where it stands."""
    here = Path()
    images = load(config.data)
    game = RunGame(folder=here, config=config, image_set=images, state=state, checkpoint=here)
    found = trials.run(
        game,
        "r1",
        kimg=job["trials"],
        num_draws=job["draws"],
        from_start=job.get("from_start", False),
        say=print,
    )
    return dict(trials.record(found))


def figures(
    job: dict[str, Any], config: TrainingConfig, state: State, cache: Path
) -> dict[str, float]:
    """How good a training is; `score` is what is compared, the more the better."""
    if job["dataset"] in MIXTURES:
        mixture = MIXTURES[job["dataset"]]
        found = modes(points(state.G_ema, config, config.seed) * mixture.unit, mixture)
        good = float(found.good_share)
        return {"modes": found.caught, "good": good, "score": found.caught + good}
    seen = DigitsEye(config, cache).look(state.G_ema)
    distance = seen["frechet_distance"]
    return {"frechet_distance": distance, "coverage": seen["coverage"], "score": -distance}


def sweep(log: Log, dataset: str) -> str:
    """The table of a data set and what it says."""
    records = log.all(dataset=dataset)
    jobs = [record for record in records if "trials" not in record["job"]]
    trial_records = [record for record in records if "trials" in record["job"]]
    if not jobs:
        return "Not played yet.\n"
    rows, scores = [], {}
    for weight in WEIGHTS:
        records = [r for r in jobs if r["job"]["weight"] == weight]
        whole = [r for r in records if not r["failed"]]
        if not whole:
            continue
        scores[weight] = float(np.mean([r["figures"]["score"] for r in whole]))
        of_trials = [r for r in trial_records if r["job"]["weight"] == weight]
        by_trials, seconds = _by_trials(of_trials), _seconds([*whole, *of_trials])
        rows.append(row(f"{weight:g}", _quality(whole), *_advised(whole), by_trials, seconds))
    quality = "modes | good %" if dataset in MIXTURES else "Frechet distance | coverage"
    head = (
        f"| R1 | {quality} | advised for damping | damping of the slowest turning mode | "
        "advised by trials to begin, to go on with | CPU s to train, to ask, to try |"
    )
    told = [_verdict(jobs, scores)]
    for begins in (True, False):
        if own := [r for r in trial_records if _begins(r) == begins]:
            told.append(_verdict(own, scores, f"Trials of {_purpose(begins)}: "))
    tables = [_trials(record) for record in trial_records if not record["failed"]]
    return "\n".join([table(head, rows), *told, "", *tables])


def _quality(records: Sequence[Record]) -> str:
    found = [record["figures"] for record in records]
    if "good" in found[0]:
        names = (("modes", 1, 1), ("good", 100, 1))
    else:
        names = (("frechet_distance", 1, 2), ("coverage", 1, 2))
    return " | ".join(mean([k * f[name] for f in found], digits) for name, k, digits in names)


def _by_trials(records: Sequence[Record]) -> str:
    if not records:
        return "-"
    found = {_begins(record): f"{advice_of(record):g}" for record in records}
    return ", ".join(found.get(begins, "-") for begins in (True, False))


def _begins(record: Record) -> bool:
    return bool(record["job"].get("from_start"))


def _purpose(begins: bool) -> str:
    return "a weight to begin with" if begins else "a weight to go on with"


def _trials(record: Record) -> str:
    """The means of one set of trials."""
    job = record["job"]
    rows = [
        row(f"{each['weight']:g}", _or_diverged(each["mean"]), each["draws"])
        for each in record["weights"]
    ]
    return (
        f"{_purpose(_begins(record)).capitalize()}, at {job['weight']:g}, seed {job['seed']}: "
        f"{job['trials']:g} kimg, {job['draws']} draws; standard error {record['error']:.2g}, "
        f"margin {record['margin']:.2g}; can't be told apart: {listed(record['alike'])}:\n\n"
        + table(f"| R1 | {record['figure']} | draws |", rows)
    )


def _or_diverged(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.3f}"


def advice_of(record: Record) -> float | None:
    """The advice of a record, by today's rules: what is damped keeps its weight."""
    if "alike" in record:
        return nearest(record["alike"], record["present"])
    ratio = record.get("damping_ratio")
    if ratio is not None and ratio >= DAMPED and record["advice"] is not None:
        return float(record["job"]["weight"])
    advice: float | None = record["advice"]
    return advice


def _advised(records: Sequence[Record]) -> Sequence[str]:
    found, ratios = map(advice_of, records), [r["damping_ratio"] for r in records]
    return (
        ", ".join("none" if each is None else f"{each:.3g}" for each in found),
        ", ".join("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
    )


def _seconds(records: Sequence[Record]) -> str:
    return ", ".join(
        f"{np.mean(values):.0f}"
        for of_trials, name in ((False, "cpu_s"), (False, "asked_s"), (True, "cpu_s"))
        if (values := [r[name] for r in records if ("trials" in r["job"]) == of_trials])
    )


def _verdict(records: Sequence[Record], scores: dict[float, float], head: str = "") -> str:
    """How many of the advices lie near the best weight of the sweep."""
    best = max(scores, key=lambda weight: scores[weight])
    asked = [record for record in records if not record["failed"]]
    given = [each for each in map(advice_of, asked) if each is not None]
    near = [each for each in given if best / _FACTOR <= each <= best * _FACTOR]
    factors = sorted(each / best for each in given)
    spread = f"; they are {factors[0]:.2g} to {factors[-1]:.2g} times it" if factors else ""
    head = head or f"The best weight is {best:g}. "
    return (
        f"{head}At {len(given)} of {len(asked)} a weight was advised, at {len(near)} within "
        f"{_FACTOR:g} times of the best{spread}."
    )


def told(record: Record) -> str:
    """A line about a training."""
    job = record["job"]
    seen = record.get("figures", {})
    found = record["failed"] or " ".join(f"{k} {v:.3g}" for k, v in seen.items()) or "trials"
    return (
        f"{job['dataset']} r1={job['weight']:g} seed {job['seed']}: {found}; "
        f"advice {record.get('advice')}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two weights on ring-8, briefly")
    parser.add_argument("--datasets", nargs="*", choices=KIMG, default=list(KIMG))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--write", type=Path, help="page whose tables are written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(".benchmarks") if given.quick else Path(__file__).parent
    log = Log(given.log or folder / "logs" / "gamma.jsonl")
    start = time.monotonic()
    datasets, seeds, weights, part = given.datasets, given.seeds, WEIGHTS, 1.0
    if given.quick:
        datasets, seeds, weights, part = ["ring-8"], 1, (0.1, 1.0), 0.01
    jobs = [
        {"dataset": dataset, "weight": weight, "kimg": part * KIMG[dataset], "seed": seed}
        for dataset in datasets
        for seed in range(seeds)
        for weight in weights
    ]
    jobs += [
        {**job, "trials": _TRIAL * job["kimg"], "draws": _DRAWS, **more}
        for more in ({"from_start": True}, {})
        for job in jobs
        if job["seed"] == 0 and job["weight"] in TRIED[job["dataset"]] and not given.quick
    ]
    missing = [job for job in jobs if log.of(key_of(job)) is None]
    for num, job in enumerate(missing, 1):
        log.add(record := play(job, Path(".benchmarks/gamma/cache")))
        left = (time.monotonic() - start) / num * (len(missing) - num)
        print(f"{num}/{len(missing)} {told(record)}; left about {left / 60:.0f} min", flush=True)
    if given.write:
        fill(given.write, {f"gamma-{dataset}": sweep(log, dataset) for dataset in KIMG})
        print(f"written: {given.write}")
    print(f"figure gamma_trainings {len(log.records)} trainings")
    print(f"figure gamma_time {(time.monotonic() - start) / 60:.1f} min")
    return 0


if __name__ == "__main__":
    sys.exit(main())
