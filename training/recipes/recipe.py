"""What a recipe is, and the short forms that their entries are written in."""

from dataclasses import dataclass
from typing import Any

from models.networks import DCGAN
from training.config import TrainingConfig
from training.data import DataConfig
from training.optimizers import OptimizerConfig
from training.terms import Term

DCGAN_32 = DCGAN(z_dim=64, ngf=16, ndf=16, embed_dim=16)

MESCHEDER = "Mescheder et al. 2018, arXiv:1801.04406 (R1, R2), on DCGAN (Radford et al. 2016)"
R3GAN_PAPER = "Huang et al. 2024, arXiv:2501.05441"
MIYATO = "Miyato et al. 2018, arXiv:1802.05957"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named configuration."""

    config: TrainingConfig
    """Its options; every one can be overridden on the command line."""
    paper: str
    """Where the method is from."""
    about: str
    """One sentence for --list."""
    published: str
    """What has been reported for the method, with its data; or that nothing has."""
    measured: str
    """What it reached here, with data and length: a row of docs/zoo.md; or that it wasn't tried."""

    @property
    def data(self) -> str:
        """What it is sized for, in words."""
        data = self.config.data
        form = f"{data.resolution}x{data.resolution} {'grey' if data.channels == 1 else 'RGB'}"
        name = "your folder" if data.dataset == "folder" else data.dataset
        return f"{name} at {form}{', by class' if data.conditional else ''}"


def adam(lr: float, beta1: float, beta2: float) -> OptimizerConfig:
    """Adam, in one line."""
    return OptimizerConfig(lr=lr, betas=(beta1, beta2))


def both(optim: OptimizerConfig) -> dict[str, Any]:
    """The same optimiser for both players."""
    return {"optim_G": optim, "optim_D": optim}


def terms(*texts: str) -> tuple[Term, ...]:
    """Regularisers as on the command line."""
    return tuple(Term.parse(text) for text in texts)


def on_digits(recipe: str, *, conditional: bool = False, **options: Any) -> TrainingConfig:
    """A game on the embedded digits at 32x32, with a DCGAN pair unless another is given."""
    defaults: dict[str, Any] = {
        "recipe": recipe,
        "data": DataConfig(conditional=conditional),
        "network": DCGAN_32,
        **both(adam(1e-3, 0.0, 0.99)),
        "batch_size": 32,
        "total_kimg": 100.0,
        "ema_kimg": 4.0,
        "tick_kimg": 5.0,
    }
    return TrainingConfig(**{**defaults, **options})
