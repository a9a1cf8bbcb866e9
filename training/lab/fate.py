"""Fate: where the spectrum of a small game says that it will go, and where it then goes.

The prediction is the matrix of one round at the equilibrium, applied again and again; the path is
the training's own stepper. Two games: a point against a slope (Mescheder et al. 2018), and the
width of a normal against w x^2 (Nagarajan and Kolter 2017).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.networks import MLP
from training.config.training import TrainingConfig
from training.data import DataConfig
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import ConfigError, StabilityError, require
from training.game.regularizers import Term
from training.optim.constraints import CONSTRAINTS
from training.optim.optimizers import OptimizerConfig
from training.stability.closed_form.simulation import Origin, verdict
from training.stability.closed_form.toy_games import (
    NORMAL_POINTS,
    Point,
    Slope,
    Square,
    ToyGame,
    Width,
    dirac,
    linear_quadratic,
)
from training.stability.derivative import require_derivative
from training.stability.rounds.frozen_optimizers import plain
from training.stability.rounds.round_operator import DenseJacobian, RoundOperator
from training.stability.rounds.stability_region import region_of
from training.stability.rounds.step_limit import largest_stable_factor
from training.stability.spectrum import matrix_of
from training.transforms.input_noise import INPUT_NOISES

GAMES = ("dirac", "lq")
MIN_ROUNDS = 8  # the verdict compares quarters of the path
MAX_ROUNDS = 400
_CPU = torch.device("cpu")
_MANY, _FEW = 4080, 2
_NONE = 1e-3
"""A limit of so small a share of the step is no limit: the radius passes 1 by its square."""
_FAR = 1e6
"""Coordinates beyond it end a path."""


@dataclass(frozen=True, kw_only=True)
class Fate:
    """The options of a small game."""

    game: str = "dirac"
    objective: str = "minimax"
    regularizers: tuple[Term, ...] = ()
    update: str = "simultaneous"
    lr: float = 0.2
    momentum: float = 0.0
    rounds: int = 100
    theta: float = 0.5
    """G's distance from the equilibrium at the start; D starts at 0."""

    def __post_init__(self) -> None:
        """Refuses what is out of bounds; the rest is refused by the training's configuration."""
        require(self.game in GAMES, "game", self.game, ", ".join(GAMES), "choose one")
        fits = MIN_ROUNDS <= self.rounds <= MAX_ROUNDS
        require(
            fits, "rounds", self.rounds, f"{MIN_ROUNDS} .. {MAX_ROUNDS}", "choose another number"
        )
        for name, low, high in (("lr", 1e-6, 100.0), ("theta", -5.0, 5.0)):
            value = getattr(self, name)
            fits = math.isfinite(value) and low <= value <= high
            require(fits, name, value, f"{low:g} .. {high:g}", "choose another number")

    @property
    def noise(self) -> float:
        """The standard deviation of the input noise."""
        return sum(term.weight for term in self.regularizers if term.name in INPUT_NOISES)

    @property
    def config(self) -> TrainingConfig:
        """The training that is played."""
        step = OptimizerConfig(method="sgd", lr=self.lr, betas=(self.momentum, 0.0))
        is_random = self.game == "lq" or self.noise > 0
        return TrainingConfig(
            recipe="dirac",
            data=DataConfig(conditional=False),
            network=MLP(z_dim=1),
            objective=self.objective,
            regularizers=self.regularizers,
            optim_G=step,
            optim_D=step,
            batch_size=_MANY if is_random else _FEW,
            total_kimg=1e6,
            tick_kimg=1e6,
            update=self.update,
        )

    @property
    def toy(self) -> ToyGame:
        """The game at its equilibrium, with exact expectations."""
        words = [str(term) for term in self.regularizers if term.name not in INPUT_NOISES]
        if self.game == "dirac":
            return dirac(*words, objective=self.objective, noise=self.noise)
        why = "its expectation isn't exact in this game: choose the game dirac"
        require(not self.noise, "regularizers", "instance-noise", "without noise with lq", why)
        return linear_quadratic(*words, objective=self.objective)

    @property
    def origin(self) -> tuple[float, float]:
        """Where the equilibrium is, (theta, psi)."""
        return (0.0, 0.0) if self.game == "dirac" else (1.0, 0.0)


def fate(query: Mapping[str, str]) -> dict[str, Any]:
    """The prediction and the path of the game of a URL's query, as JSON types.

    Raises:
        ConfigError: an option is not known or not allowed.
    """
    asked = _read(query)
    played = _path(asked)
    found: dict[str, Any] = {
        "origin": asked.origin,
        "played": _rounded(played),
        "verdict": verdict([(x - asked.origin[0], y) for x, y in played]),
    }
    try:
        return {**found, **_predicted(asked)}
    except StabilityError as error:
        return {**found, "unpredicted": str(error)}


