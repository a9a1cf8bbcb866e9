"""Trainings side by side in processes of their own, for benchmarks that can be stopped."""

import ctypes
import itertools
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
_PR_SET_PDEATHSIG = 1


def run_all(
    run: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    *,
    goes_on: Callable[[], bool] = lambda: True,
) -> Iterator[Result]:
    """Gives what `run` gives for each task, in the order in which they end.

    Args:
        run: in a worker; with one worker in this process.
        tasks: as many as there are workers are begun at a time.
        workers: 1 or more.
        goes_on: whether another one may begin; those that have begun are waited for.

    Raises:
        Exception: what a run has raised; nothing else is begun then.
    """
    left = iter(tasks)
    if workers == 1:
        for task in left:
            if not goes_on():
                return
            yield run(task)
        return
    # Spawned: a forked child of a process that has run torch inherits its threads' state.
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        running: set[Future[Result]] = set()
        while True:
            for task in itertools.islice(left, workers - len(running) if goes_on() else 0):
                running.add(pool.submit(run, task))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever, with all its memory."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
