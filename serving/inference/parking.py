"""Batches that came before their version was in memory: they wait beside the lanes, not in them.

A load takes seconds, or minutes. Batches that wait for one take no slot of the worker's, else three
of them would keep every other model waiting. How many wait, and for how long, has a bound.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from models.errors import ModelError
from serving.errors import ServingError
from serving.inference.engine import Engine
from serving.inference.engines import EngineManager
from serving.inference.faults import is_passing, words_for_clients
from serving.inference.frames import Failed, FrameProtocol, Message, Parked, Run
from serving.inference.lanes import Job
from serving.inference.loading import PATIENCE_S
from serving.inference.snapshot import LOADING
from serving.observability.loops import Loop, ends, in_thread

MAX_ROWS = 512
"""The most rows that wait for one version."""
_REMEMBERED_S = 1.0  # how long a refusal is repeated without looking again
_MAX_REMEMBERED = 256

Waiting = list[tuple[FrameProtocol, Run, memoryview]]


class Parking:
    """The batches of one worker that wait; for the event loop's thread alone."""

    def __init__(
        self,
        engines: EngineManager,
        *,
        go_on: Callable[[Job], None],
        answer: Callable[[FrameProtocol, Message], None],
    ) -> None:
        """go_on takes a batch whose version is in memory; answer sends a message, never raising."""
        self._engines = engines
        self._go_on, self._answer = go_on, answer
        self._waiting: dict[str, Waiting] = {}  # by digest
        self._refused: dict[str, tuple[float, str, bool]] = {}  # until when, why, by the version?
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = Loop("loading")

    def add(self, protocol: FrameProtocol, run: Run, body: memoryview) -> None:
        """Keeps a batch until its version is loaded, or answers why that can't be."""
        until, reason, by_version = self._refused.get(run.digest, (0.0, "", False))
        if asyncio.get_running_loop().time() < until:
            self._answer(protocol, Failed(run.batch, reason, by_version))
            return
        waiting = self._waiting.get(run.digest)
        if waiting is None:
            waiting = self._waiting[run.digest] = []
            self._spawn(self._load(run.name, run.version, run.digest))
        elif sum(other.num_rows for _, other, _ in waiting) + run.num_rows > MAX_ROWS:
            text = f"version {run.version} of model {run.name!r} is being loaded, and many wait"
            self._answer(protocol, Failed(run.batch, f"{text}; ask again in a moment"))
            return
        waiting.append((protocol, run, body))
        self._answer(protocol, Parked(run.batch))

    def stop(self) -> None:
        """Gives up: nobody waits any more."""
        for task in self._tasks:
            task.cancel()

    async def _load(self, name: str, version: int, digest: str) -> None:
        """Waits for a load, then lets every batch of its version go on, or answers it."""
        engine: Engine | None = None
        try:
            engine = await self._engine(name, version, digest)
        except BaseException as error:
            if ends(error):
                raise
            if not isinstance(error, ModelError | ServingError | TimeoutError):
                self._failures.failed(error)
            why = self._words(error)
            reason = f"version {version} of model {name!r} is refused: {why}"
            by_version = not is_passing(error)
            self._remember(digest, reason, by_version)
        else:
            self._failures.succeeded()
        for protocol, run, body in self._waiting.pop(digest):
            if engine is None:
                self._answer(protocol, Failed(run.batch, reason, by_version))
            else:
                self._go_on(Job(protocol, run, body, engine))

    async def _engine(self, name: str, version: int, digest: str) -> Engine:
        async with asyncio.timeout(PATIENCE_S):
            # The storage is looked at in a thread: it may not answer.
            load = await in_thread(lambda: self._engines.load(name, version, digest), "look-up")
            return await asyncio.shield(asyncio.wrap_future(load.engine))

    def _words(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return LOADING
        return words_for_clients(error, self._engines.root)

    def _remember(self, digest: str, reason: str, by_version: bool) -> None:
        while len(self._refused) >= _MAX_REMEMBERED:
            del self._refused[next(iter(self._refused))]
        until = asyncio.get_running_loop().time() + _REMEMBERED_S
        self._refused[digest] = until, reason, by_version

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
