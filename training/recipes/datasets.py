"""Recipes that are about data: sized for it."""

from dataclasses import replace

import tyro

from models.networks import DCGAN, MLP, MaxoutPair
from training.config.compute import ComputeConfig
from training.config.training import TrainingConfig
from training.data import DataConfig
from training.optim.optimizers import OptimizerConfig
from training.optim.schedules import Schedule
from training.recipes.recipe import (
    DCGAN_32,
    MESCHEDER,
    R3GAN_PAPER,
    Recipe,
    adam,
    both,
    on_digits,
    terms,
)


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
        measured="digits, 20 kimg: Frechet distance 0.3, coverage 0.90",
        config=on_digits(
            "digits",
            conditional=True,
            init_D="kaiming",
            regularizers=terms("r1=0.3", "r2=0.3"),
            total_kimg=70,
        ),
    ),
    "article": Recipe(
        about="the listing of the founding article as it stands: small perceptrons, Adam",
        paper="its own listing (100-256-784, tanh, dropout, Adam) of the game of Goodfellow et al. "
        "2014, arXiv:1406.2661, whose own networks and optimiser `goodfellow` has",
        published="none for these networks",
        measured="digits, 20 kimg: Frechet distance 36.8, coverage 0.00",
        config=TrainingConfig(
            recipe="article",
            data=DataConfig(dataset="mnist", resolution=28, conditional=False),
            network=MLP(),
            total_kimg=3000,
            ema_kimg=0,
            tick_kimg=60,
        ),
    ),
    "goodfellow": Recipe(
        about="the first GAN: uniform latents, 1200-1200, maxout D with dropout, SGD with momentum",
        paper="Goodfellow et al. 2014, arXiv:1406.2661, by their published configuration",
        published="MNIST Parzen log-likelihood 225 +- 2 in the paper; no FID",
        measured="digits, 20 kimg: Frechet distance 31.4, coverage 0.00",
        config=TrainingConfig(
            recipe="goodfellow",
            data=DataConfig(dataset="mnist", resolution=28, conditional=False),
            network=MaxoutPair(),
            **both(OptimizerConfig(method="sgd", lr=0.1, betas=(0.5, 0.0))),
            # The momentum rises over 250 epochs, and the rate falls by 4e-6 a step (to 1e-6 at
            # last, which is far beyond): over so long a line as good as the exponential.
            schedules=(
                *(Schedule(target=f"optim_{p}.beta1", end=0.7, kimg=12_500) for p in "GD"),
                *(Schedule(target=f"optim_{p}.lr", end=0.06, kimg=12_500) for p in "GD"),
            ),
            batch_size=100,
            total_kimg=12_500,
            ema_kimg=0,
            tick_kimg=100,
        ),
    ),
    "mnist": Recipe(
        about="handwritten digits at 32x32 by class",
        paper=MESCHEDER,
        published="MNIST FID 6.8, unregularised, after a search (Lucic et al. 2018)",
        measured="not yet: the data was not at hand",
        config=_wide("mnist", DataConfig(dataset="mnist"), total_kimg=1000, gamma=0.3),
    ),
    "stacked-mnist": Recipe(
        about="three digits as RGB, 1,000 classes to be found without labels; hours on two cores",
        paper=R3GAN_PAPER,
        published="1,000 of 1,000 modes, reverse KL 0.029 in the paper",
        measured="not in the zoo; 500 kimg: 1,000 of 1,000 modes, reverse KL 0.058",
        config=TrainingConfig(
            recipe="stacked-mnist",
            data=DataConfig(dataset="stacked-mnist", channels=3, conditional=False),
            network=DCGAN(z_dim=64, ngf=32, ndf=32),
            init_D="kaiming",
            objective="relativistic",
            regularizers=terms("r1=1", "r2=1"),
            schedules=tuple(
                Schedule(target=f"optim_{player}.lr", end=5e-5, kimg=2000, shape="cosine")
                for player in "GD"
            ),
            **both(adam(5e-4, 0.0, 0.99)),
            batch_size=64,
            total_kimg=2000,
            ema_kimg=10,
            tick_kimg=20,
        ),
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
        published="none for this variant; DCGAN without classes and penalties has CIFAR-10 FID "
        "48.3 (StudioGAN)",
        measured="not yet: the data was not at hand",
        config=_wide(
            "cifar10", DataConfig(dataset="cifar10", channels=3), total_kimg=5000, gamma=0.3
        ),
    ),
    "emoji": Recipe(
        about="Noto's 3,926 emoji at 32x32 with transparency; Debian's fonts-noto-color-emoji",
        paper=R3GAN_PAPER,
        published="none for this data",
        measured="not yet: 45 kimg were looked at, heads and hearts with clean outlines",
        config=TrainingConfig(
            recipe="emoji",
            data=DataConfig(dataset="emoji", channels=4, conditional=False),
            network=DCGAN(z_dim=64, ngf=16, ndf=16),
            init_D="kaiming",
            objective="relativistic",
            regularizers=terms("r1=3", "r2=3"),
            optim_G=adam(1e-3, 0.0, 0.99),
            optim_D=adam(1e-3, 0.0, 0.99),
            batch_size=32,
            total_kimg=400,
            ema_kimg=3,
            tick_kimg=5,
        ),
    ),
    "anomaly": Recipe(
        about="one class, --data.only CLASS, a fifth of it kept for calibration: what is usual",
        paper="Schlegl et al. 2019, https://doi.org/10.1016/j.media.2019.01.010 (f-AnoGAN; its "
        f"WGAN-GP is here {MESCHEDER})",
        published="AUROC 0.93 on retinal scans in the paper; none for this data",
        measured="not in the zoo: docs/inversion.md has it",
        config=on_digits(
            "anomaly",
            data=DataConfig(only=tyro.MISSING, conditional=False, held_out=0.2),
            network=replace(DCGAN_32, z_dim=32),
            init_D="kaiming",
            regularizers=terms("r1=0.3", "r2=0.3"),
            total_kimg=40,
        ),
    ),
    "folder": Recipe(
        about="your own images: relativistic pairs with R1 and R2 on DCGAN; --data.path DIR",
        paper=R3GAN_PAPER,
        published="none for your data; `r3gan-cifar10` and `r3gan-ffhq256` have the paper's",
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
