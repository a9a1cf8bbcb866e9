"""The catalogue: one short entry each, a configuration under a name with the paper it is from."""

from dataclasses import dataclass

import tyro

from models.networks import DCGAN, MLP
from training.config import TrainingConfig
from training.data import DataConfig
from training.optimizers import OptimizerConfig
from training.terms import Term


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named configuration."""

    config: TrainingConfig
    """Its options; every one can be overridden on the command line."""
    paper: str
    """Where the method is from."""
    about: str
    """One sentence for --list."""


def _regularized(gamma: float) -> tuple[Term, ...]:
    return (Term(name="r1", weight=gamma), Term(name="r2", weight=gamma))


_MESCHEDER = "Mescheder et al. 2018, arXiv:1801.04406 (R1, R2), on DCGAN (Radford et al. 2016)"
_ADAM = OptimizerConfig(lr=1e-3, betas=(0.0, 0.99))


def _dcgan(recipe: str, data: DataConfig, *, total_kimg: float, gamma: float) -> TrainingConfig:
    """A DCGAN with both zero-centred penalties, the default for data of one's own."""
    return TrainingConfig(
        recipe=recipe,
        data=data,
        network=DCGAN(),
        init_D="kaiming",
        regularizers=_regularized(gamma),
        optim_G=OptimizerConfig(lr=2e-4, betas=(0.0, 0.99)),
        optim_D=OptimizerConfig(lr=2e-4, betas=(0.0, 0.99)),
        total_kimg=total_kimg,
        tick_kimg=20,
    )


RECIPES: dict[str, Recipe] = {
    "digits": Recipe(
        about="scikit-learn's 1,797 digits at 32x32 by class; about a minute on two cores",
        paper=_MESCHEDER,
        config=TrainingConfig(
            recipe="digits",
            data=DataConfig(),
            network=DCGAN(z_dim=64, ngf=16, ndf=16, embed_dim=16),
            init_D="kaiming",
            regularizers=_regularized(0.3),
            optim_G=_ADAM,
            optim_D=_ADAM,
            batch_size=32,
            total_kimg=70,
            ema_kimg=4,
            tick_kimg=5,
        ),
    ),
    "article": Recipe(
        about="the founding article's perceptrons on MNIST as they stand, unregularised",
        paper="Goodfellow et al. 2014, arXiv:1406.2661",
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
        paper=_MESCHEDER,
        config=_dcgan("mnist", DataConfig(dataset="mnist"), total_kimg=1000, gamma=0.3),
    ),
    "fashion-mnist": Recipe(
        about="clothing at 32x32 by class",
        paper=_MESCHEDER,
        config=_dcgan(
            "fashion-mnist", DataConfig(dataset="fashion-mnist"), total_kimg=1500, gamma=0.3
        ),
    ),
    "cifar10": Recipe(
        about="colour photographs of ten classes at 32x32",
        paper=_MESCHEDER,
        config=_dcgan(
            "cifar10", DataConfig(dataset="cifar10", channels=3), total_kimg=5000, gamma=0.3
        ),
    ),
    "folder": Recipe(
        about="your own images at 64x64: folder --data.path DIR",
        paper=_MESCHEDER,
        config=_dcgan(
            "folder",
            DataConfig(
                dataset="folder", path=tyro.MISSING, resolution=64, channels=3, conditional=False
            ),
            total_kimg=2000,
            gamma=1.0,
        ),
    ),
}

DEFAULT = "digits"
