"""The catalogue: one short entry each, a configuration under a name with the paper it is from.

What a recipe is about is its game. Those that are about a method are sized for scikit-learn's
digits, so that they train anywhere in minutes; `--data.dataset`, `--data.path`, `--network.ngf`
and so on put the same game on other images and wider networks. Those that are about data (mnist,
cifar10, folder) are sized for it.
"""

from dataclasses import dataclass, replace
from typing import Any

import tyro

from models.networks import DCGAN, MLP, R3GAN, VAEGAN, Progressive, ResNet, Style
from training.augment import AugmentConfig
from training.compute import ComputeConfig
from training.config import TrainingConfig
from training.data import DataConfig
from training.optimizers import OptimizerConfig
from training.schedules import Schedule
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
    published: str = ""
    """What has been reported for the method, with its data; ours are in docs/zoo.md."""


def adam(lr: float, beta1: float, beta2: float) -> OptimizerConfig:
    """Adam, in one line."""
    return OptimizerConfig(lr=lr, betas=(beta1, beta2))


def terms(*texts: str) -> tuple[Term, ...]:
    """Regularisers as on the command line."""
    return tuple(Term.parse(text) for text in texts)


def _digits(recipe: str, *, conditional: bool = False, **options: Any) -> TrainingConfig:
    """A game on the embedded digits at 32x32, with a DCGAN pair unless another is given."""
    defaults: dict[str, Any] = {
        "recipe": recipe,
        "data": DataConfig(conditional=conditional),
        "network": _DCGAN,
        "optim_G": adam(1e-3, 0.0, 0.99),
        "optim_D": adam(1e-3, 0.0, 0.99),
        "batch_size": 32,
        "total_kimg": 100.0,
        "ema_kimg": 4.0,
        "tick_kimg": 5.0,
    }
    return TrainingConfig(**{**defaults, **options})


def _both(optim: OptimizerConfig) -> dict[str, Any]:
    return {"optim_G": optim, "optim_D": optim}


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


_DCGAN = DCGAN(z_dim=64, ngf=16, ndf=16, embed_dim=16)
_RESNET = ResNet(z_dim=64, ngf=4, ndf=8)
_R3GAN = R3GAN(
    z_dim=64, channel_base=256, channel_max=64, num_blocks=1, group_width=8, embed_dim=16
)
_PROGRESSIVE = Progressive(z_dim=64, channel_base=256, channel_max=64, embed_dim=16)
_STYLE = Style(z_dim=64, w_dim=64, mapping_layers=4, channel_base=256, channel_max=64)
_VAEGAN = VAEGAN(z_dim=64, ngf=16, ndf=16, nef=16, embed_dim=16)

_MESCHEDER = "Mescheder et al. 2018, arXiv:1801.04406 (R1, R2), on DCGAN (Radford et al. 2016)"
_R3GAN_PAPER = "Huang et al. 2024, arXiv:2501.05441"
_MIYATO = "Miyato et al. 2018, arXiv:1802.05957"
_STYLE_PAPER = "Karras et al. 2020, arXiv:1912.04958, with Karras et al. 2019, arXiv:1812.04948"


