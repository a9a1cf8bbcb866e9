"""Exponents by twins against ln|mu|, which the round's operator has in closed form."""

import math
from dataclasses import replace

import numpy as np
import pytest

from training.game.regularizers import Term
from training.optim.optimizers import OptimizerConfig
from training.stability.closed_form.gauge import operator
from training.stability.closed_form.simulation import Method, Origin, dirac_stepper
from training.stability.closed_form.toy_games import dirac
from training.stability.rounds.frozen_optimizers import plain
from training.stability.spectrum import dense_spectrum
from training.stability.twins import Exponent, exponent, twin_of

STEP = 0.7
AT = (0.0, 0.0)  # the equilibrium itself: nearby, an unstable game would leave its linear part


def measured(
    *terms: str, update: str = "alternating", lr: float = STEP, momentum: float = 0.0, rounds=200
) -> Exponent:
    """Of a Dirac-GAN that stands at its equilibrium."""
    method = Method(name="", paper_says=False, terms=terms)
    sgd = OptimizerConfig(method="sgd", lr=lr, betas=(momentum, 0.0))
    config = method.config(update, optim_G=sgd, optim_D=sgd)
    twins = []
    for _ in range(2):
        start = dirac_stepper(config, AT)
        twins.append(twin_of(config, start.state, Origin(config.batch_size)))
    return exponent(*twins, num_rounds=rounds, distance=1e-9)


def expected(
    *terms: str, update: str = "alternating", lr: float = STEP, momentum: float = 0.0
) -> float:
    played = operator(dirac(*terms), plain(lr, momentum), update=update)
    return math.log(dense_spectrum(played.apply, played.size, "LM").radius)


@pytest.mark.parametrize(
    ("terms", "update", "golden"),
    [
        ((), "simultaneous", 0.057779),
        (("r1=0.3",), "simultaneous", -0.045783),
        ((), "alternating-extrapolation", -0.128075),
    ],
)
def test_the_exponent_is_the_logarithm_of_the_radius(
    terms: tuple[str, ...], update: str, golden: float
) -> None:
    found = measured(*terms, update=update)
    assert found.value == pytest.approx(golden, rel=0.01)
    assert expected(*terms, update=update) == pytest.approx(golden, abs=1e-6)


def test_turns_neither_part_nor_meet() -> None:
    assert abs(measured().value) < 1e-3


def test_the_sign_is_right_in_planted_games() -> None:
    """Twenty of random penalty, order, rate and momentum: ten of them unstable."""
    rng = np.random.default_rng(5)
    planted: dict[bool, list[tuple[float, dict[str, object], tuple[str, ...]]]] = {}
    while min(len(planted.setdefault(sign, [])) for sign in (True, False)) < 10:
        options: dict[str, object] = {
            "update": str(rng.choice(["simultaneous", "alternating"])),
            "lr": float(rng.uniform(0.2, 1.5)),
            "momentum": float(rng.choice([0.0, 0.5])),
        }
        terms = (f"r1={rng.uniform(0, 1):.2f}",)
        value = expected(*terms, **options)  # type: ignore[arg-type]
        games = planted[value > 0]
        if abs(value) > 0.01 and len(games) < 10:
            games.append((value, options, terms))
    right = 0
    for value, options, terms in planted[True] + planted[False]:
        found = measured(*terms, rounds=40, **options)  # type: ignore[arg-type]
        right += found.value * value > 0
    assert right >= 19


def test_adam_and_lookahead_take_part() -> None:
    """The state that twins share is whole: unperturbed copies stay together bit by bit."""
    method = Method(name="", paper_says=False, terms=("r1=0.3/4",))
    adam = OptimizerConfig(method="optimistic-adam", lr=0.01, betas=(0.5, 0.9))
    config = replace(
        method.config("alternating", optim_G=adam, optim_D=adam, lookahead_steps=5),
        regularizers=(Term.parse("r1=0.3/4"),),
    )
    trained = dirac_stepper(config)
    for _ in range(7):  # in the middle of lookahead and of the lazy penalty
        trained.step()
    twin = twin_of(config, trained.state, Origin(config.batch_size))
    for _ in range(6):
        trained.step()
        twin.step()
    places = [[each.item() for each in one.state.parameters()] for one in (trained, twin)]
    assert places[0] == places[1]
