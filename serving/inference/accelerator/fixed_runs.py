"""A model on a GPU at every bucket, opened, warmed up and timed by the device's owner.

One session holds the weights once and replays one CUDA graph for each bucket. Where a graph can't
be captured (control flow, a node that CUDA doesn't have, an algorithm that fails), every bucket has
a session of its own, so that cuDNN's plans stay.
"""

import logging
import statistics
import time
import weakref
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from models.bundle import Bundle
from models.bundle.generator import Images
from models.bundle.runtime import ort
from models.errors import BundleError
from serving.errors import DeviceMemoryError, ServingError
from serving.inference.accelerator.buckets import cheapest_cuts
from serving.inference.accelerator.cuda_errors import (
    is_out_of_memory,
    lost_device,
    wanted_bytes,
)
from serving.inference.accelerator.fixed_run import FixedRun
from serving.inference.accelerator.half import half_graph
from serving.inference.accelerator.owner import Owner
from serving.inference.accelerator.providers import open_on_device
from serving.inference.sessions import Compute, Feed
from serving.observability.gpu_memory import room_of_this_process
from serving.observability.loops import cause_of

logger = logging.getLogger(__name__)

_TIMED_RUNS = 3
_MB = 1 << 20


class Attempt(NamedTuple):
    """A way to open a model on a GPU."""

    replays: bool
    """As CUDA graphs."""
    search: str
    """For cuDNN's algorithms (`cuda_options`)."""


