"""Lyapunov exponents by twins: two copies of a training, a hair apart, under the same draws.

Both play the training's own rounds, in float64. Every few rounds their distance is measured, and
the second is put back to the first distance along the direction in which it went (Benettin et al.
1980). All that a round remembers takes part: moments, second moments, optimism's last step,
lookahead's slow weights. Nothing is linearised: games without a Jacobian can be measured, too.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.config.training import TrainingConfig
from training.engine.round_batches import BatchSource
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import StabilityError
from training.stability.copies import copied

DISTANCE = 1e-6
NUM_ROUNDS = 200
BLOCK = 20
"""Rounds from one renormalisation to the next."""


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """How fast twins part."""

    blocks: tuple[float, ...]
    """Mean growth ln(distance after / before) a round, of each block but the first, in which the
    difference turns into the direction that grows."""

    value: float
    """The exponent, a round: the slope of ln(distance) over these rounds by least squares. The
    distance swings where a game turns, and the slope depends less on where the swing ends."""
    rounding: float = 0.0
    """What rounding of the weights can do to ln(distance) in a round: less is no growth."""

    @property
    def error(self) -> float:
        """Its standard error, with that of rounding; infinite with one block."""
        num = len(self.blocks)
        if num < 2:
            return math.inf
        return math.hypot(np.std(self.blocks, ddof=1) / math.sqrt(num), self.rounding)


def exponent(
    first: Stepper,
    second: Stepper,
    *,
    num_rounds: int = NUM_ROUNDS,
    block: int = BLOCK,
    distance: float = DISTANCE,
    on_round: Callable[[], object] = lambda: None,
) -> Exponent:
    """Measures the largest Lyapunov exponent from where a training stands.

    Args:
        first: the training, in float64 (`twin_of`).
        second: its twin, in the same state; it is moved a hair away first.
        num_rounds: rounds that both play; two blocks at least.
        block: rounds from one renormalisation to the next.
        distance: of the twins' parameters, relative to nothing: their L2 norm.
        on_round: called after each round.

    Raises:
        StabilityError: a loss or gradient was not finite.
    """
    _part(first, second, distance)
    logarithms = [0.0]  # of the distance as it would be without renormalising
    for _ in range(num_rounds // block):
        before = logarithms[-1]
        for _ in range(block):
            for stepper in (first, second):
                stepper.step()
                if (non_finite := stepper.non_finite()) is not None:
                    raise StabilityError(
                        f"{', '.join(non_finite.terms)} is not finite: the game diverges from here"
                    )
            on_round()
            apart = max(_distance(first, second), 1e-300)
            logarithms.append(before + math.log(apart / distance))
        _renormalise(first, second, distance)
    kept = np.array(logarithms[block:])
    slope = np.polyfit(np.arange(len(kept)), kept, 1)[0]
    # Each weight is rounded in each round, and the distance is a difference of weights.
    size = torch.nn.utils.get_total_norm([*_places(first)]).item()
    rounding = np.finfo(np.float64).eps * size / distance
    blocks = tuple(np.diff(kept[::block]) / block)
    return Exponent(blocks=blocks, value=float(slope), rounding=float(rounding))


def twin_of(config: TrainingConfig, state: State, source: BatchSource) -> Stepper:
    """Returns a copy of a training that computes in float64."""
    twin = copied(config, state, source.device, torch.float64)
    # Latents are drawn in float32; images come in float64 from the source.
    twin.G.network.register_forward_pre_hook(_widened, with_kwargs=True)
    return Stepper(config, twin, Widened(source))


class Widened:
    """A `BatchSource` whose images are float64."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self.device = source.device

    def at(self, cur_nimg: int) -> tuple[Tensor, Tensor | None]:
        """Returns the source's images in float64, and its labels."""
        img, label = self._source.at(cur_nimg)
        return img.double(), label


def _widened(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def wide(value: Any) -> Any:
        is_float = isinstance(value, Tensor) and value.is_floating_point()
        return value.double() if is_float else value

    return tuple(map(wide, args)), {name: wide(value) for name, value in kwargs.items()}


def _memory(stepper: Stepper) -> Iterator[tuple[Tensor, bool]]:
    """Yields every tensor that the next round depends on, and whether it can't be negative."""
    for player in (stepper.state.G, stepper.state.D):
        for parameter in player.parameters:
            yield parameter.detach(), False
            for name, value in player.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.dim():
                    yield value, name.endswith("_sq") or name == "square_avg"
        if player.optimism is not None:
            yield from ((each, False) for each in player.optimism.last)
        yield from ((each, False) for each in player.last_move)
    state = stepper.state
    yield from ((each, False) for each in state.slow)
    yield from ((each, True) for each in (state.augment_p, state.path_length))
    yield state.augment_signs, False


def _places(stepper: Stepper) -> Sequence[Tensor]:
    return [each.detach() for each in stepper.state.parameters()]


@torch.no_grad()
def _part(first: Stepper, second: Stepper, distance: float) -> None:
    """Moves the second along a fixed random direction."""
    generator = torch.Generator().manual_seed(0)
    moves = [torch.randn(each.shape, generator=generator).to(each) for each in _places(second)]
    norm = torch.nn.utils.get_total_norm(moves)
    for place, move in zip(_places(second), moves, strict=True):
        place.add_(move, alpha=distance / norm.item())


def _distance(first: Stepper, second: Stepper) -> float:
    pairs = zip(_places(first), _places(second), strict=True)
    return torch.nn.utils.get_total_norm([b - a for a, b in pairs]).item()


@torch.no_grad()
def _renormalise(first: Stepper, second: Stepper, distance: float) -> None:
    """Scales the whole difference so that the parameters' part has its first size again."""
    share = distance / max(_distance(first, second), 1e-300)
    for (own, _), (other, positive) in zip(_memory(first), _memory(second), strict=True):
        other.copy_(own + share * (other - own))
        if positive:
            other.clamp_(min=0)
