"""The options of a training as the fields of a dataclass.

`training.config.training.TrainingConfig` inherits and checks them; `training.config.rules` checks
how they fit together.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from models.networks import Family, ImageShape
from training.config.compute import ComputeConfig
from training.config.watchdog import WatchdogConfig
from training.data import DataConfig
from training.errors import ConfigError
from training.game.regularizers import Term
from training.optim.optimizers import OptimizerConfig
from training.optim.schedules import Schedule
from training.transforms.augmentation import AugmentConfig
from training.transforms.corruption import Corruption


def _one_word(kind: Any, metavar: str) -> tyro.constructors.PrimitiveConstructorSpec[Any]:
    """Tells tyro that a value of this class is one word, read by `parse` and written by `str`."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: kind.parse(words[0]),
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


_TERM = _one_word(Term, "NAME=WEIGHT[/EVERY]")
_SCHEDULE = _one_word(Schedule, "TARGET=END@KIMG[:SHAPE]")
_CORRUPTION = _one_word(Corruption, "NAME=STRENGTH")
_AUGMENT = AugmentConfig()
_OPTIMIZER = OptimizerConfig()
_COMPUTE = ComputeConfig()
_WATCHDOG = WatchdogConfig()


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of one training, and quantities that follow from them."""

    recipe: Annotated[str, tyro.conf.Suppress]
    """The recipe that the training is based on."""
    data: DataConfig
    """Images to train on."""
    network: Family
    """The networks of both players."""
    init_D: str = "family"
    """Initial weights of the discriminator, by name, for families without their own (dcgan,
    vaegan); --list explains them."""
    frozen_D: int = 0
    """Number of D's layers, counted from the image, whose weights stay fixed: for --init-from."""
    objective: str = "non-saturating"
    """The losses that the players minimise, by name; --list explains them."""
    regularizers: tuple[Annotated[Term, _TERM], ...] = ()
    """Penalties, constraints and input noise, each with its weight and, if it is not applied at
    every step, its interval."""
    corruption: tuple[Annotated[Corruption, _CORRUPTION], ...] = ()
    """Damage that the data has, in this order. G's images get the same damage before D sees them,
    so that G learns undamaged images; --list explains it."""
    schedules: tuple[Annotated[Schedule, _SCHEDULE], ...] = ()
    """Options that change during the training: optim_G.lr, .beta1, .beta2, optim_D likewise,
    ema_kimg, augment.probability, or a regulariser's name; each goes from its value to END within
    KIMG, linear or cosine."""
    augment: AugmentConfig = _AUGMENT
    """Random changes of the images that D sees, real and generated."""
    optim_G: OptimizerConfig = _OPTIMIZER
    """Optimiser of the generator."""
    optim_D: OptimizerConfig = _OPTIMIZER
    """Optimiser of the discriminator."""
    update: str = "alternating"
    """Which player moves when, by name; --list explains it."""
    extrapolation: float = 2.0
    """How far along its last move the other player is taken to stand, where the update looks ahead:
    1 is where it stands, 0 where it stood before, 2 a whole move further."""
    steps_D: int = 1
    """Steps of D in a round, each with new images."""
    steps_G: int = 1
    """Steps of G in a round."""
    fresh_batch_G: bool = False
    """Gives G's first step in a round latents and images of its own, too, as the code of R3GAN,
    StyleGAN2, SN-GAN and WGAN-GP does; else it has those of D's last step, made once for both."""
    lazy_steps: bool = False
    """Gives penalties with an interval (r1=0.5/16) a step of their own at every sixteenth batch,
    with rates and betas corrected for it, as StyleGAN2's code does; else they are added, sixteen
    times as strong, to the step that they are due in."""
    unrolled_steps: int = 0
    """Gradient steps of D that G looks ahead, and differentiates through (Metz et al. 2017)."""
    unrolled_lr: float = 0.1
    """Learning rate of these steps."""
    unrolled_adam: bool = False
    """Makes these steps Adam's, from D's own moments on, as in the paper's experiments; else they
    are plain gradient descent."""
    lookahead_steps: int = 0
    """Rounds after which both players go back towards their earlier weights; 0 for never."""
    lookahead_alpha: float = 0.5
    """Share of the way since then that they keep, in (0, 1]."""
    packing: int = 1
    """Images that D judges at once, real ones or generated ones (PacGAN: Lin et al. 2018,
    arXiv:1712.04086)."""
    batch_size: int = 64
    """Images per step of each player, over all processes."""
    accumulate: int = 1
    """Number of parts in which a batch is computed, one after the other, to save memory."""
    total_kimg: float
    """Length of the training, in thousands of real images shown."""
    average: Literal["ema", "uniform"] = "ema"
    """The average of G's weights that is exported: exponential, or the mean of all of them."""
    ema_kimg: float = 10.0
    """Half-life of the averaged generator, in thousands of images; 0 exports the last weights."""
    ema_rampup: float = 0.05
    """Bound of the half-life at the start, as a share of the images seen so far; 0: no bound."""
    tick_kimg: float
    """Thousands of images from one line of metrics, sample grid and checkpoint to the next."""
    seed: int = 0
    """Seed of every random number of the training, 0 or more."""
    compute: ComputeConfig = _COMPUTE
    """Precision, memory layout and compiler."""
    watchdog: WatchdogConfig = _WATCHDOG
    """What happens when the training shows a known failure."""

    def check_shape(self, shape: ImageShape) -> None:
        """Checks that the network can make images of the data's shape.

        Raises:
            ConfigError: it can't.
        """
        try:
            self.network.check(shape)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def round_nimg(self) -> int:
        """Real images that D is shown in a round."""
        return self.batch_size * self.steps_D

    @property
    def total_nimg(self) -> int:
        """Images shown in the whole training: total_kimg, rounded up to whole rounds."""
        return math.ceil(round(self.total_kimg * 1000) / self.round_nimg) * self.round_nimg

    @property
    def tick_nimg(self) -> int:
        """Images from one tick to the next, at least one round."""
        return max(round(self.tick_kimg * 1000), self.round_nimg)
