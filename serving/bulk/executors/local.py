"""Runs shards on processes of this machine; a process that dies is replaced.

Each worker has a pipe of its own, so a death is seen at once and it is known which shard it had.
Workers are spawned: a forked child would share the descriptors, and ONNX Runtime's threads not.
"""

import contextlib
import functools
import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from models.bundle import Bundle
from serving.bulk.errors import ExecutorError
from serving.bulk.maker import Answerer, Done, Job, Work, result_of
from serving.inference.accelerator.choice import take

MAX_DEATHS = 3
"""A shard that ends so many workers ends the run: the next would die as well."""
_STOP_TIMEOUT_S = 5.0


@dataclass
class _Worker:
    """A process, its pipe, and the shard that it has."""

    device: str
    process: BaseProcess
    pipe: Connection
    work: Work | None = None


class LocalExecutor:
    """Runs shards on `devices`, one process for each entry."""

    def __init__(self, job: Job, bundle: Bundle, devices: list[str]) -> None:
        """devices: "cpu" or "cuda:GPU" of every worker, GPU as CUDA_VISIBLE_DEVICES has it."""
        self._job = job
        self._bundle = bundle
        self._devices = devices
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._deaths: dict[int, int] = {}

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that live."""
        return [worker.process.pid or 0 for worker in self._workers]

    def __call__(self, works: Iterator[Work]) -> Iterator[Done]:
        """Runs shards and gives what is done, in any order.

        Raises:
            BulkError: a worker failed, or died again and again.
        """
        again: list[Work] = []
        try:
            for device in self._devices:
                work = next(works, None)
                if work is None:
                    break
                self._start(device, work)
            while self._workers:
                for worker in self._ready():
                    done = self._result(worker)
                    if done is None:  # it died
                        again.append(self._bury(worker))
                    else:
                        worker.work = None
                        yield done
                    work = again.pop() if again else next(works, None)
                    if done is None:
                        assert work is not None
                        self._start(worker.device, work)
                    elif work is None:
                        self._dismiss(worker)
                    else:
                        self._give(worker, work)
        finally:
            self._stop_all()

    def _ready(self) -> list[_Worker]:
        """Workers that have said something, or died."""
        found = set(wait([worker.pipe for worker in self._workers]))
        return [worker for worker in self._workers if worker.pipe in found]

    def _start(self, device: str, work: Work) -> None:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._job, self._bundle.path, device)
        process = self._context.Process(target=run_worker, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends when the worker does
        worker = _Worker(device, process, ours)
        self._workers.append(worker)
        self._give(worker, work)

    def _give(self, worker: _Worker, work: Work) -> None:
        worker.work = work
        with contextlib.suppress(OSError):  # it is dead: its pipe will tell
            worker.pipe.send(work)

    def _result(self, worker: _Worker) -> Done | None:
        """What a worker has done; None where it died.

        Raises:
            BulkError: it failed.
        """
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            return None
        return result_of(answer)

    def _bury(self, worker: _Worker) -> Work:
        """Gives back the shard of a worker that died.

        Raises:
            ExecutorError: this shard has ended too many.
        """
        self._dismiss(worker)
        work = worker.work
        assert work is not None
        index = work.shard.index
        self._deaths[index] = self._deaths.get(index, 0) + 1
        if self._deaths[index] >= MAX_DEATHS:
            raise ExecutorError(
                f"shard {index} has ended {MAX_DEATHS} workers, the last with "
                f"{_told(worker.process.exitcode)}; is there memory enough? Give fewer --workers "
                "or a smaller --batch-rows"
            )
        return work

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.pipe.close()  # which ends it
        worker.process.join(_STOP_TIMEOUT_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()

    def _stop_all(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in list(self._workers):
            self._dismiss(worker)


def run_worker(pipe: Connection, job: Job, bundle_path: Path, device: str) -> None:
    """A worker's life: shards in, receipts out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver tells us, by ending the pipe
    answer = Answerer(job, functools.partial(Bundle.open, bundle_path), take(device))
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(answer(pipe.recv()))


def _told(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code} ({signal.Signals(-exit_code).name})"
    return f"exit code {exit_code}"