def _rpgan(recipe: str, *, conditional: bool = False) -> TrainingConfig:
    return _digits(
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
    return _digits(
        recipe,
        conditional=conditional,
        network=_RESNET,
        objective="hinge",
        regularizers=terms("spectral=1"),
        optim_G=adam(5e-4, 0.0, 0.9),
        optim_D=adam(2e-3, 0.0, 0.9),
    )


def _style(recipe: str, *, conditional: bool = False) -> TrainingConfig:
    return _digits(
        recipe,
        conditional=conditional,
        network=_STYLE,
        regularizers=terms("r1=1/4"),
        **_both(adam(4e-3, 0.0, 0.99)),
    )


RECIPES: dict[str, Recipe] = {
    "digits": Recipe(
        about="scikit-learn's 1,797 digits at 32x32 by class; about a minute on two cores",
        paper=_MESCHEDER,
        config=_digits(
            "digits",
            conditional=True,
            init_D="kaiming",
            regularizers=terms("r1=0.3", "r2=0.3"),
            total_kimg=70,
        ),
    ),
    "article": Recipe(
        about="the founding article's perceptrons on MNIST as they stand, unregularised",
        paper="Goodfellow et al. 2014, arXiv:1406.2661",
        published="MNIST FID 6.8 after a search over 100 settings (Lucic et al. 2018)",
        config=TrainingConfig(
            recipe="article",
            data=DataConfig(dataset="mnist", resolution=28, conditional=False),
            network=MLP(),
            total_kimg=3000,
            ema_kimg=0,
            tick_kimg=60,
        ),
    ),
    "dcgan": Recipe(
        about="convolutions and batch norm in both players, nothing else",
        paper="Radford et al. 2016, arXiv:1511.06434",
        published="CIFAR-10 FID 48.3 (StudioGAN); ring-8 6.3 modes, grid-25 17.3 (PacGAN's runs)",
        config=_digits(
            "dcgan",
            network=replace(_DCGAN, d_norm="batch"),
            ema_kimg=0.0,
            **_both(adam(2e-4, 0.5, 0.999)),
        ),
    ),
    "lsgan": Recipe(
        about="least squares instead of the logarithm",
        paper="Mao et al. 2017, arXiv:1611.04076",
        published="MNIST FID 7.8 after a search (Lucic et al. 2018)",
        config=_digits(
            "lsgan",
            objective="least-squares",
            init_D="kaiming",
            **_both(adam(5e-4, 0.5, 0.999)),
        ),
    ),
    "wgan": Recipe(
        about="Wasserstein distance, D kept Lipschitz by clipping its weights",
        paper="Arjovsky et al. 2017, arXiv:1701.07875",
        published="CIFAR-10 FID 107.7 (StudioGAN)",
        config=_digits(
            "wgan",
            network=replace(_DCGAN, d_norm="batch"),
            objective="wasserstein",
            regularizers=terms("clip=0.02"),
            steps_D=5,
            **_both(OptimizerConfig(method="rmsprop", lr=1e-3, betas=(0.0, 0.99))),
        ),
    ),
    "wgan-gp": Recipe(
        about="Wasserstein distance, D's gradient drawn to norm 1 between the distributions",
        paper="Gulrajani et al. 2017, arXiv:1704.00028",
        published="CIFAR-10 FID 54.0 (StudioGAN); StackedMNIST 959 of 1,000 modes",
        config=_digits(
            "wgan-gp",
            objective="wasserstein",
            init_D="kaiming",
            regularizers=terms("wgan-gp=10"),
            steps_D=5,
            **_both(adam(2e-3, 0.0, 0.9)),
        ),
    ),
    "dragan": Recipe(
        about="D's gradient drawn to norm 1 around the data",
        paper="Kodali et al. 2017, arXiv:1705.07215",
        published="CIFAR-10 FID 34.7 (StudioGAN)",
        config=_digits(
            "dragan",
            init_D="kaiming",
            regularizers=terms("dragan=10"),
            **_both(adam(5e-4, 0.5, 0.999)),
        ),
    ),
    "sngan": Recipe(
        about="every layer of D at spectral norm 1",
        paper=_MIYATO,
        published="CIFAR-10 FID 21.7 in the paper, 9.0 in StudioGAN",
        config=_digits("sngan", regularizers=terms("spectral=1"), **_both(adam(1e-3, 0.0, 0.9))),
    ),
    "hinge-resnet": Recipe(
        about="hinge loss, residual blocks, spectral norm, two time scales",
        paper=f"{_MIYATO}; Heusel et al. 2017, arXiv:1706.08500",
        published="CIFAR-10 FID 9.0 (SNGAN in StudioGAN), 4.2 (BigGAN)",
        config=_hinge_resnet("hinge-resnet"),
    ),
    "hinge-resnet-conditional": Recipe(
        about="the same by class: conditional batch norm in G, projection in D",
        paper=f"{_MIYATO}; Miyato and Koyama 2018, arXiv:1802.05637",
        published="CIFAR-10 FID 4.2 (BigGAN in StudioGAN)",
        config=_hinge_resnet("hinge-resnet-conditional", conditional=True),
    ),
    "progressive": Recipe(
        about="both players grow from 4x4 to the full resolution",
        paper="Karras et al. 2018, arXiv:1710.10196",
        published="CIFAR-10 inception score 8.80 in the paper",
        config=_digits(
            "progressive",
            network=_PROGRESSIVE,
            objective="wasserstein",
            regularizers=terms("wgan-gp=10", "drift=0.001"),
            **_both(adam(4e-3, 0.0, 0.99)),
        ),
    ),
    "rpgan-r1r2": Recipe(
        about="relativistic pairs with R1 and R2 on residual networks: the choice for new data",
        paper=_R3GAN_PAPER,
        published="CIFAR-10 FID 1.96, StackedMNIST 1,000 of 1,000 modes in the paper",
        config=_rpgan("rpgan-r1r2"),
    ),
    "rpgan-r1r2-conditional": Recipe(
        about="the same by class",
        paper=_R3GAN_PAPER,
        published="CIFAR-10 FID 1.96 in the paper",
        config=_rpgan("rpgan-r1r2-conditional", conditional=True),
    ),
    "style": Recipe(
        about="a mapping network and modulated convolutions: truncation and mixing in w",
        paper=_STYLE_PAPER,
        published="CIFAR-10 FID 3.8, with ADA 2.3 (StudioGAN)",
        config=_style("style"),
    ),
    "style-conditional": Recipe(
        about="the same by class",
        paper=_STYLE_PAPER,
        published="CIFAR-10 FID 2.4 with ADA in Karras et al. 2020, arXiv:2006.06676",
        config=_style("style-conditional", conditional=True),
    ),
    "vaegan": Recipe(
        about="an encoder beside G, images rebuilt in D's features; the encoder is exported too",
        paper="Larsen et al. 2016, arXiv:1512.09300",
        config=_digits(
            "vaegan",
            network=_VAEGAN,
            init_D="kaiming",
            regularizers=terms("r1=0.3", "r2=0.3", "prior=0.01", "reconstruction=1"),
        ),
    ),
    "consensus": Recipe(
        about="both players also shrink the field of the game",
        paper="Mescheder et al. 2017, arXiv:1705.10461",
        config=_digits(
            "consensus",
            init_D="kaiming",
            update="simultaneous",
            regularizers=terms("consensus=0.1"),
            **_both(adam(5e-4, 0.5, 0.999)),
        ),
    ),
    "instance-noise": Recipe(
        about="D sees noisy images, less noisy as time goes on",
        paper="Sonderby et al. 2017, arXiv:1610.04490; Arjovsky and Bottou 2017, arXiv:1701.04862",
        config=_digits(
            "instance-noise",
            init_D="kaiming",
            regularizers=terms("instance-noise=0.3"),
            schedules=(Schedule(target="instance-noise", end=0.02, kimg=100),),
            **_both(adam(5e-4, 0.5, 0.999)),
        ),
    ),
    "unrolled": Recipe(
        about="G looks five gradient steps of D ahead",
        paper="Metz et al. 2017, arXiv:1611.02163",
        config=_digits(
            "unrolled",
            init_D="kaiming",
            unrolled_steps=5,
            # Larger ones make a D that tells all apart, which gives G nothing to go by.
            unrolled_lr=0.001,
            optim_G=adam(1e-3, 0.5, 0.999),
            optim_D=adam(2e-4, 0.5, 0.999),
        ),
    ),
    "optimistic": Recipe(
        about="each step corrected by the last one",
        paper="Daskalakis et al. 2018, arXiv:1711.00141",
        config=_digits(
            "optimistic",
            init_D="kaiming",
            **_both(OptimizerConfig(method="optimistic-adam", lr=5e-4, betas=(0.5, 0.9))),
        ),
    ),
    "extragradient": Recipe(
        about="a step to look, then the step",
        paper="Gidel et al. 2019, arXiv:1802.10551",
        config=_digits(
            "extragradient",
            init_D="kaiming",
            update="extragradient",
            **_both(adam(5e-4, 0.5, 0.9)),
        ),
    ),
    "diffaugment": Recipe(
        about="D sees shifted, recoloured and cut images, real and generated alike",
        paper="Zhao et al. 2020, arXiv:2006.10738",
        published="CIFAR-10 with a tenth of the data: FID 36 to 14 (StyleGAN2)",
        config=_digits(
            "diffaugment",
            init_D="kaiming",
            regularizers=terms("r1=0.3", "r2=0.3"),
            augment=AugmentConfig(policy=("diffaugment",)),
        ),
    ),
    "ada": Recipe(
        about="augmentation only as far as D overfits",
        paper="Karras et al. 2020, arXiv:2006.06676",
        published="CIFAR-10 FID 2.9 unconditional, 2.4 by class",
        config=_digits(
            "ada",
            init_D="kaiming",
            regularizers=terms("r1=0.3"),
            augment=AugmentConfig(
                policy=("shift", "scale", "rotate", "fraction", "brightness", "contrast"),
                target=0.6,
                speed_kimg=20,
            ),
        ),
    ),
    "lookahead": Recipe(
        about="every five rounds both players go half of the way back",
        paper="Chavdarova et al. 2021, arXiv:2006.14567",
        config=_digits(
            "lookahead", init_D="kaiming", lookahead_steps=5, **_both(adam(5e-4, 0.0, 0.9))
        ),
    ),
    "mnist": Recipe(
        about="handwritten digits at 32x32 by class",
        paper=_MESCHEDER,
        config=_wide("mnist", DataConfig(dataset="mnist"), total_kimg=1000, gamma=0.3),
    ),
    "fashion-mnist": Recipe(
        about="clothing at 32x32 by class",
        paper=_MESCHEDER,
        config=_wide(
            "fashion-mnist", DataConfig(dataset="fashion-mnist"), total_kimg=1500, gamma=0.3
        ),
    ),
    "cifar10": Recipe(
        about="colour photographs of ten classes at 32x32",
        paper=_MESCHEDER,
        config=_wide(
            "cifar10", DataConfig(dataset="cifar10", channels=3), total_kimg=5000, gamma=0.3
        ),
    ),
    "folder": Recipe(
        about="your own images at 64x64: folder --data.path DIR",
        paper=_R3GAN_PAPER,
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

DEFAULT = "digits"
