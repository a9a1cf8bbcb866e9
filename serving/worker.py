"""An inference worker: takes batches off a Unix socket, runs them, sends the images back.

The event loop speaks with the HTTP processes. A run of a millisecond or two happens right there;
longer ones in threads, so that sockets are served while the model runs (ONNX Runtime releases the
interpreter's lock), as many at once as there are lanes. Loading has its own threads. Batches are
begun in the order in which they come.
"""

import asyncio
import logging
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path

import numpy as np
import uvloop

from models.errors import ModelError
from models.generator import Images
from serving import metrics
from serving.engine import Engine
from serving.errors import ServingError
from serving.frames import (
    Failed,
    FrameProtocol,
    Made,
    Message,
    Refresh,
    Refreshed,
    Run,
    run_arrays,
)
from serving.shelf import Shelf
from serving.tickets import VersionKey

logger = logging.getLogger(__name__)


# Below this, a run of the model is shorter than two threads take to hand it over and back.
_QUICK_S = 0.002

Answer = tuple[Message, tuple[Images, ...]]


class Worker:
    """Serves one socket until told to stop."""

    def __init__(self, shelf: Shelf, *, path: Path, reload_interval_s: float, lanes: int) -> None:
        """Sets up, and runs nothing yet.

        Args:
            shelf: the engines.
            path: the socket.
            reload_interval_s: 0 never looks at the repository again.
            lanes: batches that are made at once.
        """
        self._shelf = shelf
        self._path = path
        self._reload_interval_s = reload_interval_s
        self._lanes = lanes
        self._connections: set[FrameProtocol] = set()
        self._jobs: queue.SimpleQueue[tuple[FrameProtocol, Run, memoryview, Engine] | None]
        self._jobs = queue.SimpleQueue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_jobs = 0  # handed to the threads, not yet answered
        self._row_s: dict[VersionKey, float] = {}  # seconds a row takes, a moving average
        self._stopping = False
        self._stopped: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

    def run(self) -> None:
        """Serves until SIGTERM has come and every connection is closed, or the parent is gone."""
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._loop.add_signal_handler(signal.SIGTERM, self._stop)
        self._loop.add_signal_handler(signal.SIGINT, lambda: None)  # the parent decides
        parent = multiprocessing.parent_process()
        if parent is not None:
            self._loop.add_reader(parent.sentinel, self._stopped.set)
        self._path.unlink(missing_ok=True)  # left by a worker that was killed
        server = await self._loop.create_unix_server(self._connection, str(self._path))
        for lane in range(self._lanes):
            threading.Thread(target=self._compute, name=f"compute-{lane}", daemon=True).start()
        if self._reload_interval_s:
            self._spawn(self._watch())
        async with server:
            await self._stopped.wait()
        for _ in range(self._lanes):
            self._jobs.put(None)
        for task in self._tasks:
            task.cancel()

    def _stop(self) -> None:
        """Drains: HTTP processes close their ends when they have answered everything."""
        self._stopping = True
        if not self._connections:
            self._stopped.set()

    def _connection(self) -> FrameProtocol:
        return FrameProtocol(self._on_frame, self._on_made, self._on_lost)

    def _on_made(self, protocol: FrameProtocol) -> None:
        self._connections.add(protocol)
        protocol.send(self._shelf.announce())

    def _on_lost(self, protocol: FrameProtocol) -> None:
        self._connections.discard(protocol)
        if self._stopping and not self._connections:
            self._stopped.set()

    def _on_frame(self, protocol: FrameProtocol, message: Message, body: memoryview) -> None:
        if isinstance(message, Refresh):
            self._spawn(self._refresh(protocol, message))
            return
        assert isinstance(message, Run)
        engine = self._shelf.get((message.name, message.version))
        if engine is None:
            self._spawn(self._load_and_run(protocol, message, body))
        elif self._num_jobs == 0 and self._is_quick(message):
            protocol.send(*self._make(message, body, engine, alone=True))
        else:
            self._enqueue(protocol, message, body, engine)

    def _is_quick(self, run: Run) -> bool:
        """True where waking the other thread would take longer than the run itself."""
        return self._row_s.get((run.name, run.version), _QUICK_S) * run.num_rows < _QUICK_S

    def _enqueue(self, protocol: FrameProtocol, run: Run, body: memoryview, engine: Engine) -> None:
        self._num_jobs += 1
        self._jobs.put((protocol, run, body, engine))

    async def _load_and_run(self, protocol: FrameProtocol, run: Run, body: memoryview) -> None:
        try:
            engine = await asyncio.to_thread(self._shelf.load, (run.name, run.version))
        except (ModelError, ServingError) as error:
            logger.error("version %d of %s is refused: %s", run.version, run.name, error)
            reason = f"version {run.version} of model {run.name!r} is refused: {error}"
            protocol.send(Failed(run.batch, reason))
        else:
            self._enqueue(protocol, run, body, engine)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._reload_interval_s)
            if await asyncio.to_thread(self._shelf.refresh):
                self._announce()

    async def _refresh(self, protocol: FrameProtocol, message: Refresh) -> None:
        await asyncio.to_thread(self._shelf.refresh, again=True)
        self._announce()
        protocol.send(Refreshed(message.number))

    def _announce(self) -> None:
        for protocol in self._connections:
            protocol.send(self._shelf.announce())

    def _compute(self) -> None:
        """A thread that runs models."""
        for protocol, run, body, engine in self._taken():
            answer = self._make(run, body, engine, alone=self._num_jobs == 1)
            self._loop.call_soon_threadsafe(self._answer, protocol, answer)

    def _answer(self, protocol: FrameProtocol, answer: Answer) -> None:
        self._num_jobs -= 1
        protocol.send(*answer)

    def _make(self, run: Run, body: memoryview, engine: Engine, *, alone: bool) -> Answer:
        """Runs the model; a failure is an answer too."""
        started = time.perf_counter()
        try:
            images = np.ascontiguousarray(engine.make(*run_arrays(run, body), alone=alone))
        except Exception as error:
            logger.exception("a batch of %s failed", run.name)
            return Failed(run.batch, f"model {run.name!r} failed: {error}"), ()
        compute_s = time.perf_counter() - started
        key = (run.name, run.version)
        row_s = compute_s / run.num_rows
        self._row_s[key] = 0.8 * self._row_s.get(key, row_s) + 0.2 * row_s
        if padding := engine.padded(run.num_rows) - run.num_rows:
            metrics.PADDED_ROWS.labels(run.name).inc(padding)
        return Made(run.batch, images.shape, compute_s), (images,)

    def _taken(self) -> Iterator[tuple[FrameProtocol, Run, memoryview, Engine]]:
        while (job := self._jobs.get()) is not None:
            yield job

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
