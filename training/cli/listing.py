"""The text of `--list`: every registry of training with its entries and their papers."""

from models.networks import FAMILIES
from training.game.objectives import OBJECTIVES
from training.game.penalties import PENALTIES
from training.game.updates import UPDATES
from training.optim.constraints import CONSTRAINTS
from training.optim.initialization import INITIALIZATIONS
from training.optim.optimizers import METHODS
from training.recipes import RECIPES, Recipe
from training.transforms.augmentation_ops import AUGMENTATIONS, POLICIES
from training.transforms.corruption import CORRUPTIONS
from training.transforms.input_noise import INPUT_NOISES

_Entries = dict[str, tuple[str, ...]]

_LOSSES = {"G": "G's loss", "D": "D's loss", "both": "both losses"}


def listing() -> str:
    """Every entry of every registry: its name, and beside it its description and paper."""
    penalties: _Entries = {
        name: (f"added to {_LOSSES[entry.player]}", entry.paper)
        for name, entry in PENALTIES.items()
    }
    augmentations: _Entries = {name: (entry.paper,) for name, entry in AUGMENTATIONS.items()}
    sections: dict[str, _Entries] = {
        "recipes": {name: _recipe(recipe) for name, recipe in RECIPES.items()},
        "objectives": {name: (entry.paper,) for name, entry in OBJECTIVES.items()},
        "regularizers": penalties
        | {name: (entry.about, entry.paper) for name, entry in CONSTRAINTS.items()}
        | {name: (entry.about, entry.paper) for name, entry in INPUT_NOISES.items()},
        "augmentations": augmentations
        | {name: (f"all of {', '.join(names)}",) for name, names in POLICIES.items()},
        "updates": {name: (entry.paper,) for name, entry in UPDATES.items()},
        "optimizers": {name: (entry.paper,) for name, entry in METHODS.items()},
        "corruptions": {name: (entry.about, entry.paper) for name, entry in CORRUPTIONS.items()},
        "initializations": {name: (entry.paper,) for name, entry in INITIALIZATIONS.items()},
        "networks": {name: (cls.__doc__ or "",) for name, cls in FAMILIES.items()},
    }
    width = max(len(name) for entries in sections.values() for name in entries) + 2
    lines = []
    for section, entries in sections.items():
        lines.append(f"{section}:")
        for name, texts in entries.items():
            first, *rest = [text for text in texts if text] or [""]
            lines.append(f"  {name:<{width}}{first}".rstrip())
            lines += [f"  {'':<{width}}{text}" for text in rest]
    return "\n".join(lines)


def short_listing() -> str:
    """A line for each recipe: its name, its data, its length in kimg and what it is."""
    rows = [("RECIPE", "DATA", "KIMG", "")]
    rows += [
        (name, recipe.data, f"{recipe.config.total_kimg:g}", recipe.about)
        for name, recipe in RECIPES.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
        for row in rows
    )


def _recipe(recipe: Recipe) -> tuple[str, ...]:
    return (
        recipe.about,
        f"data: {recipe.data}, {recipe.config.total_kimg:g} kimg",
        f"paper: {recipe.paper}",
        f"published: {recipe.published}",
        f"measured here: {recipe.measured}",
    )
