"""The engines of one worker: which versions are loaded, which are current, which were refused.

Watches the repository: a newly published version is loaded beside the one it follows, verified and
warmed up, and only then announced. A version that can't be used is refused once, with the reason,
and the one before serves on. A candidate is loaded beside CURRENT in the same way, and takes no
part where it can't be used. Each engine holds a lease: what is in memory is not pruned.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from models.bundle import Bundle
from models.errors import ModelError
from models.locks import Lease
from models.repository import Repository
from serving import metrics
from serving.engine import Engine
from serving.errors import ServingError
from serving.frames import Announce, Candidacy, Loaded
from serving.tickets import VersionKey

logger = logging.getLogger(__name__)


class Shelf:
    """Engines by version, at most `max_loaded` of them: the least recently used one goes.

    A current version whose engine had to go is loaded again when it is asked for.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        allowed: tuple[str, ...],
        load: Callable[[Bundle], Engine],
        device: str,
        lanes: int,
        max_loaded: int,
        withdrawn: Path,
    ) -> None:
        """Sets up, and loads nothing yet.

        Args:
            repository: where models lie.
            allowed: the only names to serve; empty for all.
            load: makes an engine; it may raise.
            device: what is announced.
            lanes: what is announced.
            max_loaded: how many engines there may be.
            withdrawn: a folder with a file NAME for each model that is not to be served.
        """
        self._repository = repository
        self._allowed = allowed
        self._load = load
        self._device = device
        self._lanes = lanes
        self._max_loaded = max_loaded
        self._withdrawn = withdrawn
        self._refreshing = threading.Lock()
        self._engines: OrderedDict[VersionKey, Engine] = OrderedDict()
        self._leases: dict[VersionKey, Lease] = {}
        self._loading = threading.Lock()
        self._current: dict[str, Loaded] = {}
        self._candidates: dict[str, Candidacy] = {}
        self._refused: dict[tuple[str, int, str], ModelError] = {}
        self._complaints: dict[str, str] = {}

    def get(self, key: VersionKey) -> Engine | None:
        """The engine if it is loaded, which keeps it loaded longer."""
        try:
            self._engines.move_to_end(key)
            return self._engines[key]
        except KeyError:  # also where another thread has just let it go
            return None

    def load(self, key: VersionKey) -> Engine:
        """Loads a version that isn't in memory; of several threads that ask, one does the work.

        Raises:
            ModelError: it isn't there, or is refused.
        """
        with self._loading:
            engine = self.get(key)
            if engine is None:
                lease = Lease(self._repository.bundle_path(*key))
                try:
                    engine = self._open(self._repository.bundle(*key))
                except Exception:
                    lease.end()
                    raise
                self._engines[key], self._leases[key] = engine, lease
                while len(self._engines) > self._max_loaded:
                    self._evict(next(iter(self._engines)))
            return engine

    def refresh(self, *, again: bool = False) -> bool:
        """Loads what has become current since the last time; true where anything changed.

        again: what was refused is tried once more.
        """
        with self._refreshing:
            if again:
                self._refused.clear()
            return self._refresh_all()

    def _refresh_all(self) -> bool:
        changed, before = False, dict(self._complaints)
        for name in self._allowed or self._repository.names():
            if self._is_withdrawn(name):
                continue
            try:
                changed |= self._refresh(name)
                self._complaints.pop(name, None)
            except (ModelError, ServingError) as error:
                self._complain(name, str(error))
            if name in self._current:
                changed |= self._refresh_candidate(name)
        gone = [
            name
            for name in self._current
            if self._is_withdrawn(name) or not self._repository.root.joinpath(name).is_dir()
        ]
        for name in gone:
            del self._current[name]
            self._candidates.pop(name, None)
            logger.info("%s is served no longer", name)
            with self._loading:
                for key in [key for key in self._engines if key[0] == name]:
                    self._let_go(key)
            self._complaints.pop(name, None)
        return changed or bool(gone) or self._complaints != before

    def announce(self) -> Announce:
        """What the HTTP processes are told."""
        return Announce(
            current=list(self._current.values()),
            candidates=list(self._candidates.values()),
            device=self._device,
            lanes=self._lanes,
            complaints=dict(self._complaints),
        )

    @property
    def empty(self) -> bool:
        """True where nothing can be served."""
        return not self._current

    def _refresh(self, name: str) -> bool:
        version = self._repository.current(name).version
        current = self._current.get(name)
        if current is not None and current.version == version:
            return False
        digest = self._load_once(name, version)
        self._current[name] = Loaded(name, version, digest)
        logger.info("serving %s version %d, digest %s", name, version, digest[:16])
        return True

    def _refresh_candidate(self, name: str) -> bool:
        """Loads what is on trial, or drops what no longer is; true where that is a change."""
        before = self._candidates.pop(name, None)
        found = self._candidacy(name, before)
        if found is not None:
            self._candidates[name] = found
        if found == before:
            return False
        if found is None:
            logger.info("no version of %s is on trial any more", name)
        elif found.refused:
            logger.error("the candidate of %s takes no part: %s", name, found.refused)
        else:
            share = found.share_percent
            logger.info("version %d of %s makes %g%% of the seeds", found.version, name, share)
        return True

    def _candidacy(self, name: str, before: Candidacy | None) -> Candidacy | None:
        version, share = None, 0.0
        try:
            candidate = self._repository.candidate(name)
            if candidate is None or candidate.version == self._current[name].version:
                return None
            version, share = candidate.version, candidate.share_percent
            if before is not None and before.version == version and not before.refused:
                digest = before.digest
            else:
                digest = self._load_once(name, version)
        except (ModelError, ServingError) as error:
            return Candidacy(name, version, share, digest="", refused=str(error))
        return Candidacy(name, version, share, digest, refused="")

    def _load_once(self, name: str, version: int) -> str:
        """Loads a version and gives its digest; one that was refused is not tried again."""
        bundle = self._repository.bundle(name, version)
        identity = (name, version, bundle.digest)
        if identity in self._refused:
            raise self._refused[identity]
        try:
            self.load((name, version))
        except ModelError as error:
            self._refused[identity] = error
            raise
        return bundle.digest

    def _is_withdrawn(self, name: str) -> bool:
        return self._withdrawn.joinpath(name).exists()

    def _open(self, bundle: Bundle) -> Engine:
        name = bundle.manifest.name
        # Both are there, at 0, from the first load on: Prometheus sees no rise from nothing to 1.
        loaded, refused = (metrics.RELOADS.labels(name, result) for result in ("loaded", "refused"))
        try:
            engine = self._load(bundle)
        except Exception:
            refused.inc()
            raise
        loaded.inc()
        return engine

    def _complain(self, name: str, text: str) -> None:
        """Logs what is wrong with a model, once for as long as it stays the same."""
        if self._complaints.get(name) != text:
            self._complaints[name] = text
            logger.error("model %s: %s", name, text)

    def _evict(self, key: VersionKey) -> None:
        self._let_go(key)
        logger.info(
            "version %d of %s leaves memory: %d may be in it", key[1], key[0], self._max_loaded
        )

    def _let_go(self, key: VersionKey) -> None:
        self._engines.pop(key, None)
        if lease := self._leases.pop(key, None):
            lease.end()
