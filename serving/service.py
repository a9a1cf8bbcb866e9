"""What one HTTP process holds: catalogue, batcher, links to the workers, encoders."""

import asyncio
import base64
import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import Counter

from models.generator import Images
from models.repository import Repository
from serving import metrics
from serving.batcher import Batcher, deadline_problem
from serving.catalogue import Catalogue, Served
from serving.errors import UnavailableProblem
from serving.http import ClientGoneError, Exchange
from serving.images import FORMATS, NPY_MEDIA_TYPE, Format, as_grid, encode_npy
from serving.link import WorkerLink, socket_path
from serving.schemas import EncodedImage, EncodedImages, Order
from serving.settings import Settings
from serving.tickets import Ticket

logger = logging.getLogger(__name__)

# Below this many pixel bytes, handing an image to another thread costs more than encoding it here.
_INLINE_BYTES = 16 << 10
# A request that waits longer than this is watched for its client going away.
_WATCH_AFTER_S = 0.02


@dataclass(frozen=True, slots=True)
class Terms:
    """How a client wants to be served: what its headers say."""

    timeout_ms: int
    bulk: bool


@dataclass(frozen=True, slots=True)
class Made:
    """The images of an order, encoded."""

    body: bytes
    media_type: str
    timing: bytes


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
        """run_folder: where the workers' sockets lie. on_ready: called at the first model."""
        self.settings = settings
        self.catalogue = Catalogue(Repository(settings.repository), self._on_change)
        self._on_ready = on_ready
        self._was_ready = False
        self.batcher = Batcher(
            max_batch_rows=settings.max_batch_rows,
            max_waiting_rows=max(1, settings.max_waiting_rows // settings.api_processes),
            on_batch=metrics.BATCH_ROWS.observe,
        )
        self._links = [
            WorkerLink(socket_path(run_folder, worker), self.batcher, self.catalogue)
            for worker in range(num_workers)
        ]
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="encode")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the links up."""
        _end_with_parent()
        tasks = [asyncio.create_task(link.run()) for link in self._links]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for link in self._links:
                link.close()
            self._pool.shutdown(wait=False)

    def check_ready(self) -> None:
        """Raises UnavailableProblem, with the reason, where images can't be made now."""
        if not self.batcher.carriers:
            raise UnavailableProblem("no inference worker is ready yet; its log says why")
        if not self.catalogue.current:
            raise UnavailableProblem(
                f"the repository {self.settings.repository} holds no model that can be served; "
                "publish one: python -m training.run"
            )

    async def make(self, order: Order, terms: Terms, exchange: Exchange) -> Made:
        """Images for an order.

        Raises:
            OverloadedProblem: too many rows wait.
            UnavailableProblem: no worker can make them.
            DeadlineProblem: not made in time.
            ClientGoneError: the client left.
        """
        ticket = self.batcher.submit(
            order.served.key,
            seeds=order.seeds,
            z=order.z,
            labels=order.labels,
            psi=order.psi,
            bulk=terms.bulk,
        )
        images = await self._images(ticket, exchange, terms.timeout_ms)
        name, version = order.served.key
        _rows_of(name, version).inc(ticket.num_rows)
        loop = asyncio.get_running_loop()
        started = loop.time()
        body, media_type = await self._encode(order, images)
        encode_s = loop.time() - started
        timing = (
            f"queue;dur={ticket.queue_s * 1e3:.2f}, infer;dur={ticket.compute_s * 1e3:.2f}, "
            f"encode;dur={encode_s * 1e3:.2f}"
        )
        return Made(body, media_type, timing.encode("ascii"))

    async def _images(self, ticket: Ticket, exchange: Exchange, timeout_ms: int) -> Images:
        watch: asyncio.Task[None] | None = None

        def begin() -> None:
            nonlocal watch
            watch = asyncio.create_task(self._watch(ticket, exchange, timeout_ms))

        # Most requests are answered before they need a task of their own.
        watch_after_s = min(_WATCH_AFTER_S, timeout_ms / 1e3)
        timer = asyncio.get_running_loop().call_later(watch_after_s, begin)
        self._observe_load()
        try:
            return await ticket.done
        finally:
            timer.cancel()
            if watch is not None:
                watch.cancel()
            self._observe_load()

    async def _watch(self, ticket: Ticket, exchange: Exchange, timeout_ms: int) -> None:
        """Gives a waiting ticket up at its deadline, or when its client goes away."""
        error: Exception
        waited_s = time.perf_counter() - ticket.entered
        try:
            async with asyncio.timeout(timeout_ms / 1e3 - waited_s):
                while (await exchange.receive())["type"] != "http.disconnect":
                    pass
            reason, error = "disconnect", ClientGoneError()
        except TimeoutError:
            reason, error = "deadline", deadline_problem(timeout_ms)
        metrics.ABANDONED_ROWS.labels(reason).inc(self.batcher.cancel(ticket, error))

    def _on_change(self, before: Iterable[Served], after: Iterable[Served]) -> None:
        for served, value in [*((old, 0) for old in before), *((new, 1) for new in after)]:
            name, version = served.key
            metrics.MODEL_INFO.labels(name, version, served.bundle.digest).set(value)
        if after and not self._was_ready:
            self._was_ready = True
            self._on_ready(self)

    def _observe_load(self) -> None:
        metrics.WAITING_ROWS.set(self.batcher.waiting_rows)
        metrics.IN_FLIGHT_ROWS.set(sum(link.in_flight_rows for link in self._links))

    async def _encode(self, order: Order, images: Images) -> tuple[bytes, str]:
        if order.format == "npy":
            return await self._off_loop(images, encode_npy, images), NPY_MEDIA_TYPE
        fmt = FORMATS[order.format]
        if order.grid:
            return await self._off_loop(images, lambda: fmt.encode(as_grid(images))), fmt.media_type
        if len(images) == 1:
            return await self._off_loop(images, fmt.encode, images[0]), fmt.media_type
        return await self._off_loop(images, _encode_list, order, images, fmt), "application/json"

    async def _off_loop(
        self, images: Images, encode: Callable[..., bytes], *arguments: Any
    ) -> bytes:
        """Runs an encoder where it disturbs least: zlib and Pillow release the lock."""
        if images.nbytes <= _INLINE_BYTES:
            return encode(*arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, functools.partial(encode, *arguments))


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


@functools.cache
def _rows_of(name: str, version: int) -> Counter:
    return metrics.ROWS.labels(name, version)


def _encode_list(order: Order, images: Images, fmt: Format) -> bytes:
    name, version = order.served.key
    entries = [
        EncodedImage(
            data=base64.b64encode(fmt.encode(image)).decode("ascii"),
            seed=None if order.seeds is None else order.seeds[index],
            label=None if order.labels is None else order.labels[index],
        )
        for index, image in enumerate(images)
    ]
    answer = EncodedImages(name, version, order.served.bundle.digest, fmt.media_type, entries)
    return msgspec.json.encode(answer)
