"""docs/networks.md says of each method whether it is as published, and names the test."""

import re
from pathlib import Path

from models.networks import FAMILIES
from training.game.objectives import OBJECTIVES
from training.game.regularizers import REGULARIZERS
from training.game.updates import UPDATES
from training.recipes import RECIPES

ROOT = Path(__file__).parents[3]
# Recipes that are about the data.
DATA = {"mnist", "fashion-mnist", "cifar10", "stacked-mnist", "folder", "ring-8", "grid-25"} | {
    "anomaly"
}


def rows() -> list[list[str]]:
    page = (ROOT / "docs" / "networks.md").read_text()
    section = page.partition("## Faithful, or how it differs")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_each_method_has_a_row() -> None:
    told = {name for row in rows() for name in re.findall("`([^`]+)`", row[0])}
    parts = {*FAMILIES, *OBJECTIVES, *REGULARIZERS, *UPDATES}
    methods = {name.removesuffix("-conditional") for name in RECIPES} - DATA
    presets = {name for name in methods if re.search(r"cifar10|256|1024|imagenet", name)}
    assert (parts | methods) - presets - told <= {"mlp", "maxout", "plane"}  # parts of recipes


def test_each_row_names_a_test_that_is_there() -> None:
    names = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for row in rows():
        assert len(row) == 4, row
        found = set(re.findall(r"`(test_\w+\.py)`", row[3]))
        assert found, row
        assert found <= names, row
