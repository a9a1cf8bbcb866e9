"""The zoo's cells: a recipe, a data set and a seed; its configuration, where its result lies."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.config.training import TrainingConfig
from training.data import DataConfig
from training.recipes import RECIPES, mixtures, presets

MARKS = 8
DATASETS = ("digits",)
# Recipes that are about data, or of a size that needs GPU-days.
NOT_METHODS = (
    *("mnist", "fashion-mnist", "cifar10", "emoji", "stacked-mnist", "anomaly", "folder"),
    *mixtures.RECIPES,
    *presets.RECIPES,
)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much each cell of a data set is trained."""

    kimg: float
    batch_size: int | None = None  # None: the recipe's


BUDGETS = {
    "digits": Budget(kimg=20),
}
QUICK = {
    "digits": Budget(kimg=2),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training."""

    recipe: str
    dataset: str
    seed: int
    budget: Budget

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.recipe}-{self.seed}"

    def config(self, tick_kimg: float | None = None) -> TrainingConfig:
        """The recipe's at this budget: its schedules are stretched to it."""
        config = RECIPES[self.recipe].config
        stretch = self.budget.kimg / config.total_kimg
        schedules = tuple(replace(each, kimg=each.kimg * stretch) for each in config.schedules)
        options: dict[str, Any] = {
            "schedules": schedules,
            "total_kimg": self.budget.kimg,
            "tick_kimg": tick_kimg or self.budget.kimg,
            "seed": self.seed,
        }
        if self.budget.batch_size:
            options["batch_size"] = self.budget.batch_size
        if config.data.dataset != "digits":
            options["data"] = DataConfig(conditional=config.data.conditional)
        return replace(config, **options)


def made(cell: Cell, out: Path) -> dict[str, Any] | None:
    """The cell's result, if it was made at this budget."""
    path = out / f"{cell.name}.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    return result if result["cell"] == asdict(cell) else None


def cells(
    datasets: list[str], recipes: list[str], num_seeds: int, *, quick: bool
) -> Iterator[Cell]:
    for seed in range(num_seeds):
        for dataset in datasets:
            for recipe in recipes:
                budget = (QUICK if quick else BUDGETS)[dataset]
                yield Cell(recipe=recipe, dataset=dataset, seed=seed, budget=budget)
