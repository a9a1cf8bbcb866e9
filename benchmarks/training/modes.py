"""Coverage of ring-8 and grid-25 by every method: modes, good points, and how wide the rates are.

The protocol is that of Lin et al. 2018 (PacGAN), section 4.1: 2,500 points, good within 3 sigma of
the nearest centre, a mode counts with one good point, means with standard errors over ten seeds.

    recipe   the recipes ring-8 and grid-25 of `python -m training.run`, at their whole length
    authors  methods with the networks, optimisers and batches of their authors, for a share of
             their steps
    range    every method on one harness, over a fixed grid of rate, momentum and steps of D: the
             share of the grid at which it finds all modes is how much it forgives
    search   the same budget for every method: settings drawn at random, the better third of which
             goes on with three times the images, and so on (successive halving, Jamieson and
             Talwalkar 2016); its seeds are none of the report's
    tuned    what the search chose, on the report's seeds

Every training is a line of --log, which is part of the repository, and is played once: the
benchmark can be stopped at any time and goes on where it was.

Run: python benchmarks/training/modes.py [--quick | --level day] [--write docs/coverage.md]
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _log import Log, Record
from _modes_arms import ARMS, AUTHORS, Knobs
from _modes_page import fill
from _modes_runs import Job, play, range_jobs, recipe_jobs, score
from _pool import run_all
from _tables import at_least_one, check_page

from training.evaluation.metrics.modes import MIXTURES

TABLES = ("recipe", "range", "authors", "search", "tuned")
_SEARCH_SEED = 1000  # of the first candidate: the report's seeds are 0 to 9


@dataclass(frozen=True, kw_only=True)
class Level:
    """How much is played."""

    seeds: int
    """Of each row of the report."""
    share: float
    """Of the authors' steps."""
    range_kimg: float
    rates: tuple[float, ...]
    momenta: tuple[float, ...]
    steps_D: tuple[int, ...]
    candidates: int
    """Settings that the search begins with: a power of three."""
    tuned_kimg: float
    """Images of the last round of the search, and of what it chose."""

    @property
    def grid(self) -> list[Knobs]:
        return [
            Knobs(lr=lr, beta1=beta1, steps_D=steps)
            for lr in self.rates
            for beta1 in self.momenta
            for steps in self.steps_D
        ]


LEVELS = {
    "quick": Level(
        seeds=1, share=5e-5, range_kimg=4, rates=(1e-3,), momenta=(0.0, 0.5), steps_D=(1,),
        candidates=3, tuned_kimg=6,
    ),
    "day": Level(
        seeds=10, share=0.005, range_kimg=192, rates=(1e-4, 1e-3, 1e-2),
        momenta=(0.0, 0.5), steps_D=(1,), candidates=9, tuned_kimg=384,
    ),
    "night": Level(
        seeds=10, share=0.01, range_kimg=480, rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
        momenta=(0.0, 0.5, 0.9), steps_D=(1, 5), candidates=27, tuned_kimg=960,
    ),
}  # fmt: skip


def draw(arm: str, num: int, kimg: float, dataset: str) -> list[Job]:
    """Candidates of the search: drawn alike for every arm, from what the arm has."""
    rng = np.random.default_rng(17)
    jobs = []
    for index in range(num):
        lr = 10 ** rng.uniform(-4, -2)
        beta1, steps_D = rng.choice([0.0, 0.5, 0.9]), rng.choice([1, 1, 5])
        strength, width = 10 ** rng.uniform(-1, 1), rng.choice([128, 256])
        entry = ARMS[arm]
        knobs = Knobs(
            lr=float(f"{lr:.3g}"),
            beta1=float(beta1) if entry.beta1 is None else entry.beta1,
            steps_D=int(steps_D) if entry.takes_turns else 1,
            strength=float(f"{strength:.3g}") if entry.turns_strength else 1.0,
            width=int(width),
        )
        seed = _SEARCH_SEED + index
        jobs.append(
            Job(table="search", arm=arm, dataset=dataset, seed=seed, kimg=kimg, knobs=knobs)
        )
    return jobs


