"""A game's process and the measurements beside it, with the pipes alone."""

import pickle
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest

from training.lab.frames import MAGIC
from training.lab.game import Game
from training.lab.parameters import Parameters
from training.lab.worker import Worker

SMALL = Parameters(width_G=8, width_D=8, batch_size=16)


class Ends:
    """A worker, and the other ends of its pipes."""

    def __init__(self) -> None:
        self.page, page = Pipe()
        self.measuring, place = Pipe()
        self.page_end: Connection = page
        self.worker = Worker(page, place, Game(SMALL))

    def run(self, *messages: dict[str, Any]) -> list[bytes]:
        """Sends messages, closes the page, and returns what was answered."""
        for message in messages:
            self.page.send(message)
        answers = []
        for _ in messages:
            self.worker._answer(self.page_end.recv())
            self.worker._measure(1e9)
        while self.page.poll():
            answers.append(self.page.recv_bytes())
        return answers


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    for each in (made.page, made.page_end, made.measuring):
        each.close()


def test_what_was_measured_of_another_game_is_dropped(ends: Ends) -> None:
    ends.run({"do": "step"}, {"do": "spectrum", "on": True})
    place = ends.measuring.recv()
    assert place.with_limit
    ends.run({"do": "reset"}, {"do": "step"})
    assert not ends.measuring.poll()  # the first one isn't back yet
    ends.worker._take({"round": place.round, "limit": 7.0})
    assert ends.worker._spectrum is None
    ends.worker._measured_at = -1e9
    ends.worker._measure(1e9)
    assert ends.measuring.recv().with_limit
    ends.worker._take({"round": 1, "limit": 3.0})
    assert ends.worker._spectrum == {"round": 1, "limit": 3.0}


def test_a_game_goes_on_where_nothing_measures_it_any_more(ends: Ends) -> None:
    ends.run({"do": "step"}, {"do": "spectrum", "on": True})
    ends.measuring.close()
    assert ends.worker.spectrometer is not None
    ends.worker._receive(ends.worker.spectrometer)
    (frame,) = ends.run({"do": "frame"})
    assert frame[:4] == MAGIC
    assert b"the process that measures has ended" in frame
    ends.run({"do": "step"}, {"do": "spectrum", "on": True})
    assert ends.worker.game.round == 2
    assert "load the page again" in str(ends.worker._spectrum)


def test_a_number_that_is_none_is_refused(ends: Ends) -> None:
    (answer,) = ends.run({"do": "back", "round": float("inf")})
    refused = pickle.loads(answer)
    assert refused["is"] == "refused"
    assert "can't be read" in refused["text"]
