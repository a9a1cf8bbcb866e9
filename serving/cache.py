"""Encoded images that were made before: bounded in bytes, the least recently used one goes.

An image is known by all that its bytes depend on. Several threads may use it: encoders fill it.
"""

import threading
from collections import OrderedDict

ImageKey = tuple[str, int, int | None, float, str]  # digest, seed, label, psi, format

_OVERHEAD_BYTES = 400  # of an entry: key, objects, table


class ImageCache:
    """Bytes by ImageKey."""

    def __init__(self, max_bytes: int) -> None:
        """max_bytes: what entries may take together, an estimate; 0 keeps nothing."""
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._entries: OrderedDict[ImageKey, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: ImageKey) -> bytes | None:
        """The image, which is kept longer for it."""
        if not self.max_bytes:
            return None
        with self._lock:
            data = self._entries.get(key)
            if data is not None:
                self._entries.move_to_end(key)
            return data

    def put(self, key: ImageKey, data: bytes) -> None:
        """Keeps an image, unless it alone is too large."""
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
