"""Recipes for the mixtures in the plane, whose modes can be counted."""

from models.networks import Plane
from training.config.training import TrainingConfig
from training.data import DataConfig
from training.optim.schedules import Schedule
from training.recipes.recipe import R3GAN_PAPER, Recipe, adam, both, terms


def on_mixture(recipe: str, dataset: str, *, total_kimg: float) -> TrainingConfig:
    """Returns relativistic pairs with small R1 and R2, whose rates fall along a cosine."""
    return TrainingConfig(
        recipe=recipe,
        data=DataConfig(dataset=dataset, resolution="2x1", conditional=False),
        network=Plane(),
        objective="relativistic",
        regularizers=terms("r1=0.1", "r2=0.1"),
        schedules=tuple(
            Schedule(target=f"optim_{player}.lr", end=1e-5, kimg=total_kimg, shape="cosine")
            for player in "GD"
        ),
        **both(adam(1e-3, 0.0, 0.99)),
        batch_size=256,
        total_kimg=total_kimg,
        ema_kimg=20.0,
        tick_kimg=total_kimg / 20,
    )


RECIPES: dict[str, Recipe] = {
    "ring-8": Recipe(
        about="points of eight Gaussians on a circle, whose modes are counted; minutes on one core",
        paper=R3GAN_PAPER,
        published="7.9 of 8 modes, 95.6 % good (PacGAN2 in Lin et al. 2018)",
        measured="not in the zoo: docs/coverage.md has it",
        config=on_mixture("ring-8", "ring-8", total_kimg=3000),
    ),
    "grid-25": Recipe(
        about="points of 25 Gaussians on a square, whose modes are counted; minutes on one core",
        paper=R3GAN_PAPER,
        published="24.8 of 25 modes, 93.6 % good (PacGAN4 in Lin et al. 2018)",
        measured="not in the zoo: docs/coverage.md has it",
        config=on_mixture("grid-25", "grid-25", total_kimg=6000),
    ),
}