class FixedRuns:
    """One version on one device; for any thread."""

    def __init__(
        self, bundle: Bundle, buckets: tuple[int, ...], compute: Compute, owner: Owner
    ) -> None:
        """Opens the model in the best way that works.

        Args:
            bundle: the version.
            buckets: numbers of rows, rising.
            compute: the device, and how it is used.
            owner: of the device.

        Raises:
            ModelError: the graph is refused, or can't make a batch of a bucket.
            DeviceError: no session came up on the device.
            DeviceMemoryError: it doesn't fit the device.
            Exception: the device is lost.
        """
        self._bundle, self._compute, self._owner = bundle, compute, owner
        # One for all sessions, each of which keeps what it was opened from.
        self._graph = half_graph(bundle.model_path) if compute.math == "fp16" else None
        self.way: Attempt
        """How it runs."""
        self._runs: list[FixedRun] = []  # rising; the owner alone touches what is in it
        # Whoever lets go of this object last, its sessions end in their own thread.
        weakref.finalize(self, owner.post, self._runs.clear).atexit = False
        self._open(buckets)
        self._cuts = cheapest_cuts(owner.call(self._times))

    def __call__(self, feed: Feed) -> Images:
        """Makes images of up to the largest bucket's rows."""
        return self._owner.call(lambda: self._make(feed))

    def padded(self, num_rows: int) -> int:
        """How many rows are computed where so many are wanted."""
        return sum(self._cuts[num_rows])

    def try_one(self) -> None:
        """Makes an image that nobody wants: does the device still work?"""
        self._owner.call(lambda: self._runs[0](self._runs[0].blank()))

    def shrink(self) -> bool:
        """Keeps the largest bucket alone, which makes room on the device; False where it did."""
        return self._owner.call(self._shrink)

    def _make(self, feed: Feed) -> Images:
        num_rows = len(feed["z"])
        cuts = self._cuts[num_rows]
        by_size = {run.num_rows: run for run in self._runs}
        if len(cuts) == 1:
            return by_size[cuts[0]](feed)
        parts, start = [], 0
        for size in cuts:
            part = {name: rows[start : start + size] for name, rows in feed.items()}
            parts.append(by_size[size](part))
            start += size
        return np.concatenate(parts)

    def _open(self, buckets: tuple[int, ...]) -> None:
        attempts = _attempts(self._compute)
        for attempt in attempts:
            try:
                self._open_as(attempt, buckets)
                self.way = attempt
                return
            except BaseException as error:  # foreign code may raise anything
                self._owner.call(self._runs.clear)
                if is_out_of_memory(error):
                    raise self._no_room(error) from error
                is_hopeless = lost_device(error) is not None or isinstance(error, ServingError)
                if is_hopeless or attempt is attempts[-1]:
                    raise
                manifest = self._bundle.manifest
                logger.info(
                    "version %d of %s can't run on %s as %s, the next way is tried: %s",
                    *(manifest.version, manifest.name, self._compute.device, attempt),
                    cause_of(error.__cause__ or error),
                )

    def _open_as(self, attempt: Attempt, buckets: tuple[int, ...]) -> None:
        """Opens every bucket, each a piece of work of its own for the owner."""
        shared: list[ort.InferenceSession] = []
        whole = attempt.replays and self._compute.tensorrt_cache is None

        def session_of(num_rows: int) -> ort.InferenceSession:
            if not shared or not whole:
                shared[:] = [self._session(attempt, None if whole else num_rows)]
            return shared[0]

        def add(num_rows: int, graph: int | None) -> Callable[[], None]:
            def work() -> None:
                session = session_of(num_rows)
                manifest = self._bundle.manifest
                try:
                    run = FixedRun(session, manifest, num_rows, self._compute, graph=graph)
                except Exception as error:  # a runtime's errors share no base
                    raise BundleError(
                        f"{self._bundle.model_path}: can't make a batch of {num_rows}: {error}; "
                        "export the model again, with a batch of any size"
                    ) from error
                self._runs.append(run)

            return work

        try:
            # The largest first: its warm-up takes the memory that the others then use too.
            for number, num_rows in enumerate(reversed(buckets), start=1):
                if self._compute.tensorrt_cache is not None:
                    # Builds TensorRT's engine and keeps it: runs go on, where the owner would
                    # be held up for minutes. No graph is captured meanwhile.
                    self._session(attempt._replace(replays=False), num_rows)
                self._owner.call_slow(add(num_rows, number if attempt.replays else None))
        finally:
            self._owner.call(shared.clear)
        self._owner.call(self._runs.reverse)

    def _session(self, attempt: Attempt, num_rows: int | None) -> ort.InferenceSession:
        return open_on_device(
            self._bundle,
            self._compute,
            num_rows=num_rows,
            replays=attempt.replays,
            search=attempt.search,
            graph=self._graph,
        )

    def _no_room(self, error: BaseException) -> DeviceMemoryError:
        wanted, room = wanted_bytes(error), room_of_this_process()
        need = "more memory than there is" if wanted is None else f"{_mb(wanted)} MB more"
        left = "" if room is None else f", of its {_mb(room.total)} MB {_mb(room.free)} are free"
        return DeviceMemoryError(
            f"{self._bundle.path}: needs {need} on {self._compute.device}{left}; it is tried again "
            "when there may be room: let fewer versions be loaded (--max-loaded), or lower "
            "--max-batch-rows"
        )

    def _times(self) -> dict[int, float]:
        """The median seconds of each bucket's run, copies included."""
        found = {}
        for run in self._runs:
            feed, times = run.blank(), []
            for _ in range(_TIMED_RUNS):
                began = time.perf_counter()
                run(feed)
                times.append(time.perf_counter() - began)
            found[run.num_rows] = statistics.median(times)
        return found

    def _shrink(self) -> bool:
        if len(self._runs) < 2:
            return False
        largest = self._runs[-1].num_rows
        self._cuts = [(), *[(largest,)] * largest]
        del self._runs[:-1]
        return True


def _attempts(compute: Compute) -> list[Attempt]:
    if compute.tensorrt_cache is not None:  # which looks for algorithms by itself
        ways = [Attempt(True, "HEURISTIC"), Attempt(False, "HEURISTIC")]
    else:
        # cuDNN's heuristic answers at once, and fails on some cards (mode B on sm_75 and sm_86).
        # The last way is the one that most can go.
        graphs = [Attempt(True, "HEURISTIC"), Attempt(True, "EXHAUSTIVE")]
        plain = [Attempt(False, "HEURISTIC"), Attempt(False, "EXHAUSTIVE")]
        ways = [*graphs, plain[-1]] if compute.cuda_graphs else plain
    return [way for way in ways if compute.cuda_graphs or not way.replays]


def _mb(num_bytes: int) -> int:
    return -(-num_bytes // _MB)
