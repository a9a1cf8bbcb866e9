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
from training.recipes import RECIPES
from training.regularizers import PENALTIES
from training.updates import UPDATES
from training.views import VIEWS


def catalogue() -> str:
    """What --list prints."""
    sections = {
        "recipes": {
            name: (
                recipe.about,
                "; published: ".join(filter(None, (recipe.paper, recipe.published))),
            )
            for name, recipe in RECIPES.items()
        },
        "objectives": {name: ("", entry.paper) for name, entry in OBJECTIVES.items()},
        "regularizers": {
            name: (f"added to {entry.player}'s loss", entry.paper)
            for name, entry in PENALTIES.items()
        }
        | {name: (entry.about, entry.paper) for name, entry in CONSTRAINTS.items()}
        | {name: (entry.about, entry.paper) for name, entry in VIEWS.items()},
        "augmentations": {name: ("", entry.paper) for name, entry in AUGMENTATIONS.items()}
        | {name: (f"all of {', '.join(names)}", "") for name, names in POLICIES.items()},
        "updates": {name: ("", entry.paper) for name, entry in UPDATES.items()},
        "optimizers": {name: ("", entry.paper) for name, entry in METHODS.items()},
        "corruptions": {name: (entry.about, entry.paper) for name, entry in CORRUPTIONS.items()},
        "initializations": {name: ("", entry.paper) for name, entry in INITIALIZATIONS.items()},
        "networks": {name: (cls.__doc__ or "", "") for name, cls in FAMILIES.items()},
    }
    lines = []
    for section, entries in sections.items():
        lines.append(f"{section}:")
        for name, (about, paper) in entries.items():
            lines.append(f"  {name:<16}{about}" if about else f"  {name:<16}{paper}")
            if about and paper:
                lines.append(f"  {'':<16}{paper}")
    return "\n".join(lines)
