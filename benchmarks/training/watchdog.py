"""What the watchdog catches, how often it cries wolf, and what it costs.

    planted     a failure put into a short training on scikit-learn's digits; the figure is when its
                detector raised an alarm, in kimg
    healthy     trainings that converge, over seeds; the figure is how many of them raised any alarm
    zoo         every recipe of the zoo on digits, 20 ticks of it, however well it does, and how
                well that was: an alarm is false where the training has got somewhere (`is_good`)
    cost        the same training with and without the watchdog, in turns, so that whatever else
                the machine does falls on both; the figure is the median of the rounds' ratios, and
                beside it the watchdog's own time as a share of the training's

Everything is played by `training.engine.loop.fit` as `python -m training.run` calls it, without
sample grids and checkpoints. All but the cost is a line of --log, which is part of the repository,
and is played once: the benchmark can be stopped at any time and goes on where it was.

Run: python benchmarks/training/watchdog.py [--quick] [--only planted healthy zoo cost]
         [--kimg 60] [--seeds 3] [--write docs/watchdog.md]
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from _digits_eye import DigitsEye
from _log import Log, Record, key_of
from _watchdog_cases import HEALTHY, PLANTED, Planted, Watched, extremes
from _watchdog_page import fill
from _zoo_cells import NOT_METHODS, Budget, Cell

from training.cli.command import parse
from training.config.training import TrainingConfig
from training.data import load
from training.recipes import RECIPES
from training.watchdog.detectors import DETECTORS

NUM_SEEDS = 10  # of the healthy trainings
PARTS = ("planted", "healthy", "zoo", "cost")
_TICKS = 20  # of a training of the zoo

Wanted = dict[str, Any]
"""A training's part, name, seed and length."""


def planted(quick: bool) -> Iterator[Wanted]:
    for case in PLANTED[-3 if quick else 0 :]:
        yield {"part": "planted", "name": case.name, "seed": 0, "kimg": _planted(case).total_kimg}


def healthy(quick: bool) -> Iterator[Wanted]:
    for seed in range(2 if quick else NUM_SEEDS):
        for name, words in HEALTHY.items():
            kimg = parse(words.split()).config.total_kimg
            yield {"part": "healthy", "name": name, "seed": seed, "kimg": kimg}


def zoo(num_seeds: int, kimg: float) -> Iterator[Wanted]:
    for seed in range(num_seeds):
        for name in RECIPES:
            if name not in NOT_METHODS:
                yield {"part": "zoo", "name": name, "seed": seed, "kimg": kimg}


def play(wanted: Wanted, cache: Path) -> Record:
    """Plays a training with the watchdog beside it."""
    part, name, seed, kimg = (wanted[key] for key in ("part", "name", "seed", "kimg"))
    start = time.process_time()
    if part == "planted":
        case = next(case for case in PLANTED if case.name == name)
        config = _planted(case)
        watched = Watched(config, case.images(load(config.data)), case.plant, case.players)
    else:
        config = _config(part, name, seed, kimg)
        watched = Watched(config, load(config.data))
    watched.play()
    spent = time.process_time() - start
    reached: dict[str, float] = {}
    for failure, value in extremes(watched):
        best = max if DETECTORS[failure].alarming == "above" else min
        reached[failure] = best(value, reached.get(failure, value))
    figures = {}
    if part == "zoo" and watched.state.cur_nimg >= config.total_nimg:
        found = DigitsEye(config, cache).look(watched.state.G_ema)
        figures = {k: round(v, 4) for k, v in found.items() if "_" not in k or "frechet" in k}
    return {
        "job": wanted,
        "alarms": [
            {"failure": each.failure, "kimg": each.cur_nimg / 1000, "value": each.value}
            for each in watched.alarms
        ],
        "reached": {name: round(value, 6) for name, value in reached.items()},
        "figures": figures,
        "cpu_s": round(spent, 1),
    }


def _planted(case: Planted) -> TrainingConfig:
    return parse(case.words.split()).config


def _config(part: str, name: str, seed: int, kimg: float) -> TrainingConfig:
    if part == "healthy":
        return parse([*HEALTHY[name].split(), "--seed", str(seed)]).config
    cell = Cell(recipe=name, dataset="digits", seed=seed, budget=Budget(kimg=kimg))
    return cell.config(tick_kimg=kimg / _TICKS)


def told(record: Record) -> str:
    """A line about a training."""
    job = record["job"]
    alarms = ", ".join(f"{a['failure']} at {a['kimg']:.1f} kimg" for a in record["alarms"])
    figures = " ".join(f"{k} {v:.3g}" for k, v in record["figures"].items() if "_f" not in k)
    return f"{job['part']} {job['name']}, seed {job['seed']}: {alarms or 'no alarm'}; {figures}"


COST = {
    "digits": ("digits", 5.0),
    "article": ("article --data.dataset digits --data.resolution 28", 60.0),
}


def cost(quick: bool) -> None:
    """A round is a tick of the recipe's own length."""
    num_rounds = 3 if quick else 9
    for name, (words, tick_kimg) in COST.items():
        sides = []
        for action in ("warn", "off"):
            config = parse([*words.split(), "--watchdog.action", action]).config
            assert config.tick_kimg == tick_kimg
            sides.append(Watched(config, load(config.data)))
        ratios, spent_s, looking_s = [], 0.0, 0.0
        for number in range(num_rounds + 1):
            times = [timed(side, (number + 1) * tick_kimg) for side in sides]
            if number:  # the first is for the caches
                ratios.append(times[0] / times[1])
                spent_s += times[0]
                looking_s += sides[0].looking_s
        print(f"figure watchdog_cost_{name} {statistics.median(ratios):.3f} x, median of rounds")
        print(f"figure watchdog_looking_{name} {100 * looking_s / spent_s:.2f} % of the time")


def timed(side: Watched, kimg: float) -> float:
    side.looking_s = 0.0
    start = time.perf_counter()
    side.play(kimg)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three failures, two seeds, 2 kimg")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--kimg", type=float, default=60, help="of the zoo's trainings")
    parser.add_argument("--seeds", type=int, default=3, help="of the zoo")
    parser.add_argument("--cpu-minutes", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--write", type=Path, help="page whose tables are written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    scratch = Path(".benchmarks/watchdog")
    folder = scratch if given.quick else Path(__file__).parent / "logs"
    log = Log(given.log or folder / "watchdog.jsonl")
    kimg, seeds = (2.0, 1) if given.quick else (given.kimg, given.seeds)
    jobs: list[Wanted] = []
    for part, wanted in (
        ("planted", planted(given.quick)),
        ("healthy", healthy(given.quick)),
        ("zoo", zoo(seeds, kimg)),
    ):
        jobs += wanted if part in given.only else ()
    missing = [job for job in jobs if log.of(key_of(job)) is None]
    start, spent_s = time.monotonic(), 0.0
    for num, job in enumerate(missing, 1):
        if spent_s >= 60 * given.cpu_minutes:
            break
        record = play(job, scratch / "cache")
        log.add(record)
        spent_s += record["cpu_s"]
        left = (time.monotonic() - start) / num * (len(missing) - num)
        print(f"{num}/{len(missing)} {told(record)}; left about {left / 60:.0f} min", flush=True)
    if given.write:
        fill(given.write, log)
        print(f"written: {given.write}")
    for part in ("planted", "healthy", "zoo"):
        records = log.all(part=part)
        loud = sum(bool(record["alarms"]) for record in records)
        print(f"figure watchdog_{part} {loud} of {len(records)} trainings with an alarm")
    if "cost" in given.only:
        cost(given.quick)


if __name__ == "__main__":
    main()
