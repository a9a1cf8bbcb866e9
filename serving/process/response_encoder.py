"""Encodes images to HTTP responses, and keeps encoded images.

Small bodies are encoded in the event loop: handing them to a thread would cost more. Larger ones
are encoded in threads, since zlib and Pillow release the interpreter's lock.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

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

    def encode(self, order: Order, ticket: Ticket, images: Images) -> Response:
        """Returns the response to an order, of its images [N, H, W, C] uint8."""
        timing = ticket.timing
        timing.encode_began = time.perf_counter()
        body = self._encode(order, images)
        timing.encode_s = time.perf_counter() - timing.encode_began
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

    def _encode(self, order: Order, images: Images) -> bytes:
        encoding = order.encoding
        if not isinstance(encoding, FileEncoding):
            body = encoding.from_images(images)
            if self._describes and isinstance(encoding, Tiled):
                body = with_metadata(body, encoding.format.name, order.provenance_of_all())
            return body
        if not self.cache.max_bytes or not order.image_keys:
            made = [self._file(order, encoding, row, image) for row, image in enumerate(images)]
            return encoding.from_files(made, order)
        files, num_hits = [], 0
        for row, (key, image) in enumerate(zip(order.image_keys, images, strict=True)):
            data = self.cache.get(key)  # another request may have filled it meanwhile
            if data is None:
                data = self._file(order, encoding, row, image)
                self.cache.put(key, data)
            else:
                num_hits += 1
            files.append(data)
        # Not buffered: this may be a thread, and buffered metrics are for the event loop alone.
        if num_hits:
            metrics.CACHE_HITS.inc(num_hits)
        metrics.CACHE_MISSES.inc(len(files) - num_hits)
        return encoding.from_files(files, order)

    def _file(self, order: Order, encoding: FileEncoding, row: int, image: Images) -> bytes:
        """The file of one image [H, W, C]."""
        data = encoding.format.encode(image)
        if self._describes:
            data = with_metadata(data, encoding.format.name, order.provenance(row))
        return data


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Calls back on the loop, from any thread, unless it has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
