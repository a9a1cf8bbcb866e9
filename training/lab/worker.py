"""The process of one game: plays, answers, and makes a frame when one is asked for.

A frame is made only on demand and between two rounds, so that a slow page gets the newest one and
nothing piles up.
"""

import contextlib
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from training.errors import ConfigError, TrainingError
from training.lab.frames import Frames
from training.lab.game import PLAYERS, Game
from training.lab.parameters import field_of, from_query
from training.lab.snapshots import content_of
from training.lab.spectrometer import Place

UNSEEN_S = 60.0
"""A game that nobody has asked for a frame of for so long pauses."""
MEASURE_EVERY_S = 1.0
_LIMIT_EVERY = 4  # measurements from one search for the step limit to the next
_RATE_S = 0.5
_MAX_SPEED = 1e4

Message = dict[str, Any]


def serve(page: Connection, spectrometer: Connection, query: dict[str, str]) -> None:
    """Plays the game of a query until the other end is closed: the main of a process."""
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        Worker(page, spectrometer, Game(from_query(query))).run()


@dataclass(kw_only=True)
class _Rate:
    """Rounds a second, over the last half second."""

    value: float = 0.0
    _start: tuple[float, int] = (0.0, 0)

    def at(self, now: float, number: int) -> None:
        then, before = self._start
        if number < before or now - then > 4 * _RATE_S:
            self._start = (now, number)
        elif now - then >= _RATE_S:
            self.value = (number - before) / (now - then)
            self._start = (now, number)


