"""The service of one HTTP process: from a checked order to a response.

Holds the process's catalogue, batcher, worker clients, encoder and recorder, and starts and stops
them.
"""

import asyncio
import contextlib
import functools
import logging
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from prometheus_client import Counter, Gauge

from models.repository import Repository
from serving.connection.connections import Connections, Limits
from serving.dispatch.batcher import Batcher
from serving.dispatch.catalogue import Catalogue, Shares
from serving.dispatch.futures import set_error, set_result
from serving.dispatch.single_flight import SingleFlight
from serving.dispatch.tickets import Batch, Ticket
from serving.dispatch.worker_client import WorkerClient
from serving.encoding.decoder import OUTCOMES, Decoder
from serving.errors import UnavailableProblem
from serving.http.auth import AccessControl
from serving.http.context import RequestContext
from serving.http.memory import Hold
from serving.http.messages import Request, Response
from serving.http.rate_limit import RateLimiter
from serving.inference.faults import without_paths
from serving.inference.frames import socket_path
from serving.inference.withdrawn import Withdrawn
from serving.observability import exposition, metrics
from serving.observability.buffered import BufferedMetrics
from serving.observability.loops import Loop
from serving.observability.requests import RequestRecorder
from serving.process.generation import Generation, Outcome
from serving.process.key_watch import KeyWatch
from serving.process.model_control import ModelControl
from serving.process.readiness import StartupBarrier
from serving.process.real_image_work import RealImageWork
from serving.process.response_encoder import ResponseEncoder
from serving.process.shared import Shared
from serving.process.turns import Turns
from serving.requests.deadlines import Scheduling
from serving.requests.generate import Order
from serving.settings import Settings
from serving.shared_counts import SharedCounts

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 75.0
"""How long a connection may rest after a response."""

_REASONS: dict[Counter | Gauge, tuple[str, ...]] = {
    metrics.ABANDONED_ROWS: ("disconnect", "deadline"),
    metrics.CONNECTIONS_REFUSED: ("descriptors",),
    metrics.CONNECTIONS_ENDED: ("write-timeout", "memory", "drain"),
    metrics.JOBS: ("waiting", "running", "done", "failed"),
    metrics.JOBS_ENDED: ("done", "failed", "deleted"),
    metrics.DECODED: OUTCOMES,
}
"""Metrics that are there from the start, with their reasons or kinds."""


