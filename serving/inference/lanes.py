"""The threads of a worker that run models: as many at once as there are lanes.

Whatever a run raises answers its own batch, and nothing else: neither a thread nor a place among
the lanes is lost by it.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from models.bundle.generator import Images
from serving.inference.engine import Engine
from serving.inference.faults import LOG, is_passing
from serving.inference.frames import (
    Failed,
    FrameProtocol,
    Made,
    Message,
    Run,
    mask_of,
    rows_of,
    run_arrays,
    styled_arrays,
)
from serving.inference.progress import Progress
from serving.observability import metrics
from serving.observability.loops import Loop, SaidOnce, cause_of, quietly

logger = logging.getLogger(__name__)

# Below this, a run of the model is shorter than two threads take to hand it over and back.
_QUICK_S = 0.002
_MAX_TIMED = 4096  # versions whose runs are timed

Answer = tuple[Message, tuple[Images, ...]]


class Job(NamedTuple):
    """A batch, where it came from, and what makes it."""

    protocol: FrameProtocol
    run: Run
    body: memoryview
    engine: Engine


class Lanes:
    """Runs batches; everything but the threads' own work happens on the event loop."""

    def __init__(
        self, num: int, progress: Progress, on_answer: Callable[[FrameProtocol, Answer], None]
    ) -> None:
        """on_answer sends an answer off, on the event loop; it doesn't raise."""
        self._num = num
        self._progress = progress
        self._on_answer = on_answer
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._num_jobs = 0  # handed to the threads, not yet answered
        # Seconds a row takes, a moving average, by digest and kind.
        self._row_s: dict[tuple[str, str], float] = {}
        self._said = SaidOnce()
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Starts the threads; called on the event loop that gets the answers."""
        self._loop = asyncio.get_running_loop()
        for lane in range(self._num):
            name = f"compute-{lane}"
            threading.Thread(
                target=Loop("compute").run_in_thread, args=(self._turn,), name=name, daemon=True
            ).start()

    def stop(self) -> None:
        """Lets the threads end, each after what it does."""
        for _ in range(self._num):
            self._jobs.put(None)

    @property
    def is_idle(self) -> bool:
        """True where no batch is with the threads."""
        return self._num_jobs == 0

    def take(self, job: Job) -> None:
        """Runs a batch: at once where that is quick, else by the next thread that is free."""
        if self._num_jobs == 0 and job.engine.is_steady and self._is_quick(job.run):
            # On one thread: to wake a second one takes longer than it saves.
            self._on_answer(job.protocol, self._make(job, alone=False))
        else:
            self.put(job)

    def put(self, job: Job) -> None:
        """Has the next thread that is free run a batch."""
        self._num_jobs += 1
        self._jobs.put(job)

    def _is_quick(self, run: Run) -> bool:
        """True where waking another thread would take longer than the run itself."""
        return self._row_s.get((run.digest, _kind(run)), _QUICK_S) * run.num_rows < _QUICK_S

    def _turn(self) -> bool:
        """Runs one batch, in a thread; False where there are no more."""
        job = self._jobs.get()
        if job is None:
            return False
        share = min(1.0, job.run.num_rows / job.engine.max_rows)
        number = self._progress.begin(job.engine.expected_s * share)
        answer = self._make(job, alone=self._num_jobs == 1)
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._end, job.protocol, answer)
        # Not where that failed: a batch without an answer is one that never ends.
        self._progress.end(number)
        return True

    def _end(self, protocol: FrameProtocol, answer: Answer) -> None:
        self._num_jobs -= 1
        self._on_answer(protocol, answer)

    def _make(self, job: Job, *, alone: bool) -> Answer:
        """Runs the model; a failure is an answer too."""
        run, engine = job.run, job.engine
        started = time.perf_counter()
        try:
            images = np.ascontiguousarray(_made(run, job, alone=alone))
        except BaseException as error:  # foreign code may raise anything
            return self._failure(run, error), ()
        compute_s = time.perf_counter() - started
        self._count(run, engine, compute_s)
        return Made(run.batch, images.shape, compute_s), (images,)

    def _count(self, run: Run, engine: Engine, compute_s: float) -> None:
        row_s = compute_s / run.num_rows
        if len(self._row_s) >= _MAX_TIMED:
            self._row_s.clear()
        key = run.digest, _kind(run)
        self._row_s[key] = 0.8 * self._row_s.get(key, row_s) + 0.2 * row_s
        padding = 0 if _kind(run) else engine.padded(run.num_rows) - run.num_rows
        if padding:
            with quietly():
                metrics.PADDED_ROWS.labels(run.name).inc(padding)

    def _failure(self, run: Run, error: BaseException) -> Failed:
        with quietly():
            if self._said.is_new((run.digest, cause_of(error))):
                logger.error(
                    "version %d of %s can't make a batch of %d",
                    *(run.version, run.name, run.num_rows),
                    exc_info=error,
                )
        return Failed(
            run.batch,
            f"model {run.name!r} (version {run.version}) failed with a batch of {run.num_rows}; "
            f"{LOG}",
            by_version=not is_passing(error),
        )


def _kind(run: Run) -> str:
    """Which graph makes a batch; empty for the whole one."""
    return run.part or ("styles" if run.num_styles else "units" if run.num_units else "")


def _made(run: Run, job: Job, *, alone: bool) -> Images:
    """The images of a batch, by the graph that it needs."""
    engine = job.engine
    if run.part:
        return engine.run_part(run.part, rows_of(run, job.body))
    if run.num_styles:
        return engine.make_styled(*styled_arrays(run, job.body))
    if run.num_units:
        return engine.make_masked(*run_arrays(run, job.body), mask_of(run, job.body))
    return engine.make(*run_arrays(run, job.body), alone=alone)
