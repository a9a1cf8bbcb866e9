"""A cache of encoded images, bounded in bytes; the least recently used image is dropped first.

An image's key is everything that its bytes depend on, so an entry never becomes wrong. The event
loop reads the cache while encoding threads fill it.
"""

import threading
from collections import OrderedDict

ImageKey = tuple[str, int, int | None, float, str, str]
"""Digest, seed, label, psi, directions, styles and units as text, format."""

_OVERHEAD_BYTES = 400  # what an entry takes beside its bytes: key, objects, table


class ImageCache:
    """Encoded images by ImageKey."""

    def __init__(self, max_bytes: int) -> None:
        """max_bytes: memory that all entries may take, by an estimate; 0 keeps nothing."""
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._entries: OrderedDict[ImageKey, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: ImageKey) -> bytes | None:
        """Returns an image and counts this as a use of it; None if it isn't kept."""
        if not self.max_bytes:
            return None
        with self._lock:
            data = self._entries.get(key)
            if data is not None:
                self._entries.move_to_end(key)
            return data

    def put(self, key: ImageKey, data: bytes) -> None:
        """Keeps an image, unless it alone is larger than the cache."""
        size = len(data) + _OVERHEAD_BYTES
        if size > self.max_bytes:
            return
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = data
            self.num_bytes += size
            while self.num_bytes > self.max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self.num_bytes -= len(oldest) + _OVERHEAD_BYTES
