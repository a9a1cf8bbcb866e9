"""What one HTTP process holds: catalogue, batcher, links to the workers, replies."""

import asyncio
import contextlib
import functools
import logging
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from models.repository import Repository
from serving import exposition, metrics
from serving.batcher import Batcher
from serving.catalogue import Catalogue, Shares
from serving.errors import UnavailableProblem
from serving.flights import Flights
from serving.gate import Gate
from serving.http import ClientGoneError, Exchange, Reply
from serving.link import WorkerLink, socket_path, withdrawn_folder
from serving.replies import Replies
from serving.schemas import Order
from serving.settings import Settings
from serving.siblings import Siblings
from serving.tallies import Tallies
from serving.terms import Terms, deadline_problem
from serving.tickets import Batch, Ticket
from serving.visits import Visit, Visits

logger = logging.getLogger(__name__)

DRAIN_SIGNAL = signal.SIGUSR1
"""Tells an HTTP process that the server will stop: not ready, every connection ends."""


class Service:
    """Takes orders, gives encoded images."""

    def __init__(
        self,
        settings: Settings,
        *,
        run_folder: Path,
        num_workers: int,
        on_ready: Callable[["Service"], None],
    ) -> None:
        """run_folder: where the workers' sockets lie. on_ready: called once a server is."""
        self.settings = settings
        self._repository = Repository(settings.repository)
        self.catalogue = Catalogue(self._repository, self._on_change)
        self._on_ready = on_ready
        self._was_ready = False
        self._siblings = Siblings(run_folder, settings.api_processes)
        self._withdrawn = withdrawn_folder(run_folder)
        self.gate = Gate(settings.api_keys, run_folder)
        self.tallies = Tallies(self._set_gauges)
        self.visits = Visits(settings, self.tallies)
        self.batcher = Batcher(
            max_batch_rows=settings.max_batch_rows,
            max_waiting_rows=settings.max_waiting_rows // settings.api_processes,
            on_made=self._on_made,
            on_load=self.tallies.touch,
        )
        self._links = [
            WorkerLink(socket_path(run_folder, worker), self.batcher, self.catalogue)
            for worker in range(num_workers)
        ]
        self.replies = Replies(settings.cache_bytes // settings.api_processes, self.tallies)
        self._flights = Flights()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the links up."""
        _end_with_parent()
        exposition.register_process("http")
        self.tallies.flush()  # not ready yet, which a scrape may already see
        asyncio.get_running_loop().add_signal_handler(DRAIN_SIGNAL, self.drain)
        work = [*(link.run() for link in self._links), self.gate.watch()]
        tasks = [asyncio.create_task(coroutine) for coroutine in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for link in self._links:
                link.close()
            self.replies.shut_down()
            self.visits.shut_down()
            self.gate.close()

    @property
    def draining(self) -> bool:
        """True once the server was told to stop."""
        return self.visits.draining

    def check_ready(self) -> None:
        """Raises UnavailableProblem, with the reason, where no more requests should be sent."""
        if not self.draining and not self.catalogue.current:
            complaints = self.catalogue.complaints.items()
            faults = [f"model {name}: {text}" for name, text in complaints]
            fault = "; ".join(faults) or self._repository.fault()
            if fault is not None:
                raise UnavailableProblem(f"nothing can be served yet: {fault}")
        self.check_workers()
        if not self.catalogue.current:
            raise UnavailableProblem("no model of the repository is in service")
        if not self._siblings.all_started():
            raise UnavailableProblem("another HTTP process of this server is still starting")

    def check_workers(self) -> None:
        """Raises UnavailableProblem where there is nobody who could load a model."""
        if self.draining:
            raise UnavailableProblem("the server is shutting down; ask another one")
        if not self.batcher.carriers:
            raise UnavailableProblem("no inference worker is ready yet; its log says why")

    def drain(self) -> None:
        """The server was told to stop: not ready any more, every answer ends its connection."""
        self.visits.draining = True
        self.tallies.touch()

    async def put_into_service(self, name: str) -> str | None:
        """Serves a model that was taken out, or what became current; why not, where it can't."""
        self._withdrawn.joinpath(name).unlink(missing_ok=True)
        await self._refresh()
        return self.catalogue.complaints.get(name)

    async def take_out_of_service(self, name: str) -> None:
        """Serves a model no longer, in any process, until it is put into service again."""
        self._withdrawn.joinpath(name).touch()
        await self._refresh()

    def why_not(self, name: str) -> str:
        """Why a model of the repository isn't served."""
        if self._withdrawn.joinpath(name).exists():
            return "unloaded"
        return self.catalogue.complaints.get(name, "it has no version that can be served")

    async def _refresh(self) -> None:
        await asyncio.gather(*(link.refresh() for link in self._links))

    def submit(self, order: Order, terms: Terms, visit: Visit) -> Ticket:
        """Admits an order; one image that is being made already isn't made twice.

        Raises:
            OverloadedProblem: too many rows wait.
            RateLimitedProblem: the visit's API key asks too fast.
            InvalidRequestProblem: that key may never ask for so many at once.
            UnavailableProblem: no worker can make them.
        """
        num_rows = order.num_rows
        if visit.key is not None:
            self.batcher.check_room(num_rows)  # what is refused here is not charged
            self.gate.charge(visit.key, num_rows)
        key = order.image_key(0) if self.replies.cache.max_bytes else None
        if key is None or num_rows != 1:
            ticket = self._admit(order, terms)
        else:
            ticket = self._flights.board(key, functools.partial(self._admit, order, terms))
        visit.order, visit.ticket = order, ticket
        visit.num_rows += num_rows
        return ticket

    def _admit(self, order: Order, terms: Terms) -> Ticket:
        return self.batcher.submit(
            order.served.key,
            seeds=order.seeds,
            z=order.z,
            labels=order.labels,
            psi=order.psi,
            bulk=terms.bulk,
        )

    def abandon(self, ticket: Ticket, reason: str, error: Exception) -> None:
        """Gives a ticket up and drops what of it isn't made yet."""
        metrics.ABANDONED_ROWS.labels(reason).inc(self.batcher.cancel(ticket, error))

    async def make(self, order: Order, terms: Terms, exchange: Exchange) -> Reply:
        """Images for an order.

        Raises:
            OverloadedProblem: too many rows wait.
            RateLimitedProblem: the request's API key asks too fast.
            UnavailableProblem: no worker can make them.
            DeadlineProblem: not made in time.
            ClientGoneError: the client left.
        """
        kept = self.replies.cached(order, exchange.visit)
        if kept is not None:
            return kept
        ticket = self.submit(order, terms, exchange.visit)
        making = asyncio.create_task(self._make(order, ticket))
        watch = asyncio.create_task(_watch(exchange, terms.timeout_ms))
        try:
            await asyncio.wait((making, watch), return_when=asyncio.FIRST_COMPLETED)
            if not making.done():
                reason, error = watch.result()
                self.abandon(ticket, reason, error)
                raise error
        finally:
            watch.cancel()
            making.cancel()
        return making.result()

    async def _make(self, order: Order, ticket: Ticket) -> Reply:
        return await self.replies.make_off_loop(order, ticket, await ticket.done)

    def _on_change(self, before: Shares, after: Shares) -> None:
        for (name, version), (served, _) in before.items():
            metrics.MODEL_INFO.labels(name, version, served.bundle.digest).set(0)
            metrics.MODEL_SHARE.labels(name, version).set(0)
            metrics.MODEL_CREATED.labels(name, version).set(0)
        for (name, version), (_, share) in after.items():
            metrics.MODEL_SHARE.labels(name, version).set(share)
        for served in self.catalogue.current:
            metrics.MODEL_INFO.labels(*served.key, served.bundle.digest).set(1)
            metrics.MODEL_CREATED.labels(*served.key).set(served.manifest.created_s)
        self.tallies.touch()
        if after and not self._was_ready:
            self._was_ready = True
            if self._siblings.join():
                self._on_ready(self)

    def _on_made(self, batch: Batch, compute_s: float) -> None:
        tallies, (name, version) = self.tallies, batch.key
        tallies.count(metrics.ROWS, name, version).pending += batch.num_rows
        tallies.spread(metrics.BATCH_ROWS).observe(batch.num_rows)
        tallies.spread(metrics.COMPUTE, name, version).observe(compute_s)
        tallies.touch()

    def _set_gauges(self) -> None:
        ready = not self.draining and self.batcher.carriers and self.catalogue.current
        metrics.READY.set(bool(ready))
        metrics.LANES.set(sum(carrier.lanes for carrier in self.batcher.carriers))
        metrics.WAITING_ROWS.set(self.batcher.waiting_rows)
        metrics.IN_FLIGHT_ROWS.set(self.batcher.in_flight_rows)
        metrics.CACHE_BYTES.set(self.replies.cache.num_bytes)


async def _watch(exchange: Exchange, timeout_ms: int) -> tuple[str, Exception]:
    """Returns at the deadline, or when the client goes away: why, in a word and as an error."""
    try:
        async with asyncio.timeout(timeout_ms / 1e3):
            while (await exchange.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return "deadline", deadline_problem(timeout_ms)
    return "disconnect", ClientGoneError()


def _end_with_parent() -> None:
    """Shuts this process down in order when the one that forked it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    loop, sentinel = asyncio.get_running_loop(), parent.sentinel

    def end() -> None:
        loop.remove_reader(sentinel)
        os.kill(os.getpid(), signal.SIGTERM)  # uvicorn drains

    loop.add_reader(sentinel, end)
