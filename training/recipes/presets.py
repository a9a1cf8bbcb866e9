"""Published trainings at their published sizes: networks, optimisers, schedules, lengths.

They need a GPU. docs/networks.md says what each has in common with its paper's and what not. All
draw a batch of their own for G's steps, as their code does.
"""

from dataclasses import replace
from typing import Any

import tyro

from models.networks import R3GAN, Progressive, ResNet, Style
from training.config.compute import ComputeConfig
from training.config.training import TrainingConfig
from training.data import DataConfig
from training.optim.schedules import Schedule
from training.recipes.recipe import MIYATO, R3GAN_PAPER, Recipe, adam, both, terms
from training.transforms.augmentation import AugmentConfig

_STYLEGAN2 = "Karras et al. 2020, arXiv:1912.04958, configuration F"
_UNMEASURED = "not yet: it takes GPU-days"
_CIFAR10 = DataConfig(dataset="cifar10", resolution=32, channels=3, conditional=False)
_CIFAR10_MIRRORED = replace(_CIFAR10, conditional=True, mirror=True)


def _folder(resolution: int, *, conditional: bool = False, mirror: bool = False) -> DataConfig:
    return DataConfig(
        dataset="folder",
        path=tyro.MISSING,
        resolution=resolution,
        channels=3,
        conditional=conditional,
        mirror=mirror,
    )


def _preset(recipe: str, **options: Any) -> TrainingConfig:
    defaults: dict[str, Any] = {
        "recipe": recipe,
        "fresh_batch_G": True,
        "tick_kimg": 50.0,
        "compute": ComputeConfig(channels_last=True),
    }
    return TrainingConfig(**{**defaults, **options})


def _r3gan(
    recipe: str,
    data: DataConfig,
    network: R3GAN,
    *,
    gammas: tuple[float, float],
    ema_kimg: float,
    augment: float,
    batch_size: int,
    total_kimg: float,
) -> TrainingConfig:
    """The authors' configuration: everything follows cosines over the whole length."""
    ends = {
        "r1": gammas[1],
        "r2": gammas[1],
        "ema_kimg": ema_kimg,
        "augment.probability": augment,
        **{f"optim_{player}.lr": 5e-5 for player in "GD"},
        **{f"optim_{player}.beta2": 0.99 for player in "GD"},
    }
    return _preset(
        recipe,
        data=data,
        network=network,
        objective="relativistic",
        regularizers=terms(f"r1={gammas[0]}", f"r2={gammas[0]}"),
        schedules=tuple(
            Schedule(target=target, end=end, kimg=total_kimg, shape="cosine")
            for target, end in ends.items()
        ),
        augment=AugmentConfig(policy=("r3gan",), probability=0.0),
        **both(adam(2e-4, 0.0, 0.9)),
        batch_size=batch_size,
        total_kimg=total_kimg,
        ema_kimg=0.0,
        ema_rampup=0.0,
    )


def _stylegan2(recipe: str, resolution: int, **options: Any) -> TrainingConfig:
    return _preset(
        recipe,
        data=_folder(resolution, mirror=True),
        lazy_steps=True,
        ema_rampup=0.0,
        total_kimg=25_000.0,
        **options,
    )


def _resnet(
    recipe: str, *, lr: float, total_kimg: float, decays: bool = True, **options: Any
) -> TrainingConfig:
    """Five steps of D to one of G; the rate falls to 0 over the whole length."""
    ends = [Schedule(target=f"optim_{player}.lr", end=0.0, kimg=total_kimg) for player in "GD"]
    return _preset(
        recipe,
        **both(adam(lr, 0.0, 0.9)),
        schedules=tuple(ends) if decays else (),
        steps_D=5,
        batch_size=64,
        total_kimg=total_kimg,
        ema_kimg=0.0,
        **options,
    )


