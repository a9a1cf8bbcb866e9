"""The catalogue: configurations under a name, each with the paper it is from.

What a recipe is about is its game. Those that are about a method are sized for scikit-learn's
digits, so that they train anywhere in minutes; `--data.dataset`, `--data.path`, `--network.ngf`
and so on put the same game on other images and wider networks. Those that are about data (mnist,
cifar10, folder) are sized for it.
"""

from training.recipes import architectures, datasets, games
from training.recipes.recipe import Recipe

__all__ = ["DEFAULT", "RECIPES", "Recipe"]

RECIPES: dict[str, Recipe] = datasets.RECIPES | games.RECIPES | architectures.RECIPES
DEFAULT = "digits"
