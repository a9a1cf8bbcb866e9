"""Loads of versions, a thread each: whatever becomes of one, the others go on.

Loads take turns, since each needs memory and every core. A load that lasts longer than PATIENCE_S
is no longer waited for: the next one begins beside it. A thread can't be stopped, so a load that
never ends keeps its thread, and costs no more than that.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from models.bundle import Bundle
from models.bundle.files import FolderState, state_of
from models.errors import BundleError, ModelError
from models.repository.locks import SharedLock
from serving.errors import DeviceMemoryError, ServingError
from serving.inference.engine import Engine
from serving.inference.refusals import Journal, Refusals, RefusedError
from serving.observability import metrics
from serving.observability.loops import SaidOnce, cause_of, quietly

logger = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""How long a load is waited for, by the loads behind it and by requests for its version."""
MAX_LOADS = 8
"""The most loads that requests may have under way: a client could name any number of versions."""


class Turns:
    """Lets one thread go on at a time, and the next one anyway where one takes too long."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._holder: object | None = None
        self._since = 0.0

    def take(self) -> object:
        """Waits for the turn; gives what is to be given back."""
        mine = object()
        with self._changed:
            while self._holder is not None:
                left_s = self._since + self._patience_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            self._holder, self._since = mine, time.monotonic()
        return mine

    def give_back(self, mine: object) -> None:
        """Lets the next one go on, unless somebody has the turn already."""
        with self._changed:
            if self._holder is mine:
                self._holder = None
                self._changed.notify()


class Load:
    """One load, under way or waiting for its turn, and how it ends."""

    def __init__(self) -> None:
        self.engine: Future[Engine] = Future()
        self.engine.set_running_or_notify_cancel()  # who waits can't cancel it for the others
        self.began: float | None = None
        """On the monotonic clock; None while it waits for its turn."""

    @property
    def is_overdue(self) -> bool:
        """True where nobody waits for it any more."""
        return self.began is not None and time.monotonic() - self.began > PATIENCE_S


class Loads:
    """The loads of one worker; any thread may ask."""

    def __init__(
        self,
        open_engine: Callable[[Bundle], Engine],
        *,
        refusals: Refusals,
        journal: Journal,
        on_loaded: Callable[[Engine, SharedLock], None],
        on_end: Callable[[], None],
        make_room: Callable[[], bool],
    ) -> None:
        """Sets up.

        Args:
            open_engine: makes an engine; it may raise anything.
            refusals: where failures are remembered.
            journal: where loads are written down.
            on_loaded: takes a new engine, and the lock that keeps its version from being removed.
            on_end: hears of the end of every load.
            make_room: lets go of what can be spared on the device; False where there is nothing.
        """
        self._open_engine = open_engine
        self._refusals, self._journal = refusals, journal
        self._on_loaded, self._on_end, self._make_room = on_loaded, on_end, make_room
        self._turns = Turns()
        self._lock = threading.Lock()
        self._loads: dict[str, Load] = {}  # by digest
        self._said = SaidOnce()

    def begin(self, bundle: Bundle, *, for_request: bool = False) -> Load:
        """Begins to load a version; joins the load that is under way where there is one.

        for_request: where too many loads are under way, refuse.

        Raises:
            RefusedError: it was refused, and is not tried again yet; or too many are being loaded.
        """
        if bundle.digest not in self._loads:
            self._refusals.check(bundle.path)  # which looks at the storage: not under the lock
        with self._lock:
            load = self._loads.get(bundle.digest)
            if load is not None:
                return load
            if for_request and len(self._loads) >= MAX_LOADS:
                text = f"{len(self._loads)} versions are being loaded already; ask again later"
                raise RefusedError(text, text)
            load = self._loads[bundle.digest] = Load()
        try:
            thread = threading.Thread(
                target=self._run, args=(bundle, load), name=f"load-{bundle.digest[:8]}", daemon=True
            )
            thread.start()
        except BaseException as error:  # no thread can be had
            self._fail(bundle, load, (), error)
        return load

    def _run(self, bundle: Bundle, load: Load) -> None:
        turn = self._turns.take()
        load.began = time.monotonic()
        seen: FolderState = ()
        try:
            seen = state_of(bundle.path)
            engine, lock = self._load(bundle, seen)
            self._on_loaded(engine, lock)
        except BaseException as error:  # foreign code may raise anything
            self._fail(bundle, load, seen, error)
        else:
            self._refusals.forget(bundle.path)
            with quietly():
                metrics.RELOADS.labels(bundle.manifest.name, "loaded").inc()
            self._end(bundle, load)
            load.engine.set_result(engine)
        finally:
            self._turns.give_back(turn)
            with quietly():
                self._on_end()

    def _load(self, bundle: Bundle, seen: FolderState) -> tuple[Engine, SharedLock]:
        # Both are there, at 0, from the first load on: Prometheus sees no rise from nothing to 1.
        with quietly():
            for result in ("loaded", "refused"):
                metrics.RELOADS.labels(bundle.manifest.name, result)
        lock = SharedLock(bundle.path)
        try:
            self._journal.begin(bundle.digest, bundle.path)
            engine = self._open_with_room(bundle)
            # Files are opened by their names several times: all of them must have been the same.
            if not seen or state_of(bundle.path) != seen:
                raise BundleError(f"{bundle.path}: changed while it was loaded; it is tried again")
        except BaseException:
            lock.release()
            raise
        finally:
            self._journal.end(bundle.digest)
        return engine, lock

    def _open_with_room(self, bundle: Bundle) -> Engine:
        try:
            return self._open_engine(bundle)
        except DeviceMemoryError as error:
            if not self._make_room():
                raise
            logger.warning("%s; room was made, and it is tried once more", error)
        # Not while the error is handled: its frames hold what was opened in vain.
        return self._open_engine(bundle)

    def _fail(self, bundle: Bundle, load: Load, seen: FolderState, error: BaseException) -> None:
        with quietly():
            metrics.RELOADS.labels(bundle.manifest.name, "refused").inc()
        with quietly():
            if not isinstance(error, ModelError | ServingError) and self._said.is_new(
                (bundle.digest, cause_of(error))
            ):
                logger.error("%s can't be loaded", bundle.path, exc_info=error)
        refused = self._refusals.add(bundle.path, seen, error)
        self._end(bundle, load)
        load.engine.set_exception(refused)

    def _end(self, bundle: Bundle, load: Load) -> None:
        with self._lock:
            if self._loads.get(bundle.digest) is load:
                del self._loads[bundle.digest]