RECIPES: dict[str, Recipe] = {
    "r3gan-cifar10": Recipe(
        about="R3GAN on CIFAR-10 by class, at the paper's size",
        paper=R3GAN_PAPER,
        published="CIFAR-10 FID 1.96 in the paper: by class, mirrored, 50,000 generated "
        "against the training images",
        measured=_UNMEASURED,
        config=_r3gan(
            "r3gan-cifar10",
            _CIFAR10_MIRRORED,
            R3GAN(),
            gammas=(0.05, 0.005),
            ema_kimg=5000,
            augment=0.55,
            batch_size=512,
            total_kimg=20_000,
        ),
    ),
    "r3gan-ffhq256": Recipe(
        about="R3GAN on FFHQ at 256x256, at the paper's size; --data.path DIR",
        paper=R3GAN_PAPER,
        published="FFHQ-256 FID 2.75 in the paper: mirrored, 50,000 generated against all images",
        measured=_UNMEASURED,
        config=_r3gan(
            "r3gan-ffhq256",
            _folder(256, mirror=True),
            R3GAN(),
            gammas=(150, 15),
            ema_kimg=500,
            augment=0.3,
            batch_size=256,
            total_kimg=20_000,
        ),
    ),
    "r3gan-imagenet32": Recipe(
        about="R3GAN on ImageNet at 32x32 by class, at the paper's size; --data.path DIR",
        paper=R3GAN_PAPER,
        published="ImageNet-32 FID 1.27 in the paper: by class, mirrored, 50,000 generated "
        "against all",
        measured=_UNMEASURED,
        config=_r3gan(
            "r3gan-imagenet32",
            _folder(32, conditional=True, mirror=True),
            R3GAN(channel_base=49_152, channel_max=1536, group_width=32),
            gammas=(0.5, 0.05),
            ema_kimg=50_000,
            augment=0.5,
            batch_size=4096,
            total_kimg=200_000,
        ),
    ),
    "stylegan2-256": Recipe(
        about="StyleGAN2 at 256x256, as the ADA paper trains its baseline; --data.path DIR",
        paper=f"{_STYLEGAN2}, at the sizes of Karras et al. 2020, arXiv:2006.06676",
        published="FFHQ-256 FID 3.66 in the ADA paper: mirrored, 50,000 generated against all",
        measured=_UNMEASURED,
        config=_stylegan2(
            "stylegan2-256",
            256,
            network=Style(mbstd_group=8),
            regularizers=terms("r1=1/16", "path-length=2/4"),
            **both(adam(2.5e-3, 0.0, 0.99)),
            batch_size=64,
            ema_kimg=20.0,
        ),
    ),
    "stylegan2-ffhq1024": Recipe(
        about="StyleGAN2 on FFHQ at 1024x1024, configuration F; --data.path DIR",
        paper=_STYLEGAN2,
        published="FFHQ-1024 FID 2.84 in the paper: mirrored, 50,000 generated against all images",
        measured=_UNMEASURED,
        config=_stylegan2(
            "stylegan2-ffhq1024",
            1024,
            network=Style(channel_base=32_768),
            regularizers=terms("r1=10/16", "path-length=2/4"),
            **both(adam(2e-3, 0.0, 0.99)),
            batch_size=32,
            ema_kimg=10.0,
        ),
    ),
    "sngan-cifar10": Recipe(
        about="SN-GAN's ResNet on CIFAR-10, hinge loss, five steps of D, at the paper's size",
        paper=MIYATO,
        published="CIFAR-10 FID 21.7 in the paper: without classes, 5,000 generated "
        "against 10,000 test images",
        measured=_UNMEASURED,
        config=_resnet(
            "sngan-cifar10",
            lr=2e-4,
            total_kimg=16_000,  # 50,000 steps of G
            data=_CIFAR10,
            network=ResNet(),
            objective="hinge",
            regularizers=terms("spectral=1"),
        ),
    ),
    "wgan-gp-cifar10": Recipe(
        about="WGAN-GP's ResNet on CIFAR-10, five steps of D, at the paper's size",
        paper="Gulrajani et al. 2017, arXiv:1704.00028",
        published="CIFAR-10 inception score 7.86 in the paper, without classes; no FID",
        measured=_UNMEASURED,
        config=_resnet(
            "wgan-gp-cifar10",
            lr=2e-4,
            total_kimg=32_000,  # 100,000 steps of G
            data=_CIFAR10,
            network=ResNet(ngf=32, d_pool="mean"),
            objective="wasserstein",
            regularizers=terms("wgan-gp=10"),
        ),
    ),
    "wgan-gp-64": Recipe(
        about="WGAN-GP's ResNet at 64x64, layer norm in D, at the paper's size; --data.path DIR",
        paper="Gulrajani et al. 2017, arXiv:1704.00028",
        published="none for this data in figures; the paper shows LSUN bedrooms",
        measured=_UNMEASURED,
        config=_resnet(
            "wgan-gp-64",
            lr=1e-4,
            total_kimg=64_000,  # 200,000 steps of G
            decays=False,
            data=_folder(64),
            network=ResNet(form="wgan-gp", d_norm="layer"),
            objective="wasserstein",
            regularizers=terms("wgan-gp=10"),
        ),
    ),
    "progressive-256": Recipe(
        about="progressive growing to 256x256, at the paper's widths; --data.path DIR",
        paper="Karras et al. 2018, arXiv:1710.10196",
        published="none comparable: the paper gives sliced Wasserstein distances at 128 and 256",
        measured=_UNMEASURED,
        config=_preset(
            "progressive-256",
            data=_folder(256),
            network=Progressive(),
            objective="wasserstein",
            regularizers=terms("wgan-gp=10", "drift=0.001"),
            **both(adam(1e-3, 0.0, 0.99)),
            batch_size=16,
            total_kimg=12_000.0,
            ema_kimg=10.0,
        ),
    ),
}
