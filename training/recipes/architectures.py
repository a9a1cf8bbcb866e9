"""Recipes that are about networks, each in the game of its paper, on the digits."""

from models.networks import R3GAN, VAEGAN, Progressive, ResNet, Style
from training.config import TrainingConfig
from training.recipes.recipe import MIYATO, R3GAN_PAPER, Recipe, adam, both, on_digits, terms
from training.schedules import Schedule

_RESNET = ResNet(z_dim=64, ngf=4, ndf=8)
_R3GAN = R3GAN(
    z_dim=64, channel_base=256, channel_max=64, num_blocks=1, group_width=8, embed_dim=16
)
_PROGRESSIVE = Progressive(z_dim=64, channel_base=256, channel_max=64, embed_dim=16)
_STYLE = Style(z_dim=64, w_dim=64, mapping_layers=4, channel_base=256, channel_max=64)
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
        network=_STYLE,
        regularizers=terms("r1=1/4"),
        **both(adam(4e-3, 0.0, 0.99)),
    )


RECIPES: dict[str, Recipe] = {
    "hinge-resnet": Recipe(
        about="hinge loss, residual blocks, spectral norm, two time scales",
        paper=f"{MIYATO}; Heusel et al. 2017, arXiv:1706.08500",
        published="CIFAR-10 FID 9.0 (SNGAN in StudioGAN), 4.2 (BigGAN)",
        measured="digits, 20 kimg: Frechet distance 2.4, coverage 0.34",
        config=_hinge_resnet("hinge-resnet"),
    ),
    "hinge-resnet-conditional": Recipe(
        about="the same by class: conditional batch norm in G, projection in D",
        paper=f"{MIYATO}; Miyato and Koyama 2018, arXiv:1802.05637",
        published="CIFAR-10 FID 4.2 (BigGAN in StudioGAN)",
        measured="digits, 20 kimg: Frechet distance 3.3, coverage 0.30",
        config=_hinge_resnet("hinge-resnet-conditional", conditional=True),
    ),
    "progressive": Recipe(
        about="both players grow from 4x4 to the full resolution",
        paper="Karras et al. 2018, arXiv:1710.10196",
        published="CIFAR-10 inception score 8.80 in the paper",
        measured="digits, 20 kimg: Frechet distance 1.5, coverage 0.42",
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
        published="CIFAR-10 FID 1.96, StackedMNIST 1,000 of 1,000 modes in the paper",
        measured="digits, 20 kimg: Frechet distance 2.3, coverage 0.36",
        config=_rpgan("rpgan-r1r2"),
    ),
    "rpgan-r1r2-conditional": Recipe(
        about="the same by class",
        paper=R3GAN_PAPER,
        published="CIFAR-10 FID 1.96 in the paper",
        measured="digits, 20 kimg: Frechet distance 0.8, coverage 0.69",
        config=_rpgan("rpgan-r1r2-conditional", conditional=True),
    ),
    "style": Recipe(
        about="a mapping network and modulated convolutions: truncation and mixing in w",
        paper=_STYLE_PAPER,
        published="CIFAR-10 FID 3.8, with ADA 2.3 (StudioGAN)",
        measured="digits, 20 kimg: Frechet distance 4.4, coverage 0.30",
        config=_style("style"),
    ),
    "style-conditional": Recipe(
        about="the same by class",
        paper=_STYLE_PAPER,
        published="CIFAR-10 FID 2.4 with ADA in Karras et al. 2020, arXiv:2006.06676",
        measured="digits, 20 kimg: Frechet distance 1.0, coverage 0.70",
        config=_style("style-conditional", conditional=True),
    ),
    "vaegan": Recipe(
        about="an encoder beside G, images rebuilt in D's features; the encoder is exported too",
        paper="Larsen et al. 2016, arXiv:1512.09300",
        published="none for this data; the paper has faces",
        measured="digits, 20 kimg: Frechet distance 0.6, coverage 0.56",
        config=on_digits(
            "vaegan",
            network=_VAEGAN,
            init_D="kaiming",
            regularizers=terms("r1=0.3", "r2=0.3", "prior=0.01", "reconstruction=1"),
        ),
    ),
}