@dataclass
class Worker:
    """One game and who asks for it."""

    page: Connection
    """Messages come in as dicts; bytes and dicts go out."""
    spectrometer: Connection | None
    """Places go out, measurements come in (`training.lab.spectrometer`); None once it has ended."""
    game: Game
    is_playing: bool = field(init=False, default=False)
    speed: float = field(init=False, default=0.0)
    """Rounds a second; 0 for as fast as it goes."""
    _due: float = field(init=False, default=0.0)
    _asked: float = field(init=False, default=0.0)
    _frames: Frames = field(init=False, default_factory=Frames)
    _rate: _Rate = field(init=False, default_factory=_Rate)
    _measures: bool = field(init=False, default=False)
    _measuring: bool = field(init=False, default=False)
    _is_outdated: bool = field(init=False, default=False)
    """What is being measured is of a game that isn't any more."""
    _measured_at: float = field(init=False, default=-1e9)
    _num_measured: int = field(init=False, default=0)
    _limit: Any = field(init=False, default=None)
    _spectrum: Message | None = field(init=False, default=None)
    _failure: str = field(init=False, default="")
    _reset_at: int = field(init=False, default=0)

    def run(self) -> None:
        """Plays and answers until the page's end is closed (EOFError)."""
        self._asked = time.monotonic()
        self._tell_game()
        while True:
            ends = [end for end in (self.page, self.spectrometer) if end is not None]
            ready = wait(ends, self._pause_s())
            if self.page in ready:
                self._answer(self.page.recv())
            if self.spectrometer is not None and self.spectrometer in ready:
                self._receive(self.spectrometer)
            now = time.monotonic()
            if self.is_playing and now >= self._due:
                self._play(now)
            self._measure(now)

    def _pause_s(self) -> float | None:
        """Seconds to wait for a message; None where nothing else is to be done."""
        if self.is_playing:
            return max(0.0, self._due - time.monotonic())
        return MEASURE_EVERY_S if self._measures and not self._measuring else None

    def _play(self, now: float) -> None:
        self.game.step()
        self._stop_where_it_failed()
        if self.speed:
            self._due = max(self._due + 1 / self.speed, now)
        if now - self._asked > UNSEEN_S:
            self.is_playing = False

    def _stop_where_it_failed(self) -> None:
        failure = self.game.failure
        if failure is not None and not self._failure:
            self.is_playing = False
            self._failure = (
                f"{', '.join(failure.terms)} is not finite in round {self.game.round}: no weight "
                "was changed by it. Go back, or reset with lower rates or a penalty"
            )

    def _answer(self, message: Message) -> None:
        """Does what a message asks; what it may not have is refused in words."""
        try:
            getattr(self, f"_do_{message['do']}")(message)
        except ConfigError as error:
            self._refuse(message, str(error), field_of(error))
        except TrainingError as error:
            self._refuse(message, str(error), "")
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            self._refuse(message, f"the message {str(message)[:80]} can't be read: {error}", "")

    def _refuse(self, message: Message, text: str, name: str) -> None:
        self.page.send({"is": "refused", "field": name, "text": text, "of": message.get("do")})

    def _do_frame(self, message: Message) -> None:
        self._asked = now = time.monotonic()
        self._rate.at(now, self.game.round)
        extra = {
            "playing": self.is_playing,
            "rate": round(self._rate.value, 1) if self.is_playing else 0,
            "failure": self._failure,
            "resets": self._reset_at,
            "spectrum": self._spectrum,
        }
        self._spectrum = None
        self.page.send_bytes(self._frames.frame(self.game, extra))

    def _do_play(self, message: Message) -> None:
        self._asked = self._due = time.monotonic()
        self.is_playing = not self._failure

    def _do_pause(self, message: Message) -> None:
        self.is_playing = False
        self.page.send({"is": "paused", "round": self.game.round})

    def _do_step(self, message: Message) -> None:
        who = message.get("who", "both")
        if who not in PLAYERS:
            raise ConfigError(f"who is {who!r}, allowed: {', '.join(PLAYERS)}; send one of them")
        self.is_playing = False
        if not self._failure:
            self.game.step(who)
            self._stop_where_it_failed()

    def _do_speed(self, message: Message) -> None:
        speed = float(message["rounds"])
        if not 0 <= speed <= _MAX_SPEED:
            raise ConfigError(
                f"speed is {speed}, allowed: 0 .. {_MAX_SPEED:g} rounds a second; choose another"
            )
        self.speed, self._due = speed, time.monotonic()

    def _do_reset(self, message: Message) -> None:
        self.game.reset()
        self._begun()

    def _do_back(self, message: Message) -> None:
        self.game.back_to(int(message["round"]))
        self.is_playing, self._failure = False, ""
        self._forget()

    def _do_change(self, message: Message) -> None:
        if self.game.change(from_query(dict(message["query"]))):
            self._begun()
        self._forget()
        self._tell_game()

    def _do_spectrum(self, message: Message) -> None:
        self._measures = bool(message["on"])
        self._measured_at = -1e9
        if self.spectrometer is None:
            self._lose()

    def _do_command(self, message: Message) -> None:
        kimg = max(self.game.state.cur_nimg, self.game.parameters.config.round_nimg) / 1000
        text = self.game.parameters.command(kimg=kimg)
        csv = self.game.cloud.csv()
        self.page.send({"is": "command", "text": text, "csv": csv})

    def _do_head(self, message: Message) -> None:
        self._tell_game()

    def _begun(self) -> None:
        self._failure = ""
        self._reset_at += 1
        self._forget()

    def _forget(self) -> None:
        """Drops what was measured, and what is still being measured, of another game."""
        self._limit = self._spectrum = None
        self._is_outdated = self._measuring

    def _tell_game(self) -> None:
        self.page.send({"is": "game", **self._frames.head(self.game)})

    def _measure(self, now: float) -> None:
        """Sends the game's place to be measured, where it is due and the last one came back."""
        wanted = self._measures and not self._measuring and not self._failure
        if not wanted or now - self._measured_at < MEASURE_EVERY_S or not self.game.round:
            return
        assert self.spectrometer is not None
        place = Place(
            parameters=self.game.parameters,
            content=content_of(self.game.state),
            round=self.game.round,
            with_limit=self._num_measured % _LIMIT_EVERY == 0 or self._limit is None,
        )
        try:
            self.spectrometer.send(place)
        except OSError:
            self._lose()
            return
        self._measuring, self._measured_at = True, now
        self._num_measured += 1

    def _receive(self, spectrometer: Connection) -> None:
        try:
            found = spectrometer.recv()
        except (EOFError, OSError):
            self._lose()
        else:
            self._take(found)

    def _lose(self) -> None:
        """Goes on without measurements: their process has ended."""
        self.spectrometer, self._measures, self._measuring = None, False, False
        self._spectrum = {
            "round": self.game.round,
            "refused": "the process that measures has ended; load the page again for a new one",
        }

    def _take(self, found: Message) -> None:
        self._measuring = False
        if self._is_outdated:
            self._is_outdated = False
            return
        self._limit = found.get("limit", self._limit)
        self._spectrum = {**found, "limit": self._limit}