def _read(query: Mapping[str, str]) -> Fate:
    known = {name: type(value) for name, value in vars(Fate()).items()}
    values: dict[str, Any] = {}
    for name, text in query.items():
        require(name in known, name, text, ", ".join(known), "leave it out")
        try:
            if known[name] is tuple:
                values[name] = tuple(map(Term.parse, text.replace(",", " ").split()))
            else:
                values[name] = known[name](text)
        except ValueError:
            raise ConfigError(f"{name} is {text!r}, allowed: a number; write 1") from None
    return Fate(**values)


def _operator(asked: Fate) -> RoundOperator:
    for term in asked.regularizers:
        if term.name in CONSTRAINTS:
            raise StabilityError(
                f"regularizers has {term}: a projection after each step has no derivative, so that "
                "no spectrum predicts it; the path is played all the same"
            )
    field = asked.toy.field()
    at = field.at()
    require_derivative(field, at, [term.name for term in asked.regularizers])
    one = plain(asked.lr, asked.momentum)
    return RoundOperator(
        jacobian=DenseJacobian(torch.from_numpy(matrix_of(at.jvp, at.size)), at.sizes),
        optimizers={"G": one, "D": one},
        update=asked.update,
    )


def _predicted(asked: Fate) -> dict[str, Any]:
    round_of = _operator(asked)
    state = torch.zeros(round_of.size, dtype=torch.float64)
    state[0] = asked.theta
    path = [(asked.origin[0] + asked.theta, asked.origin[1])]
    for _ in range(asked.rounds):
        state = round_of.apply(state)
        path.append((asked.origin[0] + float(state[0]), asked.origin[1] + float(state[1])))

    def radius(factor: float) -> float:
        scaled = round_of.scaled(factor)
        return float(np.abs(np.linalg.eigvals(matrix_of(scaled.apply, scaled.size))).max())

    factor = largest_stable_factor(radius)
    region = region_of(round_of)
    mu = np.linalg.eigvals(matrix_of(round_of.apply, round_of.size))
    flow = np.linalg.eigvals(matrix_of(round_of.preconditioned, round_of.jacobian.size))
    return {
        "predicted": _rounded(path),
        "mu": _pairs(mu),
        "flow": _pairs(flow),
        "radius": float(np.abs(mu).max()),
        "limit": None if factor is None or factor < _NONE else _finite(factor * asked.lr),
        "alwaysStable": factor is not None and math.isinf(factor),
        "border": [] if region is None else _pairs(region.border),
        "rule": "" if region is None else region.rule,
        "isExact": region is not None and region.is_exact,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _pairs(values: Any) -> list[list[float]]:
    return [[float(v.real), float(v.imag)] for v in np.asarray(values, dtype=complex)]


class _Normal:
    """The data of `lq`: points with a normal's moments, a `BatchSource`."""

    device = _CPU

    def __init__(self, batch_size: int) -> None:
        points = torch.tensor(NORMAL_POINTS, dtype=torch.float64)
        self._img = points.repeat(batch_size // len(points)).view(-1, 1, 1, 1)

    def at(self, cur_nimg: int) -> tuple[Tensor, Tensor | None]:
        """Returns [batch_size, 1, 1, 1] float64, without labels."""
        return self._img, None


def _path(asked: Fate) -> list[tuple[float, float]]:
    """Plays the game; ends early where it has gone far."""
    config = asked.config
    start = asked.origin[0] + asked.theta
    if asked.game == "dirac":
        state = State.of(config, Point(start), Slope(0.0), _CPU)
        stepper = Stepper(config, state, Origin(config.batch_size))
    else:
        state = State.of(config, Width(start), Square(0.0), _CPU)
        stepper = Stepper(config, state, _Normal(config.batch_size))
    path = [(start, 0.0)]
    for _ in range(asked.rounds):
        stepper.step()
        theta, psi = (parameter.item() for parameter in state.parameters())
        path.append((theta, psi))
        if not max(abs(theta), abs(psi)) < _FAR:
            break
    return path


def _rounded(path: list[tuple[float, float]]) -> list[list[float]]:
    """The path up to where it leaves what can be drawn."""
    kept = []
    for x, y in path:
        if not max(abs(x), abs(y)) < _FAR:
            break
        kept.append([float(f"{x:.6g}"), float(f"{y:.6g}")])
    return kept