class Benchmark:
    """Plays what is missing, and says how far it is."""

    def __init__(self, log: Log, workers: int, budget_s: float) -> None:
        """budget_s: of CPU time; a training that would begin beyond it is left for later."""
        self.log = log
        self._workers = workers
        self._budget_s = budget_s
        self._spent_s = 0.0

    def play(self, jobs: Iterable[Job]) -> bool:
        """Plays those that are missing. Returns False where the budget ended before."""
        wanted = list(jobs)
        missing = [job for job in wanted if self.played(job) is None]
        start = time.monotonic()
        for num, record in enumerate(self._records(missing), 1):
            self.log.add(record)
            self._spent_s += record["cpu_s"]
            left = (time.monotonic() - start) / num * (len(missing) - num)
            print(
                f"{num}/{len(missing)} {told(record)}; left about {left / 60:.0f} min", flush=True
            )
        return all(self.played(job) for job in wanted)

    def search(self, arm: str, dataset: str, level: Level) -> Knobs | None:
        """Successive halving. Returns the setting that was best at last; None if not finished."""
        num = level.candidates
        rounds = round(np.log(num) / np.log(3))
        jobs = draw(arm, num, level.tuned_kimg / 3**rounds, dataset)
        for left in range(rounds, -1, -1):
            if not self.play(jobs):
                return None
            ranked = sorted(jobs, key=lambda job: score(self.record(job)), reverse=True)
            if left == 0:
                return ranked[0].knobs
            jobs = [
                Job(
                    table="search", arm=arm, dataset=dataset, seed=job.seed, knobs=job.knobs,
                    kimg=level.tuned_kimg / 3 ** (left - 1),
                )
                for job in ranked[: len(ranked) // 3]
            ]  # fmt: skip
        raise AssertionError

    def record(self, job: Job) -> Record:
        """What a training that was played has found."""
        found = self.played(job)
        assert found is not None
        return found

    def played(self, job: Job) -> Record | None:
        """The record of a training, unless it had another configuration."""
        return job.among(self.log)

    def _records(self, jobs: Sequence[Job]) -> Iterable[Record]:
        def goes_on() -> bool:
            return self._spent_s < self._budget_s

        if jobs and goes_on():
            yield from run_all(play, jobs, self._workers, goes_on=goes_on)


def play_table(
    bench: Benchmark,
    table: str,
    level: Level,
    datasets: Sequence[str],
    arms: Sequence[str],
    seeds: int,
) -> None:
    """Plays what is missing of one of TABLES."""
    if table == "recipe":
        bench.play(recipe_jobs(datasets, seeds))
    elif table == "range":
        bench.play(range_jobs(datasets, arms, level.grid, level.range_kimg))
    elif table == "authors":
        bench.play(
            Job(table="authors", arm=arm, dataset=dataset, seed=seed, share=level.share)
            for seed in range(seeds)
            for dataset in datasets
            for arm in AUTHORS
            if arm in arms
        )
    else:
        for dataset, arm in itertools.product(datasets, arms):
            knobs = bench.search(arm, dataset, level)
            if table == "tuned" and knobs is not None:
                bench.play(
                    Job(
                        table="tuned", arm=arm, dataset=dataset, seed=seed, knobs=knobs,
                        kimg=level.tuned_kimg,
                    )
                    for seed in range(seeds)
                )  # fmt: skip


def told(record: Record) -> str:
    """A line about a training."""
    job, knobs = dict(record["job"]), record["job"]["knobs"]
    name = Job(**{**job, "knobs": None if knobs is None else Knobs(**knobs)}).name
    found = record["failed"] or (
        f"{record['modes']} modes, {record['good']:.1%} good, reverse KL {record['reverse_kl']}"
    )
    return f"{name}: {found}, {record['cpu_s']:.0f} CPU s"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="all tables in minutes; --level quick")
    parser.add_argument("--level", choices=LEVELS, default="night", help="how much is played")
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument("--datasets", nargs="*", choices=MIXTURES, default=list(MIXTURES))
    parser.add_argument("--seeds", type=at_least_one, help="of the report; by default the level's")
    parser.add_argument(
        "--workers", type=at_least_one, default=1, help="trainings at a time, a core each"
    )
    parser.add_argument("--cpu-minutes", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--log", type=Path, help="by default benchmarks/training/coverage/LEVEL")
    parser.add_argument("--write", type=Path, help="page whose tables are written")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    name = "quick" if given.quick else given.level
    level = LEVELS[name]
    if given.write:
        check_page(given.write)
    seeds = given.seeds or level.seeds
    folder = Path(".benchmarks") if given.quick else Path(__file__).parent
    log = Log(given.log or folder / "coverage" / f"{name}.jsonl")
    bench = Benchmark(log, given.workers, given.cpu_minutes * 60)
    start = time.monotonic()
    for table in given.tables:
        if table == "recipe" and name == "quick":
            print("the recipes are left out: at their whole length they take minutes a seed")
        else:
            play_table(bench, table, level, given.datasets, given.arms, seeds)
    if given.write:
        fill(given.write, log, level, name)
        print(f"written: {given.write}")
    print(f"figure coverage_trainings {len(log.records)} trainings")
    spent = sum(record["cpu_s"] for record in log.records.values())
    print(f"figure coverage_cpu {spent / 60:.1f} min")
    print(f"figure coverage_time {(time.monotonic() - start) / 60:.1f} min")
    return 0


if __name__ == "__main__":
    sys.exit(main())
