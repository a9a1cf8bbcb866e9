"""Encodes images to HTTP responses, and keeps encoded images.

Small bodies are encoded in the event loop: handing them to a thread would cost more. Larger ones
are encoded in threads, since zlib and Pillow release the interpreter's lock.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from models.bundle.generator import Images
from models.image_metadata import with_metadata
from serving.dispatch.tickets import Ticket
from serving.encoding.bodies import FileEncoding, Tiled
from serving.encoding.cache import ImageCache
from serving.http.context import RequestContext
from serving.http.memory import Hold
from serving.http.messages import Response
from serving.observability import metrics
from serving.observability.buffered import BufferedMetrics
from serving.requests.generate import Order

Result = TypeVar("Result")

_NUM_THREADS = 4
_NUM_BULK_THREADS = 2


class Waiting(Protocol):
    """Who waits for a response."""

    ended: bool
    """Whether it waits no more."""

    def end(self, outcome: Response | Exception) -> None:
        """Gives it the response, or why there is none."""
        ...


_Soon = tuple[Order, Ticket, Images, Waiting]


class ResponseEncoder:
    """The cache of encoded images and the encoding threads of one HTTP process."""

    def __init__(self, cache_bytes: int, buffered: BufferedMetrics, *, describes: bool) -> None:
        """Sets up.

        Args:
            cache_bytes: the most bytes of encoded images to keep; 0 keeps none.
            buffered: what is counted.
            describes: whether image files say how they were made.
        """
        self._describes = describes
        self._soon: list[_Soon] = []
        self.cache = ImageCache(cache_bytes)
        self._buffered = buffered
        # Bulk has threads of its own: an animation takes a second, and others would wait for it.
        self._pools = {
            bulk: ThreadPoolExecutor(max_workers=num, thread_name_prefix="encode")
            for bulk, num in ((False, _NUM_THREADS), (True, _NUM_BULK_THREADS))
        }

    def shut_down(self) -> None:
        """Starts no more encoding; what is being encoded ends by itself."""
        for pool in self._pools.values():
            pool.shutdown(wait=False)

    def in_thread(self, work: Callable[[], Result], bulk: bool) -> "asyncio.Future[Result]":
        """Hands other work on images to a thread."""
        return asyncio.wrap_future(self._pools[bulk].submit(work))

    @property
    def describes(self) -> bool:
        """Whether image files say how they were made."""
        return self._describes

    def is_small(self, order: Order, images: Images) -> bool:
        """Whether handing the images to a thread would cost more than encoding them here."""
        return images.nbytes <= order.encoding.inline_bytes

    def cached(self, order: Order, context: RequestContext) -> Response | None:
        """Returns the response to an order if all of its images are in the cache."""
        if not self.cache.max_bytes or not isinstance(order.encoding, FileEncoding):
            return None
        files = []
        for key in order.image_keys:
            data = self.cache.get(key)
            if data is None:
                return None
            files.append(data)
        if not files:  # latents, which have no keys
            return None
        self._buffered.counter(metrics.CACHE_HITS).pending += len(files)
        context.model, context.encoding = order.served.key, order.encoding.label
        body = order.encoding.from_files(files, order)
        headers = (*order.headers, (b"server-timing", b"cache;desc=hit"))
        return Response(body, order.encoding.media_type, 200, headers)

    def encode_soon(self, order: Order, ticket: Ticket, images: Images, waiting: "Waiting") -> None:
        """Ends who waits with the response to an order, in the next turn of the event loop.

        A batch has images of many requests. Files of the same kind are then made together, which
        takes half the time where they are small.
        """
        if not self._soon:
            asyncio.get_running_loop().call_soon(self._encode_all)
        self._soon.append((order, ticket, images, waiting))

    def _encode_all(self) -> None:
        soon, self._soon = self._soon, []
        alike: dict[Any, list[_Soon]] = {}
        for each in soon:
            encoding, shape = each[0].encoding, each[2].shape[1:]
            if not each[3].ended:
                kind = isinstance(encoding, FileEncoding), encoding.label, shape
                alike.setdefault(kind, []).append(each)
        for group in alike.values():
            made = self._made_together(group) if len(group) > 1 else None
            start = 0
            for order, ticket, images, waiting in group:
                files = None if made is None else made[start : start + len(images)]
                start += len(images)
                try:
                    self._end(order, ticket, images, files, waiting)
                except Exception as error:  # the others' answers are not to be lost by it
                    told = {"message": "an answer could not be given", "exception": error}
                    asyncio.get_running_loop().call_exception_handler(told)

    def _end(
        self,
        order: Order,
        ticket: Ticket,
        images: Images,
        files: list[bytes] | None,
        waiting: "Waiting",
    ) -> None:
        try:
            response = self.encode(order, ticket, images, files)
        except Exception as unforeseen:
            waiting.end(unforeseen)
        else:
            waiting.end(response)

    def _made_together(self, group: Sequence["_Soon"]) -> list[bytes] | None:
        """Files of all images, without words; None where they must be made one by one."""
        encoding = group[0][0].encoding
        if not isinstance(encoding, FileEncoding) or encoding.format.encode_many is None:
            return None
        began = time.perf_counter()
        try:
            files = encoding.format.encode_many(np.concatenate([each[2] for each in group]))
        except Exception:  # it is met again by the order that is at fault, and told to that
            return None
        row_s = (time.perf_counter() - began) / len(files)
        for _, ticket, images, _ in group:
            ticket.timing.encode_s = row_s * len(images)
        return files

    def encode(
        self, order: Order, ticket: Ticket, images: Images, files: list[bytes] | None = None
    ) -> Response:
        """Returns the response to an order.

        Args:
            order: the request.
            ticket: whose timing is noted.
            images: [N, H, W, C] uint8.
            files: of each of them, without words, where there are some.
        """
        timing = ticket.timing
        timing.encode_began = time.perf_counter()
        body = self._encode(order, images, files)
        timing.encode_s += time.perf_counter() - timing.encode_began
        server_timing = b"queue;dur=%.2f, infer;dur=%.2f, encode;dur=%.2f" % (
            timing.queue_s * 1e3,
            timing.compute_s * 1e3,
            timing.encode_s * 1e3,
        )
        headers = (*order.headers, (b"server-timing", server_timing))
        return Response(body, order.encoding.media_type, 200, headers)

    async def encode_in_thread(
        self, order: Order, ticket: Ticket, images: Images, hold: Hold | None = None
    ) -> Response:
        """Does what `encode` does, in a thread; hold: the memory of the request."""
        encoded = self._pools[ticket.bulk].submit(self.encode, order, ticket, images)
        if hold is not None:
            # Who waits may be cancelled; the thread goes on, and what it works with is in memory.
            hold.keep()
            loop = asyncio.get_running_loop()
            encoded.add_done_callback(lambda _: _call_soon(loop, hold.unkeep))
        return await asyncio.wrap_future(encoded)

    def _encode(self, order: Order, images: Images, files: list[bytes] | None) -> bytes:
        encoding = order.encoding
        if not isinstance(encoding, FileEncoding):
            body = encoding.from_images(images)
            if self._describes and isinstance(encoding, Tiled):
                body = with_metadata(body, encoding.format.name, order.provenance_of_all())
            return body
        if not self.cache.max_bytes or not order.image_keys:
            made = self._files(order, encoding, range(len(images)), images, files)
            return encoding.from_files(made, order)
        found = [self.cache.get(key) for key in order.image_keys]  # filled meanwhile, maybe
        rows = [row for row, data in enumerate(found) if data is None]
        if len(rows) < len(images):
            images = images[rows]
            files = None if files is None else [files[row] for row in rows]
        made = self._files(order, encoding, rows, images, files)
        for row, data in zip(rows, made, strict=True):
            self.cache.put(order.image_keys[row], data)
            found[row] = data
        # Not buffered: this may be a thread, and buffered metrics are for the event loop alone.
        if len(rows) < len(found):
            metrics.CACHE_HITS.inc(len(found) - len(rows))
        metrics.CACHE_MISSES.inc(len(rows))
        return encoding.from_files([data for data in found if data is not None], order)

    def _files(
        self,
        order: Order,
        encoding: FileEncoding,
        rows: Sequence[int],
        images: Images,
        files: list[bytes] | None,
    ) -> list[bytes]:
        """The files of the images [N, H, W, C] of some rows; files: those without words."""
        if files is None:
            files = encoding.format.encode_all(images)
        if not self._describes:
            return files
        kind = encoding.format.name
        return [order.told(data, kind, row) for row, data in zip(rows, files, strict=True)]


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Calls back on the loop, from any thread, unless it has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
