"""The engines that are in a worker's memory, by digest; the least recently used one goes."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Collection

from models.repository.locks import SharedLock
from serving.inference.engine import Engine

logger = logging.getLogger(__name__)


class EngineTable:
    """At most `max_loaded` engines, each with a shared lock of its version; for any thread."""

    def __init__(self, max_loaded: int) -> None:
        """max_loaded: the most engines."""
        self._max_loaded = max_loaded
        self._lock = threading.Lock()
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._locks: dict[str, SharedLock] = {}

    def get(self, digest: str) -> Engine | None:
        """The engine if it is here, which counts as a use of it."""
        with self._lock:
            engine = self._engines.get(digest)
            if engine is not None:
                self._engines.move_to_end(digest)
            return engine

    def keep(self, engine: Engine, lock: SharedLock) -> None:
        """Takes a new engine, and the lock that keeps its version from being removed."""
        digest, dropped = engine.bundle.digest, []
        with self._lock:
            self._let_go(digest)
            self._engines[digest], self._locks[digest] = engine, lock
            while len(self._engines) > self._max_loaded:
                dropped.append(next(iter(self._engines.values())).bundle)
                self._let_go(dropped[-1].digest)
        for bundle in dropped:
            logger.info(
                "version %d of %s leaves memory: %d may be in it",
                *(bundle.manifest.version, bundle.manifest.name, self._max_loaded),
            )

    def make_room(self, needed: Collection[str]) -> bool:
        """Lets engines go that are not needed, and shrinks the others; False where nothing helped.

        needed: digests of what is being served.
        """
        with self._lock:
            spare = [digest for digest in self._engines if digest not in needed]
            for digest in spare:
                self._let_go(digest)
            kept = list(self._engines.values())
        shrunk = [engine.shrink() for engine in kept]  # which waits for the device: not locked
        logger.warning(
            "memory is short on the device: %d versions that nobody is served by leave it, "
            "%d others keep their largest bucket alone",
            *(len(spare), sum(shrunk)),
        )
        return bool(spare) or any(shrunk)

    def drop(self, names: Collection[str], *, all_but: Collection[str]) -> None:
        """Lets the engines of some models go, and of all that aren't among `all_but`."""
        with self._lock:
            for digest, engine in list(self._engines.items()):
                name = engine.bundle.manifest.name
                if name in names or name not in all_but:
                    self._let_go(digest)

    def _let_go(self, digest: str) -> None:
        self._engines.pop(digest, None)
        if lock := self._locks.pop(digest, None):
            lock.release()
