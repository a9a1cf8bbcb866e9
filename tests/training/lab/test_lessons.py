"""What the lessons say is what is seen, here of the two that matter most."""

import statistics

import pytest

from training.lab.game import Game
from training.lab.lessons import LESSONS
from training.lab.parameters import from_query

ROUNDS, WATCHED = 300, 100


@pytest.fixture(scope="module")
def watched():
    """Mean sizes of G's gradient and of the scores' distance, late in a lesson's game A."""
    found = {}
    for lesson in LESSONS:
        if lesson.name not in ("circles", "slow"):
            continue
        game = Game(from_query(lesson.a))
        sizes = []
        for number in range(1, ROUNDS + 1):
            game.step()
            if number > ROUNDS - WATCHED and number % 10 == 0:
                means = game.stepper.meters.means()
                game.stepper.meters.reset()
                sizes.append((means["gradient_G"], means["scores.real"] - means["scores.fake"]))
        found[lesson.name] = [statistics.mean(each) for each in zip(*sizes, strict=True)]
    return found


def test_penalties_bring_the_game_near_rest_and_the_article_s_loss_alone_does_not(watched):
    for article, damped in zip(watched["circles"], watched["slow"], strict=True):
        assert article > 4 * abs(damped)
