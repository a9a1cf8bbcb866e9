"""What there is to choose from: every registry of training, for `--list`.

Reads the registries and prints them; knows nothing else of what they hold.
"""

from models.networks import FAMILIES
from training.augmentations import AUGMENTATIONS, POLICIES
from training.constraints import CONSTRAINTS
from training.corruption import CORRUPTIONS
from training.initialization import INITIALIZATIONS
from training.objectives import OBJECTIVES
from training.optimizers import METHODS
from training.recipes import RECIPES, Recipe
from training.regularizers import PENALTIES
from training.updates import UPDATES
from training.views import VIEWS

_Entries = dict[str, tuple[str, ...]]

_LOSSES = {"G": "G's loss", "D": "D's loss", "both": "both losses"}


def catalogue() -> str:
    """What --list prints: of each entry its name and, below each other, what is said of it."""
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
        | {name: (entry.about, entry.paper) for name, entry in VIEWS.items()},
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
        for name, said in entries.items():
            first, *rest = [text for text in said if text] or [""]
            lines.append(f"  {name:<{width}}{first}".rstrip())
            lines += [f"  {'':<{width}}{text}" for text in rest]
    return "\n".join(lines)


def _recipe(recipe: Recipe) -> tuple[str, ...]:
    return (
        recipe.about,
        f"data: {recipe.data}, {recipe.config.total_kimg:g} kimg",
        f"paper: {recipe.paper}",
        f"published: {recipe.published}",
        f"measured here: {recipe.measured}",
    )
