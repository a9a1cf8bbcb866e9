"""The games of a server: a process each, bounded in number, ended when nobody is there any more.

Each game has a key. Whoever lost the connection comes back with it within GRACE_S; a page that was
closed says so, and its game ends at once.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from training.errors import ConfigError
from training.lab import spectrometer, worker
from training.lab.frames import MAGIC
from training.lab.parameters import from_query

GRACE_S = 30.0
"""Seconds that a game waits, paused, for its page to come back."""
_END_S = 2.0
_CONTEXT = multiprocessing.get_context("forkserver")

log = logging.getLogger(__name__)
Answer = bytes | dict[str, Any]


@dataclass(eq=False, kw_only=True)
class LiveGame:
    """A game's processes and the pipe to it."""

    key: str
    pipe: Connection
    processes: tuple[BaseProcess, ...]
    answers: "asyncio.Queue[Answer | None]" = field(default_factory=asyncio.Queue)
    """What the game answered; None once it has ended. It makes a frame only when it is asked."""
    page: int = 0
    """The number of the page that has it; a later one takes it over."""
    leaving: asyncio.TimerHandle | None = None

    def send(self, message: Mapping[str, Any]) -> None:
        """Hands a message to the game. Raises OSError where it has ended."""
        self.pipe.send(dict(message))

    def receive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Takes answers off the pipe until it ends: the body of a thread.

        An event loop may make a pipe that it watches non-blocking, and a frame comes in pieces.
        """
        with contextlib.suppress(RuntimeError):  # the loop has ended before the game
            try:
                while True:
                    answer = _read(self.pipe.recv_bytes())
                    loop.call_soon_threadsafe(self.answers.put_nowait, answer)
            except (EOFError, OSError, TypeError):  # TypeError: closed while it was read
                loop.call_soon_threadsafe(self.answers.put_nowait, None)


def _read(content: bytes) -> Answer:
    if content[:4] != MAGIC:
        found: dict[str, Any] = multiprocessing.reduction.ForkingPickler.loads(content)
        return found
    return content


def _start(query: dict[str, str]) -> tuple[Connection, tuple[BaseProcess, ...]]:
    """Forks a game's two processes. Waits for the process that forks them."""
    pipe, pages_end = _CONTEXT.Pipe()
    place, measuring_end = _CONTEXT.Pipe()
    processes = (
        _CONTEXT.Process(target=worker.serve, args=(pages_end, place, query), daemon=True),
        _CONTEXT.Process(target=spectrometer.serve, args=(measuring_end,), daemon=True),
    )
    for process in processes:
        process.start()
    # Else a process that dies would leave its pipe open here, and nobody would notice.
    for end in (pages_end, place, measuring_end):
        end.close()
    return pipe, processes


class Games:
    """All games of a server."""

    def __init__(self, most: int) -> None:
        """most: at a time."""
        self.most = most
        self._games: dict[str, LiveGame] = {}
        self._starting: set[str] = set()
        _CONTEXT.set_forkserver_preload(["training.lab.warm"])

    def __len__(self) -> int:
        return len(self._games) + len(self._starting)

    def warm_up(self) -> None:
        """Starts the process that games are forked from; seconds, so call it in a thread."""
        first = _CONTEXT.Process(target=time.monotonic)
        first.start()
        first.join()

    async def open(self, query: Mapping[str, str]) -> LiveGame:
        """Begins a game.

        Raises:
            ConfigError: its parameters are not allowed, or there are as many games as there may be.
        """
        from_query(query)
        if len(self) >= self.most:
            raise ConfigError(
                f"games is {len(self)}, allowed: {self.most} at a time; close another tab, "
                "or start the lab with a larger --games"
            )
        key = secrets.token_urlsafe(16)
        self._starting.add(key)
        try:
            pipe, processes = await asyncio.to_thread(_start, dict(query))
        finally:
            self._starting.discard(key)
        game = LiveGame(key=key, pipe=pipe, processes=processes)
        self._games[key] = game
        loop = asyncio.get_running_loop()
        threading.Thread(target=game.receive, args=(loop,), daemon=True).start()
        log.info("game %s begins, %d of %d", game.key[:6], len(self._games), self.most)
        return game

    def find(self, key: str) -> LiveGame | None:
        """The game of a key that is still there."""
        return self._games.get(key)

    def join(self, game: LiveGame) -> int:
        """A page takes the game; returns the page's number."""
        if game.leaving is not None:
            game.leaving.cancel()
            game.leaving = None
        game.page += 1
        return game.page

    def leave(self, game: LiveGame, page: int, *, for_good: bool) -> None:
        """A page has gone: its game ends now, or later if nobody comes back for it."""
        if page != game.page or game.key not in self._games:
            return  # another page has it by now
        if for_good:
            self.end(game, "its page was closed")
            return
        with contextlib.suppress(OSError):
            game.send({"do": "pause"})
        loop = asyncio.get_running_loop()
        game.leaving = loop.call_later(GRACE_S, self.end, game)

    def end(self, game: LiveGame, why: str = "nobody came back") -> None:
        """Ends a game's processes. why: for the log."""
        if self._games.pop(game.key, None) is None:
            return
        if game.leaving is not None:
            game.leaving.cancel()
        for process in game.processes:
            process.terminate()  # its end of the pipe closes, which ends the thread that reads
        log.info("game %s ends: %s; %d left", game.key[:6], why, len(self))

    def end_all(self) -> None:
        """Ends every game, and waits for its processes."""
        games = list(self._games.values())
        for game in games:
            self.end(game, "the lab ends")
        for game in games:
            for process in game.processes:
                process.join(_END_S)
