"""Recipes that are about the game: losses, penalties, moves and what D sees, on the digits."""

from dataclasses import replace

from training.optim.optimizers import OptimizerConfig
from training.optim.schedules import Schedule
from training.recipes.recipe import DCGAN_32, MIYATO, STYLE_32, Recipe, adam, both, on_digits, terms
from training.transforms.augmentation import AugmentConfig

RECIPES: dict[str, Recipe] = {
    "dcgan": Recipe(
        about="convolutions and batch norm in both players, nothing else",
        paper="Radford et al. 2016, arXiv:1511.06434",
        published="CIFAR-10 FID 48.3, without classes (StudioGAN); "
        "ring-8 6.3 modes, grid-25 17.3 (PacGAN's runs)",
        measured="digits, 20 kimg: Frechet distance 1.1, coverage 0.39",
        config=on_digits(
            "dcgan",
            network=replace(DCGAN_32, d_norm="batch"),
            ema_kimg=0.0,
            **both(adam(2e-4, 0.5, 0.999)),
        ),
    ),
    "lsgan": Recipe(
        about="least squares instead of the logarithm",
        paper="Mao et al. 2017, arXiv:1611.04076",
        published="MNIST FID 7.8 after a search (Lucic et al. 2018)",
        measured="digits, 20 kimg: Frechet distance 0.9, coverage 0.47",
        config=on_digits(
            "lsgan",
            objective="least-squares",
            init_D="kaiming",
            **both(adam(5e-4, 0.5, 0.999)),
        ),
    ),
    "wgan": Recipe(
        about="Wasserstein distance, D kept Lipschitz by clipping its weights",
        paper="Arjovsky et al. 2017, arXiv:1701.07875",
        published="CIFAR-10 FID 107.7, without classes (StudioGAN)",
        measured="digits, 20 kimg: Frechet distance 2.5, coverage 0.33",
        config=on_digits(
            "wgan",
            network=replace(DCGAN_32, d_norm="batch"),
            objective="wasserstein",
            regularizers=terms("clip=0.02"),
            steps_D=5,
            **both(OptimizerConfig(method="rmsprop", lr=1e-3, betas=(0.0, 0.99))),
        ),
    ),
    "wgan-gp": Recipe(
        about="Wasserstein distance, D's gradient drawn to norm 1 between the distributions",
        paper="Gulrajani et al. 2017, arXiv:1704.00028",
        published="CIFAR-10 FID 54.0, without classes (StudioGAN); StackedMNIST 959 of 1,000 modes",
        measured="digits, 20 kimg: Frechet distance 1.6, coverage 0.40",
        config=on_digits(
            "wgan-gp",
            objective="wasserstein",
            init_D="kaiming",
            regularizers=terms("wgan-gp=10"),
            steps_D=5,
            **both(adam(2e-3, 0.0, 0.9)),
        ),
    ),
    "dragan": Recipe(
        about="D's gradient drawn to norm 1 around the data",
        paper="Kodali et al. 2017, arXiv:1705.07215",
        published="MNIST FID 7.6, Fashion-MNIST 27.7 after a search (Lucic et al. 2018); "
        "StudioGAN's CIFAR-10 FID 34.7 is of its penalty on a Wasserstein ResNet",
        measured="digits, 20 kimg: Frechet distance 1.0, coverage 0.48",
        config=on_digits(
            "dragan",
            init_D="kaiming",
            regularizers=terms("dragan=10"),
            **both(adam(5e-4, 0.5, 0.999)),
        ),
    ),
    "sngan": Recipe(
        about="every layer of D at spectral norm 1",
        paper=MIYATO,
        published="CIFAR-10 FID 29.3 on the paper's CNN; 21.7 is its ResNet's (`sngan-cifar10`)",
        measured="digits, 20 kimg: Frechet distance 0.6, coverage 0.58",
        config=on_digits("sngan", regularizers=terms("spectral=1"), **both(adam(1e-3, 0.0, 0.9))),
    ),
    "consensus": Recipe(
        about="both players also shrink the field of the game",
        paper="Mescheder et al. 2017, arXiv:1705.10461",
        published="none for this data",
        measured="digits, 20 kimg: Frechet distance 1.4, coverage 0.36",
        config=on_digits(
            "consensus",
            init_D="kaiming",
            update="simultaneous",
            regularizers=terms("consensus=0.1"),
            **both(adam(5e-4, 0.5, 0.999)),
        ),
    ),
    "instance-noise": Recipe(
        about="D sees noisy images, less noisy as time goes on",
        paper="Sonderby et al. 2017, arXiv:1610.04490; Arjovsky and Bottou 2017, arXiv:1701.04862",
        published="none for this data",
        measured="digits, 20 kimg: Frechet distance 1.0, coverage 0.45",
        config=on_digits(
            "instance-noise",
            init_D="kaiming",
            regularizers=terms("instance-noise=0.3"),
            schedules=(Schedule(target="instance-noise", end=0.02, kimg=100),),
            **both(adam(5e-4, 0.5, 0.999)),
        ),
    ),
    "unrolled": Recipe(
        about="G looks five gradient steps of D ahead",
        paper="Metz et al. 2017, arXiv:1611.02163",
        published="none for this data; the paper shows a ring of 8 in pictures",
        measured="digits, 20 kimg: Frechet distance 1.6, coverage 0.46",
        config=on_digits(
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
        published="none for this data",
        measured="digits, 20 kimg: Frechet distance 0.8, coverage 0.48",
        config=on_digits(
            "optimistic",
            init_D="kaiming",
            **both(OptimizerConfig(method="optimistic-adam", lr=5e-4, betas=(0.5, 0.9))),
        ),
    ),
    "extragradient": Recipe(
        about="a step to look, then the step",
        paper="Gidel et al. 2019, arXiv:1802.10551",
        published="none for this data",
        measured="digits, 20 kimg: Frechet distance 0.8, coverage 0.43",
        config=on_digits(
            "extragradient",
            init_D="kaiming",
            update="extragradient",
            **both(adam(5e-4, 0.5, 0.9)),
        ),
    ),
    "lookahead": Recipe(
        about="every five rounds both players go half of the way back",
        paper="Chavdarova et al. 2021, arXiv:2006.14567",
        published="CIFAR-10 FID 12.2 without labels in the paper",
        measured="digits, 20 kimg: Frechet distance 1.3, coverage 0.34",
        config=on_digits(
            "lookahead", init_D="kaiming", lookahead_steps=5, **both(adam(5e-4, 0.0, 0.9))
        ),
    ),
    "diffaugment": Recipe(
        about="D sees shifted, recoloured and cut images, real and generated alike",
        paper="Zhao et al. 2020, arXiv:2006.10738",
        published="CIFAR-10 with a tenth of the data: FID 36 to 14 (StyleGAN2)",
        measured="digits, 20 kimg: Frechet distance 1.5, coverage 0.38",
        config=on_digits(
            "diffaugment",
            init_D="kaiming",
            regularizers=terms("r1=0.3", "r2=0.3"),
            augment=AugmentConfig(policy=("diffaugment",)),
        ),
    ),
    "ada": Recipe(
        about="the game of `style`, augmented only as far as D overfits",
        paper="Karras et al. 2020, arXiv:2006.06676",
        published="CIFAR-10 FID 2.9 without classes, 2.4 by class, on StyleGAN2 tuned for it",
        measured="not since its networks were changed",
        config=on_digits(
            "ada",
            network=STYLE_32,
            regularizers=terms("r1=1/4"),
            augment=AugmentConfig(policy=("ada",), target=0.6, speed_kimg=20),
            **both(adam(4e-3, 0.0, 0.99)),
        ),
    ),
}
