"""The catalogue: configurations under a name, each with the paper it is from.

Recipes that are about a method are sized for scikit-learn's digits, so that they train anywhere in
minutes; `--data.dataset`, `--data.path`, `--network.ngf` and so on put the same game on other
images and wider networks. Recipes that are about data (mnist, cifar10, folder) are sized for it,
presets (r3gan-cifar10 ...) as their papers are.
"""

from training.recipes import architectures, datasets, methods, mixtures, presets
from training.recipes.recipe import Recipe

__all__ = ["DEFAULT", "RECIPES", "Recipe"]

RECIPES: dict[str, Recipe] = {
    **datasets.RECIPES,
    **methods.RECIPES,
    **architectures.RECIPES,
    **mixtures.RECIPES,
    **presets.RECIPES,
}
DEFAULT = "digits"
