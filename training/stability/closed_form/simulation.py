"""The verdicts of Mescheder et al. 2018 (fig. 1 and table 1), by playing the Dirac-GAN.

Every row is played by the training's own stepper, with both orders of moves, from (theta, psi) =
(1, 0), by gradient descent. The game converges where the largest distance from the equilibrium in
the last quarter of the rounds is at most a tenth of that in the first, diverges where it has grown
by half, and circles in between.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.networks import MLP
from training.config.training import TrainingConfig
from training.data import DataConfig
from training.engine.state import State
from training.engine.stepper import Stepper
from training.game.regularizers import Term
from training.optim.optimizers import OptimizerConfig
from training.stability.closed_form.toy_games import Point, Slope

STEP = 0.5
NUM_ROUNDS = 60
START = (1.0, 0.0)
ORDERS = ("simultaneous", "alternating")
_CPU = torch.device("cpu")
_CONVERGED, _DIVERGED = 0.1, 1.5

Path = list[tuple[float, float]]
"""(theta, psi) at the start and after each round."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table."""

    name: str
    paper_says: bool
    """True where it converges by the paper's table."""
    objective: str = "minimax"
    terms: tuple[str, ...] = ()
    batch_size: int = 2

    def config(self, order: str, **options: object) -> TrainingConfig:
        """The training's configuration. order: entry of UPDATES."""
        step = OptimizerConfig(method="sgd", lr=STEP, betas=(0.0, 0.0))
        plain = TrainingConfig(
            recipe="dirac",
            data=DataConfig(conditional=False),
            network=MLP(z_dim=1),
            objective=self.objective,
            regularizers=tuple(Term.parse(term) for term in self.terms),
            optim_G=step,
            optim_D=step,
            batch_size=self.batch_size,
            total_kimg=1e6,
            tick_kimg=1e6,
            update=order,
        )
        return replace(plain, **options)  # type: ignore[arg-type]


METHODS = (
    Method(name="minimax GAN", paper_says=False),
    Method(name="non-saturating GAN", paper_says=False, objective="non-saturating"),
    Method(name="WGAN", paper_says=False, objective="wasserstein"),
    Method(name="WGAN, clipped", paper_says=False, objective="wasserstein", terms=("clip=1",)),
    Method(name="WGAN-GP", paper_says=False, objective="wasserstein", terms=("wgan-gp=1",)),
    Method(name="DRAGAN", paper_says=False, terms=("dragan=1",)),
    # Its noise is drawn: many rows, or the path is a random walk.
    Method(name="instance noise", paper_says=True, terms=("instance-noise=1",), batch_size=4096),
    Method(name="consensus", paper_says=True, terms=("consensus=1",)),
    Method(name="R1", paper_says=True, terms=("r1=1",)),
    Method(name="R2", paper_says=True, terms=("r2=1",)),
    Method(name="R1 + R2", paper_says=True, terms=("r1=0.5", "r2=0.5")),
)


class Origin:
    """The data: the point 0; a `training.engine.round_batches.BatchSource`."""

    device = _CPU

    def __init__(self, batch_size: int) -> None:
        self._img = torch.zeros(batch_size, 1, 1, 1, dtype=torch.float64)

    def at(self, cur_nimg: int) -> tuple[Tensor, Tensor | None]:
        """Returns [batch_size, 1, 1, 1] float64, without labels."""
        return self._img, None


def dirac_stepper(config: TrainingConfig, start: tuple[float, float] = START) -> Stepper:
    """A training of the Dirac-GAN that stands at (theta, psi)."""
    state = State.of(config, Point(start[0]), Slope(start[1]), _CPU)
    return Stepper(config, state, Origin(config.batch_size))


def play(method: Method, order: str, num_rounds: int = NUM_ROUNDS) -> Path:
    """Plays rounds of a method's training; returns the path."""
    stepper = dirac_stepper(method.config(order))
    path = [START]
    for _ in range(num_rounds):
        stepper.step()
        theta, psi = (parameter.item() for parameter in stepper.state.parameters())
        path.append((theta, psi))
    return path


def verdict(path: Path) -> str:
    """converges, circles or diverges."""
    distances = [math.hypot(*place) for place in path]
    quarter = len(distances) // 4
    last, first = max(distances[-quarter:]), max(distances[:quarter])
    if last <= _CONVERGED * first:
        return "converges"
    return "diverges" if last > _DIVERGED * first else "circles"
