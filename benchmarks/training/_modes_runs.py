"""The trainings of the coverage benchmark: what one is, and playing it."""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from _log import Log, Record, key_of
from _modes_arms import ARMS, Knobs, authors, harness

from training.config.training import TrainingConfig, to_builtins
from training.data import Batches, load
from training.engine.state import State
from training.engine.stepper import Stepper
from training.evaluation.metrics.modes import MIXTURES, NUM_SAMPLES, modes
from training.randomness import normal
from training.recipes import RECIPES

CPU = torch.device("cpu")
_LATENTS = 1 << 32  # seeds of the latents that are measured: none of the training's
_MANY, _MANY_LATENTS = 20_000, 2 << 32
BESIDE = 10.0  # sigma from the nearest centre up to which a point belongs to a mode, if not well


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training."""

    table: str
    """recipe: as `training.run` has it; authors; search; tuned; or range."""
    arm: str
    dataset: str
    seed: int
    kimg: float = 0.0
    """Images shown to D; 0 where a share of the authors' steps says it."""
    share: float = 0.0
    """Of the authors' steps."""
    knobs: Knobs | None = None

    @property
    def key(self) -> str:
        return key_of(asdict(self))

    @property
    def digest(self) -> str:
        """Of the whole configuration, which an arm or a recipe may change."""
        told = json.dumps(to_builtins(self.config), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def among(self, log: Log) -> Record | None:
        """Its record, if it was played as it would be now; the first rows name no digest."""
        found = log.of(self.key)
        return found if found is None or found.get("config", self.digest) == self.digest else None

    @property
    def config(self) -> TrainingConfig:
        if self.table == "recipe":
            config = RECIPES[self.dataset].config
            assert config.total_kimg == self.kimg
            return replace(config, seed=self.seed)
        if self.knobs is None:
            return authors(self.arm, self.dataset, share=self.share, seed=self.seed)
        return harness(self.arm, self.dataset, self.knobs, kimg=self.kimg, seed=self.seed)

    @property
    def name(self) -> str:
        knobs = "" if self.knobs is None else f" {self.knobs.text}"
        return f"{self.table} {self.dataset} {self.arm} seed {self.seed}{knobs}"


def play(job: Job) -> Record:
    """Trains on one thread and counts the modes of 2,500 points."""
    torch.set_num_threads(1)
    config, mixture = job.config, MIXTURES[job.dataset]
    images = load(config.data)
    state = State.fresh(config, images.shape, CPU)
    batches = Batches(images, batch_size=config.batch_size, seed=config.seed)
    stepper = Stepper(config, state, batches)
    start, failed = time.process_time(), None
    while state.cur_nimg < config.total_nimg and failed is None:
        stepper.step()
        if (non_finite := stepper.non_finite()) is not None:
            failed = f"{', '.join(non_finite.terms)} not finite"
    spent = time.process_time() - start
    found = modes(points(state.G_ema, config, job.seed) * mixture.unit, mixture)
    rounds = state.cur_nimg // config.round_nimg
    many = shares(state.G_ema, config, job) if job.table == "recipe" else {}
    return {
        "config": job.digest,
        "job": asdict(job),
        "modes": found.caught,
        "good": round(found.good_share, 4),
        "reverse_kl": round(found.reverse_kl, 5) if math.isfinite(found.reverse_kl) else None,
        "steps_G": rounds * config.steps_G,
        "shown_kimg": state.cur_nimg / 1000,
        "cpu_s": round(spent, 1),
        "failed": failed,
        **many,
    }


@torch.no_grad()
def points(G: torch.nn.Module, config: TrainingConfig, seed: int, num: int = NUM_SAMPLES) -> Any:
    """Generates points [num, 2], in units of the standard deviation. seed: of their latents."""
    z = normal((num, config.network.z_dim), torch.Generator(), _LATENTS + seed)
    return G.eval()(z).reshape(num, 2).numpy()


def shares(G: torch.nn.Module, config: TrainingConfig, job: Job) -> Record:
    """Where 20,000 points fall: on a mode, beside one (3 to 10 sigma), or between modes.

    2,500 points have a standard error of 0.4 %, these 0.14 %.
    """
    mixture = MIXTURES[job.dataset]
    places = points(G, config, _MANY_LATENTS + job.seed, _MANY) * mixture.unit
    apart = places[:, None] - np.asarray(mixture.centres)
    sigmas = np.linalg.norm(apart, axis=2).min(1) / mixture.sigma
    good, beyond = float((sigmas < 3).mean()), float((sigmas > BESIDE).mean())
    return {
        "good_of_many": round(good, 5),
        "beside": round(1 - good - beyond, 5),
        "between": round(beyond, 5),
    }


def score(record: Record) -> tuple[float, float, float]:
    """What the search maximises: modes, then good points; a training that failed is the worst."""
    if record["failed"]:
        return (-1.0, 0.0, 0.0)
    kl = record["reverse_kl"]
    return (record["modes"], record["good"], -math.inf if kl is None else -kl)


def recipe_jobs(datasets: Sequence[str], seeds: int) -> Iterator[Job]:
    """The recipes that `training.run` has."""
    for seed in range(seeds):
        for dataset in datasets:
            # With the length: a recipe of another one is another training.
            kimg = float(RECIPES[dataset].config.total_kimg)
            yield Job(table="recipe", arm="rpgan-r1-r2", dataset=dataset, seed=seed, kimg=kimg)


def range_jobs(datasets: Sequence[str], arms: Sequence[str], grid: list[Knobs], kimg: float) -> (
    Iterator[Job]
):  # fmt: skip
    """A fixed grid for every arm; a cell that an arm doesn't have is left out."""
    for dataset in datasets:
        for arm in arms:
            seen = set()
            for knobs in grid:
                entry = ARMS[arm]
                if knobs.steps_D > 1 and not entry.takes_turns:
                    continue
                if entry.beta1 is not None:
                    knobs = Knobs(**{**asdict(knobs), "beta1": entry.beta1})
                if knobs not in seen:
                    seen.add(knobs)
                    yield Job(
                        table="range", arm=arm, dataset=dataset, seed=0, kimg=kimg, knobs=knobs
                    )
