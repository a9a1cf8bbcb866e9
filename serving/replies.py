"""Images to answers: from the cache, encoded on the spot, or by threads that disturb nobody."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from models.generator import Images
from serving import metrics
from serving.cache import ImageCache
from serving.encodings import OfFiles
from serving.http import Reply
from serving.schemas import Order
from serving.tallies import Tallies
from serving.tickets import Ticket
from serving.visits import Visit


class Replies:
    """What one HTTP process encodes with, and has encoded."""

    def __init__(self, cache_bytes: int, tallies: Tallies) -> None:
        """cache_bytes: how much of what was encoded is kept; 0: nothing."""
        self.cache = ImageCache(cache_bytes)
        self._tallies = tallies
        # Bulk has threads of its own: an animation takes a second, others would wait behind it.
        self._pools = {
            bulk: ThreadPoolExecutor(max_workers=num, thread_name_prefix="encode")
            for bulk, num in ((False, 4), (True, 2))
        }

    def shut_down(self) -> None:
        """What is being encoded ends, nothing more begins."""
        for pool in self._pools.values():
            pool.shutdown(wait=False)

    def encodes_here(self, order: Order, images: Images) -> bool:
        """True where handing the images to another thread would cost more than encoding them."""
        return images.nbytes <= order.encoding.inline_bytes

    def cached(self, order: Order, visit: Visit) -> Reply | None:
        """The answer to an order whose images are all kept from before."""
        if not self.cache.max_bytes or not isinstance(order.encoding, OfFiles):
            return None
        files = []
        for index in range(len(order.seeds or ())):
            key = order.image_key(index)
            data = self.cache.get(key) if key is not None else None
            if data is None:
                return None
            files.append(data)
        if not files:
            return None
        self._tallies.count(metrics.CACHE_HITS).pending += len(files)
        visit.order = order
        body = order.encoding.from_files(files, order)
        headers = (*order.served.headers, (b"server-timing", b"cache;desc=hit"))
        return Reply(body, order.encoding.media_type, 200, headers)

    def make(self, order: Order, ticket: Ticket, images: Images) -> Reply:
        """The answer to an order."""
        ticket.encode_began = time.perf_counter()
        body = self._encode(order, images)
        ticket.encode_s = time.perf_counter() - ticket.encode_began
        timing = b"queue;dur=%.2f, infer;dur=%.2f, encode;dur=%.2f" % (
            ticket.queue_s * 1e3,
            ticket.compute_s * 1e3,
            ticket.encode_s * 1e3,
        )
        headers = (*order.served.headers, (b"server-timing", timing))
        return Reply(body, order.encoding.media_type, 200, headers)

    def _encode(self, order: Order, images: Images) -> bytes:
        encoding = order.encoding
        if not isinstance(encoding, OfFiles):
            return encoding.from_images(images)
        if not self.cache.max_bytes or order.seeds is None:
            return encoding.from_files([encoding.format.encode(image) for image in images], order)
        files, num_hits = [], 0
        for index, image in enumerate(images):
            key = order.image_key(index)
            assert key is not None
            data = self.cache.get(key)  # another request may have kept it meanwhile
            if data is None:
                data = encoding.format.encode(image)
                self.cache.put(key, data)
            else:
                num_hits += 1
            files.append(data)
        if num_hits:
            metrics.CACHE_HITS.inc(num_hits)
        metrics.CACHE_MISSES.inc(len(files) - num_hits)
        return encoding.from_files(files, order)

    async def make_off_loop(self, order: Order, ticket: Ticket, images: Images) -> Reply:
        """The same, made where it disturbs least: zlib and Pillow release the lock."""
        if self.encodes_here(order, images):
            return self.make(order, ticket, images)
        loop = asyncio.get_running_loop()
        pool = self._pools[ticket.bulk]
        return await loop.run_in_executor(pool, self.make, order, ticket, images)
