"""Recipes that are about data: sized for it."""

import tyro

from models.networks import DCGAN, MLP
from training.compute import ComputeConfig
from training.config import TrainingConfig
from training.data import DataConfig
from training.recipes.recipe import MESCHEDER, R3GAN_PAPER, Recipe, adam, on_digits, terms
from training.schedules import Schedule


def _wide(recipe: str, data: DataConfig, *, total_kimg: float, gamma: float) -> TrainingConfig:
    """A DCGAN of the paper's width with both zero-centred penalties."""
    return TrainingConfig(
        recipe=recipe,
        data=data,
        network=DCGAN(),
        init_D="kaiming",
        regularizers=terms(f"r1={gamma}", f"r2={gamma}"),
        optim_G=adam(2e-4, 0.0, 0.99),
        optim_D=adam(2e-4, 0.0, 0.99),
        total_kimg=total_kimg,
        tick_kimg=20,
    )


RECIPES: dict[str, Recipe] = {
    "digits": Recipe(
        about="scikit-learn's 1,797 digits at 32x32 by class; about a minute on two cores",
        paper=MESCHEDER,
        published="none for this data",
        measured="digits, 20 kimg: Frechet distance 0.2, coverage 0.91",
        config=on_digits(
            "digits",
            conditional=True,
            init_D="kaiming",
            regularizers=terms("r1=0.3", "r2=0.3"),
            total_kimg=70,
        ),
    ),
    "article": Recipe(
        about="the perceptrons of the founding article as they stand, unregularised",
        paper="Goodfellow et al. 2014, arXiv:1406.2661",
        published="MNIST FID 6.8 after a search over 100 settings (Lucic et al. 2018)",
        measured="digits, 20 kimg: Frechet distance 36.9, coverage 0.00",
        config=TrainingConfig(
            recipe="article",
            data=DataConfig(dataset="mnist", resolution=28, conditional=False),
            network=MLP(),
            total_kimg=3000,
            ema_kimg=0,
            tick_kimg=60,
        ),
    ),
    "mnist": Recipe(
        about="handwritten digits at 32x32 by class",
        paper=MESCHEDER,
        published="MNIST FID 6.8, unregularised, after a search (Lucic et al. 2018)",
        measured="not yet: the data was not at hand",
        config=_wide("mnist", DataConfig(dataset="mnist"), total_kimg=1000, gamma=0.3),
    ),
    "fashion-mnist": Recipe(
        about="clothing at 32x32 by class",
        paper=MESCHEDER,
        published="Fashion-MNIST FID 26.5, unregularised, after a search (Lucic et al. 2018)",
        measured="not yet: the data was not at hand",
        config=_wide(
            "fashion-mnist", DataConfig(dataset="fashion-mnist"), total_kimg=1500, gamma=0.3
        ),
    ),
    "cifar10": Recipe(
        about="colour photographs of ten classes at 32x32",
        paper=MESCHEDER,
        published="CIFAR-10 FID 48.3 (DCGAN in StudioGAN), 1.96 (both penalties on R3GAN)",
        measured="not yet: the data was not at hand",
        config=_wide(
            "cifar10", DataConfig(dataset="cifar10", channels=3), total_kimg=5000, gamma=0.3
        ),
    ),
    "folder": Recipe(
        about="your own images: relativistic pairs with R1 and R2 on DCGAN; --data.path DIR",
        paper=R3GAN_PAPER,
        published="none for your data; CIFAR-10 FID 1.96 with R3GAN networks in the paper",
        measured="not here: it is your data",
        config=TrainingConfig(
            recipe="folder",
            data=DataConfig(
                dataset="folder", path=tyro.MISSING, resolution=64, channels=3, conditional=False
            ),
            network=DCGAN(),
            init_D="kaiming",
            objective="relativistic",
            regularizers=terms("r1=10", "r2=10"),
            schedules=(
                Schedule(target="r1", end=1, kimg=500, shape="cosine"),
                Schedule(target="r2", end=1, kimg=500, shape="cosine"),
                Schedule(target="optim_G.lr", end=5e-5, kimg=500, shape="cosine"),
                Schedule(target="optim_D.lr", end=5e-5, kimg=500, shape="cosine"),
            ),
            optim_G=adam(2e-4, 0.0, 0.99),
            optim_D=adam(2e-4, 0.0, 0.99),
            total_kimg=2000,
            ema_kimg=20,
            tick_kimg=20,
            compute=ComputeConfig(channels_last=True),
        ),
    ),
}
