"""Recipes that are about networks, each in the game of its paper, on the digits."""

from models.networks import R3GAN, VAEGAN, Progressive, ResNet
from training.config.training import TrainingConfig
from training.optim.schedules import Schedule
from training.recipes.recipe import (
    MIYATO,
    R3GAN_PAPER,
    STYLE_32,
    Recipe,
    adam,
    both,
    on_digits,
    terms,
)

_RESNET = ResNet(z_dim=64, ngf=4, ndf=8)
_R3GAN = R3GAN(
    z_dim=64, channel_base=256, channel_max=64, num_blocks=1, group_width=8, embed_dim=16
)
_PROGRESSIVE = Progressive(z_dim=64, channel_base=256, channel_max=64, embed_dim=16)
_VAEGAN = VAEGAN(z_dim=64, ngf=16, ndf=16, nef=16, embed_dim=16)

_STYLE_PAPER = "Karras et al. 2020, arXiv:1912.04958, with Karras et al. 2019, arXiv:1812.04948"


def _rpgan(recipe: str, *, conditional: bool = False) -> TrainingConfig:
    return on_digits(
        recipe,
        conditional=conditional,
        network=_R3GAN,
        objective="relativistic",
        regularizers=terms("r1=1", "r2=1"),
        schedules=(
            Schedule(target="r1", end=0.1, kimg=50, shape="cosine"),
            Schedule(target="r2", end=0.1, kimg=50, shape="cosine"),
        ),
    )


def _hinge_resnet(recipe: str, *, conditional: bool = False) -> TrainingConfig:
    return on_digits(
        recipe,
        conditional=conditional,
        network=_RESNET,
        objective="hinge",
        regularizers=terms("spectral=1"),
        optim_G=adam(5e-4, 0.0, 0.9),
        optim_D=adam(2e-3, 0.0, 0.9),
    )


def _style(recipe: str, *, conditional: bool = False) -> TrainingConfig:
    return on_digits(
        recipe,
        conditional=conditional,
        network=STYLE_32,
        regularizers=terms("r1=1/4"),
        **both(adam(4e-3, 0.0, 0.99)),
    )


RECIPES: dict[str, Recipe] = {
    "hinge-resnet": Recipe(
        about="hinge loss, residual blocks, spectral norm, two time scales",
        paper=f"{MIYATO}; Heusel et al. 2017, arXiv:1706.08500",
        published="CIFAR-10 FID 21.7 in the paper (its ResNet without classes; 50,000 steps of G)",
        measured="not since its networks were changed",
        config=_hinge_resnet("hinge-resnet"),
    ),
    "hinge-resnet-conditional": Recipe(
        about="the same by class: conditional batch norm in G, projection in D",
        paper=f"{MIYATO}; Miyato and Koyama 2018, arXiv:1802.05637",
        published="CIFAR-10 FID 9.0 (SNGAN), 4.2 (BigGAN), by class in StudioGAN",
        measured="not since its networks were changed",
        config=_hinge_resnet("hinge-resnet-conditional", conditional=True),
    ),
    "progressive": Recipe(
        about="both players grow from 4x4 to the full resolution",
        paper="Karras et al. 2018, arXiv:1710.10196",
        published="CIFAR-10 inception score 8.80 in the paper, without classes",
        measured="digits, 20 kimg: Frechet distance 1.2, coverage 0.40",
        config=on_digits(
            "progressive",
            network=_PROGRESSIVE,
            objective="wasserstein",
            regularizers=terms("wgan-gp=10", "drift=0.001"),
            **both(adam(4e-3, 0.0, 0.99)),
        ),
    ),
    "rpgan-r1r2": Recipe(
        about="relativistic pairs with R1 and R2 on residual networks; `folder` has them on DCGAN",
        paper=R3GAN_PAPER,
        published="StackedMNIST 1,000 of 1,000 modes in the paper; its FID is by class",
        measured="not since its networks were changed",
        config=_rpgan("rpgan-r1r2"),
    ),
    "rpgan-r1r2-conditional": Recipe(
        about="the same by class",
        paper=R3GAN_PAPER,
        published="CIFAR-10 FID 1.96 in the paper: by class, mirrored, augmented by ADA's policy; "
        "50,000 generated against the training images",
        measured="not since its networks were changed",
        config=_rpgan("rpgan-r1r2-conditional", conditional=True),
    ),
    "style": Recipe(
        about="a mapping network and modulated convolutions: truncation and mixing in w",
        paper=_STYLE_PAPER,
        published="CIFAR-10 FID 8.3 without classes in Karras et al. 2020, arXiv:2006.06676",
        measured="digits, 20 kimg: Frechet distance 6.9, coverage 0.22",
        config=_style("style"),
    ),
    "style-conditional": Recipe(
        about="the same by class",
        paper=_STYLE_PAPER,
        published="CIFAR-10 FID 3.8, with ADA 2.3, by class in StudioGAN",
        measured="not since its networks were changed",
        config=_style("style-conditional", conditional=True),
    ),
    "vaegan": Recipe(
        about="an encoder beside G, images rebuilt in D's features; the encoder is exported too",
        paper="Larsen et al. 2016, arXiv:1512.09300",
        published="none for this data; the paper has faces",
        measured="digits, 20 kimg: Frechet distance 0.6, coverage 0.60",
        config=on_digits(
            "vaegan",
            network=_VAEGAN,
            init_D="kaiming",
            regularizers=terms("r1=0.3", "r2=0.3", "prior=0.01", "reconstruction=1"),
        ),
    ),
}