class Service:
    """Makes images for orders."""

    def __init__(
        self,
        settings: Settings,
        *,
        run_folder: Path,
        shared: Shared,
        index: int,
        num_workers: int,
        on_ready: Callable[["Service"], None],
    ) -> None:
        """Connects to nothing yet.

        Args:
            settings: the server's.
            run_folder: the server's own folder, where the workers' sockets are.
            shared: what all processes of the server have.
            index: of this HTTP process: 0, 1 ...
            num_workers: how many inference workers there are.
            on_ready: called in one HTTP process, when all of them can make images.
        """
        self.settings = settings
        self.shared = shared
        self._repository = Repository(settings.repository)
        self.catalogue = Catalogue(self._repository, self._on_change)
        self._on_ready = on_ready
        self._was_ready = False
        self._barrier = StartupBarrier(shared.started, index, settings.api_processes)
        keys = shared.keys
        self.access = AccessControl(
            None if keys is None else keys.keys, RateLimiter(shared.rates.descriptor)
        )
        self._key_watch = (
            None if keys is None else KeyWatch(keys, self.access, settings.keys_grace_s)
        )
        self.buffered = BufferedMetrics(self._set_gauges)
        self.recorder = RequestRecorder(settings, self.buffered)
        self.batcher = Batcher(
            max_batch_rows=settings.max_batch_rows,
            max_waiting_rows=settings.max_waiting_rows,
            admitted=SharedCounts(shared.rows, index, settings.api_processes),
            on_made=self._on_made,
            on_load=self.buffered.schedule_flush,
        )
        self._devices: set[str] = set()
        self._workers = [
            WorkerClient(
                socket_path(run_folder, worker),
                self.batcher,
                self.catalogue,
                timeout_s=settings.worker_timeout_s,
            )
            for worker in range(num_workers)
        ]
        self.models = ModelControl(Withdrawn(shared.withdrawn), self.catalogue, self._workers)
        counts = SharedCounts(shared.connections, index, settings.api_processes)
        self.turns = Turns(counts, shared.bells, index)
        self.connections = Connections(
            Limits(
                read_timeout_s=settings.read_timeout_s,
                write_timeout_s=settings.write_timeout_s,
                keep_alive_s=KEEP_ALIVE_S,
                max_body_bytes=settings.max_body_bytes,
                max_held_bytes=settings.max_held_bytes // settings.api_processes,
            ),
            root_path=settings.root_path,
            on_refused=lambda reason: metrics.CONNECTIONS_REFUSED.labels(reason).inc(),
            on_ended=lambda reason: metrics.CONNECTIONS_ENDED.labels(reason).inc(),
            on_change=self.buffered.schedule_flush,
            on_number=self.turns.set_connected,
        )
        # There from the start, at 0: otherwise a query would not see the first of a kind.
        for metric, reasons in _REASONS.items():
            for reason in reasons:
                metric.labels(reason)
        self.encoder = ResponseEncoder(
            settings.cache_bytes // settings.api_processes,
            self.buffered,
            describes=settings.image_metadata,
        )
        self._single_flight = SingleFlight()
        self.decoder = Decoder(
            max_pixels=settings.max_input_pixels,
            timeout_s=settings.decode_timeout_s,
            on_end=_count_decoded,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the connections to the workers up."""
        _end_with_parent()
        exposition.register_process("http")
        self.buffered.flush()  # a scrape may already come, and shall see that it is not ready
        loop = asyncio.get_running_loop()
        loop.add_reader(self.shared.draining.fileno(), self.drain)
        loop.add_signal_handler(signal.SIGHUP, self._reread)
        work = [
            *(worker.run() for worker in self._workers),
            Loop("connections", last_pause_s=1.0).run(self.connections.turn),
        ]
        if self._key_watch is not None:
            work.append(self._key_watch.run())
        tasks = [asyncio.create_task(coroutine) for coroutine in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for worker in self._workers:
                worker.close()
            self.connections.close()
            self.encoder.shut_down()
            self.decoder.shut_down()
            self.recorder.shut_down()

    @property
    def draining(self) -> bool:
        """Whether the server was told to stop."""
        return self.recorder.draining

    @property
    def keys_fault(self) -> str | None:
        """Why no API key is valid, where their file can't be read; else None."""
        return None if self._key_watch is None else self._key_watch.fault

    def check_ready(self) -> None:
        """Raises UnavailableProblem, with the reason, if this server should get no requests."""
        if not self.draining and not self.catalogue.current:
            found = [f"model {name}: {text}" for name, text in self.catalogue.faults.items()]
            fault = "; ".join(found) or self._repository.fault()
            if fault is not None:
                words = without_paths(fault, self._repository.root)
                raise UnavailableProblem(f"nothing can be served yet: {words}")
        self.check_workers()
        if not self.catalogue.current:
            raise UnavailableProblem("no model of the repository is in service")
        if self.keys_fault is not None:
            raise UnavailableProblem("the file of API keys can't be read: every key is refused")
        if not self._barrier.all_arrived():
            raise UnavailableProblem("another HTTP process of this server is still starting")

    def check_workers(self) -> None:
        """Raises UnavailableProblem if there is no worker that could load a model."""
        if self.draining:
            raise UnavailableProblem("the server is shutting down; ask another one")
        if not self.batcher.workers:
            raise UnavailableProblem("no inference worker is ready yet; its log says why")

    def drain(self) -> None:
        """Reports the process as not ready, and ends each connection after its next response."""
        asyncio.get_running_loop().remove_reader(self.shared.draining.fileno())
        self.recorder.draining = True
        self.connections.drain()
        self.buffered.schedule_flush()

    def _reread(self) -> None:
        """SIGHUP: what lies in files may have changed."""
        if self._key_watch is not None:
            self._key_watch.look_now()

    async def with_real_images(
        self,
        request: Request,
        scheduling: Scheduling,
        num_rows: int,
        steps: Callable[[RealImageWork], Awaitable[Response]],
    ) -> Response:
        """Returns the response that a request's steps end with.

        num_rows: images that it brings or asks for, whichever are more.

        Raises:
            Problem: it is not admitted, or can't be carried out, as `make` says.
            ClientGoneError: the client left.
        """
        context = request.context
        self.batcher.check_capacity(num_rows)  # what is refused here is not charged
        if context.key is not None:
            self.access.charge(context.key, num_rows)
        context.num_rows += num_rows
        work = RealImageWork(
            batcher=self.batcher,
            decoder=self.decoder,
            in_thread=self.encoder.in_thread,
            context=context,
            scheduling=scheduling,
        )
        return await work.until_done(request, steps(work))

    async def make(self, order: Order, scheduling: Scheduling, request: Request) -> Response:
        """Returns the response to an order.

        Raises:
            OverloadedProblem: too many rows wait.
            RateLimitedProblem: the request's API key asks too fast.
            InvalidRequestProblem: that key may never ask for so many at once.
            UnavailableProblem: no worker can make the images.
            DeadlineProblem: they were not made in time.
            ClientGoneError: the client left.
        """
        ended: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        on_end = functools.partial(_set_outcome, ended)
        generation = self.start(order, scheduling, request.context, on_end)
        if ended.done():
            return ended.result()
        watch = asyncio.create_task(_leave_with_client(request, generation))
        try:
            return await ended
        finally:
            watch.cancel()
            generation.leave()  # this coroutine was cancelled; otherwise it has ended already

    def start(
        self,
        order: Order,
        scheduling: Scheduling,
        context: RequestContext,
        on_end: Callable[[Outcome], None],
    ) -> Generation:
        """Starts to make the images of an order; if all are cached, ends before it returns.

        on_end: gets the response, or what `make` raises after admission.

        Raises:
            Problem: the order is not admitted, as `make` says; on_end is not called.
        """
        generation = Generation(
            order, on_end, encoder=self.encoder, abandon=self._abandon, hold=context.hold
        )
        context.num_seeds = None if order.seeds is None else len(order.seeds)
        cached = self.encoder.cached(order, context)
        if cached is not None:
            generation.end(cached)
        # Without a cache the same image is asked for to be made: benchmarks rely on it.
        elif order.num_rows == 1 and self.encoder.cache.max_bytes and order.image_keys:
            key, flights = order.image_keys[0], self._single_flight
            ticket = self.submit(order, scheduling, context, functools.partial(flights.join, key))
            generation.wait_for(ticket, scheduling, functools.partial(flights.leave, key))
        else:
            generation.wait_for(self.submit(order, scheduling, context), scheduling)
        return generation

    def submit(
        self,
        order: Order,
        scheduling: Scheduling,
        context: RequestContext,
        join: Callable[[Callable[[], Ticket]], Ticket] | None = None,
    ) -> Ticket:
        """Admits an order.

        join: calls what it is given, to submit the rows, unless they are being made already.

        Raises:
            Problem: it is not admitted, as `make` says.
        """
        num_rows = order.num_rows
        if context.key is not None:
            self.batcher.check_capacity(num_rows)  # what is refused here is not charged
            self.access.charge(context.key, num_rows)
        admit = functools.partial(self._admit, order, scheduling, context.hold)
        ticket = admit() if join is None else join(admit)
        context.model, context.encoding = order.served.key, order.encoding.label
        context.timing, context.bulk = ticket.timing, scheduling.bulk
        context.num_rows += num_rows
        return ticket

    def _admit(self, order: Order, scheduling: Scheduling, hold: Hold | None) -> Ticket:
        ticket = self.batcher.submit(
            order.served.identity,
            seeds=order.seeds,
            z=order.z,
            labels=order.labels,
            psi=order.psi,
            shift=order.shift,
            styled=None if order.styles is None else order.styles.styled,
            mask=None if order.off is None else order.off.mask,
            bulk=scheduling.bulk,
            is_held=True,
        )
        release = functools.partial(self.batcher.release, ticket)
        if hold is None or hold.wait_for(order.num_bytes, release):
            release()
        return ticket

    def _abandon(self, ticket: Ticket, reason: str, error: Exception) -> None:
        metrics.ABANDONED_ROWS.labels(reason).inc(self.batcher.cancel(ticket, error))

    def _on_change(self, before: Shares, after: Shares) -> None:
        for (name, version), (served, _) in before.items():
            metrics.MODEL_INFO.labels(name, version, served.bundle.digest).set(0)
            metrics.MODEL_SHARE.labels(name, version).set(0)
            metrics.MODEL_CREATED.labels(name, version).set(0)
        for (name, version), (_, share) in after.items():
            # There from the start, at 0: otherwise a query would not see a version's first batch.
            self.buffered.counter(metrics.ROWS, name, version)
            self.buffered.histogram(metrics.COMPUTE, name, version)
            self.buffered.histogram(metrics.QUEUE_WAIT, name, version)
            metrics.MODEL_SHARE.labels(name, version).set(share)
        for served in self.catalogue.current:
            metrics.MODEL_INFO.labels(*served.key, served.bundle.digest).set(1)
            metrics.MODEL_CREATED.labels(*served.key).set(served.manifest.created_s)
        self.buffered.schedule_flush()
        if after and not self._was_ready:
            last = self._barrier.arrive()  # if it raises, the next announcement tries again
            self._was_ready = True
            if last:
                self._on_ready(self)

    def _on_made(self, batch: Batch, compute_s: float) -> None:
        buffered, (name, version) = self.buffered, batch.key.key
        if part := batch.key.part:
            buffered.counter(metrics.PART_ROWS, name, version, part).pending += batch.num_rows
            buffered.histogram(metrics.PART_COMPUTE, name, version, part).observe(compute_s)
            buffered.schedule_flush()
            return
        buffered.counter(metrics.ROWS, name, version).pending += batch.num_rows
        buffered.histogram(metrics.BATCH_ROWS).observe(batch.num_rows)
        buffered.histogram(metrics.COMPUTE, name, version).observe(compute_s)
        buffered.schedule_flush()

    def _set_gauges(self) -> None:
        ready = not self.draining and self.batcher.workers and self.catalogue.current
        metrics.READY.set(bool(ready))
        metrics.LANES.set(sum(worker.lanes for worker in self.batcher.workers))
        ready_on = [worker.device for worker in self.batcher.workers]
        self._devices.update(ready_on)
        for device in self._devices:
            metrics.WORKERS.labels(device).set(ready_on.count(device))
        metrics.WAITING_ROWS.set(self.batcher.waiting_rows)
        metrics.IN_FLIGHT_ROWS.set(self.batcher.in_flight_rows)
        metrics.CACHE_BYTES.set(self.encoder.cache.num_bytes)
        metrics.CONNECTIONS.set(len(self.connections))
        metrics.HELD_BYTES.set(self.connections.memory.held_bytes)


def _count_decoded(outcome: str, seconds: float) -> None:
    """In a thread, so not buffered."""
    metrics.DECODED.labels(outcome).inc()
    metrics.DECODE.observe(seconds)


def _set_outcome(ended: "asyncio.Future[Response]", outcome: Outcome) -> None:
    if isinstance(outcome, Response):
        set_result(ended, outcome)
    else:
        set_error(ended, outcome)


async def _leave_with_client(request: Request, generation: Generation) -> None:
    """Gives a generation up when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    generation.leave()


def _end_with_parent() -> None:
    """Shuts this process down in order when its parent is gone, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    loop, sentinel = asyncio.get_running_loop(), parent.sentinel

    def end() -> None:
        loop.remove_reader(sentinel)
        os.kill(os.getpid(), signal.SIGTERM)  # uvicorn drains

    loop.add_reader(sentinel, end)
