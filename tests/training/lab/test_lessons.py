"""What the lessons say is what is seen, in games short enough for a test.

All ten are measured over seeds by benchmarks/training/lessons.py.
"""

import math
from dataclasses import dataclass

import torch

from training.lab.game import Game
from training.lab.lessons import LESSONS
from training.lab.parameters import from_query
from training.randomness import key, normal

LESSON = {lesson.name: lesson for lesson in LESSONS}


@dataclass(frozen=True)
class Seen:
    """The end of a game."""

    modes: int
    """Of the averaged G."""
    v: float
    """Mean size of the game's gradient over the second half."""


def seen(query: dict[str, str], rounds: int) -> Seen:
    game = Game(from_query(query))
    for number in range(rounds):
        if number == rounds // 2:
            game.stepper.meters.reset()
        game.step()
    means = game.stepper.meters.means()
    z = normal((2500, game.parameters.z_dim), torch.Generator(), key(0, "lessons", 0))
    with torch.no_grad():
        found = game.cloud.coverage(game.state.G_ema(z).flatten(1).numpy())
    return Seen(found.caught, math.hypot(means["gradient_D"], means["gradient_G"]))


def test_r1_damps():
    lesson = LESSON["damping"]
    plain, damped = (seen({**lesson.a, **more}, 600) for more in ({}, lesson.b or {}))
    assert plain.v > 3 * damped.v  # and 39 times after 3,000 rounds


def test_a_slow_d_loses_the_ring_and_the_default_covers_it():
    assert seen(LESSON["unrolled"].a, 1000).modes <= 3
    assert seen({}, 1000).modes == 8
