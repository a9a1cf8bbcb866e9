"""The recipe, and the short forms that the entries of the catalogue are written in."""

from dataclasses import dataclass
from typing import Any

from models.networks import DCGAN, Style
from training.config.training import TrainingConfig
from training.data import DataConfig
from training.data.sources import DATASETS
from training.data.sources.mixtures import NUM_POINTS
from training.game.regularizers import Term
from training.optim.optimizers import OptimizerConfig

DCGAN_32 = DCGAN(z_dim=64, ngf=16, ndf=16, embed_dim=16)
STYLE_32 = Style(z_dim=64, w_dim=64, mapping_layers=4, channel_base=256, channel_max=64)

MESCHEDER = "Mescheder et al. 2018, arXiv:1801.04406 (R1, R2), on DCGAN (Radford et al. 2016)"
R3GAN_PAPER = "Huang et al. 2024, arXiv:2501.05441"
MIYATO = "Miyato et al. 2018, arXiv:1802.05957"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A configuration with a name, its paper, and what it has reached."""

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
        """The data that it is sized for, in words."""
        data = self.config.data
        if DATASETS[data.dataset].points:
            return f"{data.dataset}, {NUM_POINTS:,} points of the plane"
        colours = {1: "grey", 3: "RGB", 4: "RGBA"}[data.channels]
        form = f"{data.width}x{data.height} {colours}"
        name = "your folder" if data.dataset == "folder" else data.dataset
        return f"{name} at {form}{', by class' if data.conditional else ''}"


def adam(lr: float, beta1: float, beta2: float) -> OptimizerConfig:
    """Returns Adam with this rate and these betas."""
    return OptimizerConfig(lr=lr, betas=(beta1, beta2))


def both(optim: OptimizerConfig) -> dict[str, Any]:
    """Returns the options of both players for the same optimiser."""
    return {"optim_G": optim, "optim_D": optim}


def terms(*texts: str) -> tuple[Term, ...]:
    """Reads regularisers as on the command line."""
    return tuple(Term.parse(text) for text in texts)


def on_digits(recipe: str, *, conditional: bool = False, **options: Any) -> TrainingConfig:
    """Returns a game on the embedded digits at 32x32, with a DCGAN pair unless another is given."""
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
