"""The engines of one worker: which versions are in memory, which are current, which were refused.

Follows the repository: a newly published version is loaded beside the one it follows, verified and
warmed up, and only then announced. One that can't be used is refused, with the reason, and the one
before serves on; `serving.inference.refusals` says when it is tried again. A candidate is loaded
beside CURRENT in the same way, and gets no seeds if it can't be used. Each engine holds a shared
lock: versions in memory are not pruned.

A version is what its digest says. The same name and number with another digest is another version.
Storage that is away costs nothing that is loaded: only a model's folder that is known to be gone
takes the model out of service.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from models.bundle import MANIFEST, Bundle
from models.bundle.files import is_gone, state_of, state_of_file
from models.errors import ModelError
from models.repository import Repository
from serving.inference.engine import Engine
from serving.inference.engine_table import EngineTable
from serving.inference.faults import words_for_clients
from serving.inference.frames import Announce, Candidacy, Loaded
from serving.inference.loading import Load, Loads
from serving.inference.refusals import Journal, Refusals, RefusedError
from serving.inference.snapshot import (
    LOADING,
    Fault,
    Model,
    Snapshot,
    StorageAwayError,
    identity_of,
    say_trial,
    tell_since,
)
from serving.inference.withdrawn import Withdrawn
from serving.observability.loops import SaidOnce, cause_of

logger = logging.getLogger(__name__)


class EngineManager:
    """Engines by digest, at most `max_loaded` of them: the least recently used one goes.

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
        withdrawn: Withdrawn,
        journal: Journal,
    ) -> None:
        """Sets up, and loads nothing yet.

        Args:
            repository: where models lie.
            allowed: the only names to serve; empty for all.
            load: makes an engine; it may raise anything.
            device: what is announced.
            lanes: what is announced.
            max_loaded: how many engines there may be.
            withdrawn: models that are not to be served.
            journal: what the worker before this one was loading when it died.
        """
        self.root = repository.root
        self._repository = repository
        self._allowed = allowed
        self._device = device
        self._lanes = lanes
        self._withdrawn = withdrawn
        self._table = EngineTable(max_loaded)
        self._refusals = Refusals(repository.root)
        self._snapshot = Snapshot()
        self._latest: object = None  # the look at the repository that began last
        self._root: tuple[int, int] | None = None  # device and inode, when it last held models
        self._said = SaidOnce()
        self._loads = Loads(
            load,
            refusals=self._refusals,
            journal=journal,
            on_loaded=self._table.keep,
            on_end=lambda: self.on_load_end(),
            make_room=self._make_room,
        )
        self.on_load_end: Callable[[], None] = lambda: None
        """Called by a loading thread: it is time to `refresh`."""
        self._suspect(journal)

    def get(self, digest: str) -> Engine | None:
        """The engine if it is loaded, which keeps it loaded longer."""
        return self._table.get(digest)

    def load(self, name: str, version: int, digest: str) -> Load:
        """Begins to load a version that isn't in memory, for a request.

        Raises:
            ModelError: it isn't there, is another one by now, or is refused.
        """
        bundle = self._repository.bundle(name, version)
        if bundle.digest != digest:
            text = "it was replaced by another of the same number meanwhile; ask again"
            raise RefusedError(text, text)
        return self._loads.begin(bundle, for_request=True)

    def refresh(self, *, again: bool = False, only_troubled: bool = False) -> bool:
        """Looks at the repository once, and begins to load what has become current.

        For one thread at a time. One that storage holds up may be left behind: where another thread
        has begun since, it changes nothing any more.

        Args:
            again: what was refused is tried once more.
            only_troubled: models that are served as they should be are left as they are.

        Returns:
            True where what is announced has changed.

        Raises:
            StorageAwayError: the repository can't be looked at; everything stays as it is.
        """
        if again:
            self._refusals.clear()
        self._latest = mine = object()
        before = self._snapshot
        if only_troubled:
            models, gone = dict(before.models), set[str]()
            names = [name for name, model in models.items() if model.troubled]
        else:
            models = {}
            names, gone = self._look(before)
        for name in names:
            if name not in self._withdrawn:
                held = Model() if name in gone else before.models.get(name, Model())
                models[name] = self._follow(name, held)
        if self._latest is not mine:
            return False  # the storage held this look up, and another one has begun since
        starting = before.starting and any(model.loading for model in models.values())
        self._snapshot = Snapshot(models, starting)
        for name in gone | (before.models.keys() - models.keys()):
            tell_since(name, before.models[name].fault, None)
            if before.models[name].current is not None:
                logger.info("%s is served no longer", name)
        self._table.drop(gone, all_but=models)
        return before != self._snapshot

    @property
    def loading(self) -> bool:
        """True while a load is under way that somebody waits for."""
        return any(model.loading for model in self._snapshot.models.values())

    @property
    def troubled(self) -> bool:
        """True where something could not be served at the last look."""
        return any(model.troubled for model in self._snapshot.models.values())

    def announce(self) -> Announce:
        """What the HTTP processes are told."""
        return self._snapshot.announce(self._device, self._lanes)

    def try_device(self) -> None:
        """Makes an image that nobody wants, with a version that is served; for any thread.

        Raises:
            Exception: that failed.
        """
        for model in self._snapshot.models.values():
            engine = None if model.current is None else self._table.get(model.current.digest)
            if engine is not None:
                engine.try_one()
                return

    def _make_room(self) -> bool:
        models = self._snapshot.models.values()
        needed = {model.current.digest for model in models if model.current is not None}
        needed |= {
            model.candidacy.loaded.digest
            for model in models
            if model.candidacy is not None and model.candidacy.loaded is not None
        }
        return self._table.make_room(needed)

    def _look(self, before: Snapshot) -> tuple[list[str], set[str]]:
        """Models to follow, and which of those before are known to be gone.

        Raises:
            StorageAwayError: nothing can be known.
        """
        root = self.root
        identity = identity_of(root)
        there = set(self._repository.names())
        gone = {name for name in before.models if is_gone(root / name)}
        # Looked at again: had it been taken away meanwhile, every folder would seem gone.
        if identity_of(root) != identity:
            raise StorageAwayError(f"{root}: was replaced while it was looked at; once more")
        there |= before.models.keys() - gone
        held = any(model.current for model in before.models.values())
        if held and not there and self._root != identity:
            raise StorageAwayError(
                f"{root}: another folder is in its place, and holds no models (is it mounted?); "
                "what is loaded is kept"
            )
        if there:
            self._root = identity
        return sorted(self._allowed or there), gone

    def _follow(self, name: str, before: Model) -> Model:
        """Looks at one model; whatever is wrong with it stays its own."""
        fault: Fault | None = None
        after = replace(before, loading=False)
        try:
            version = self._repository.current(name).version
            after = self._serve(name, version, after)
        except _LoadingError as error:
            after = replace(after, loading=not error.load.is_overdue)
            if error.load.is_overdue:
                fault = self._note(name, before, LOADING, LOADING)
        except RefusedError as error:
            fault = self._note(name, before, error.public, str(error))
        except BaseException as error:
            fault = self._unforeseen(name, before, error)
        if after.loading:
            fault = before.fault  # until it is known how the load ends
        after = replace(after, fault=fault)
        tell_since(name, before.fault, fault)
        return after if after.current is None else self._try_out(name, after)

    def _serve(self, name: str, version: int, model: Model) -> Model:
        """The model with this version current.

        Raises:
            _LoadingError: it isn't loaded yet.
            ModelError: it can't be.
        """
        manifest = self.root / name / str(version) / MANIFEST
        seen = state_of_file(manifest)
        held = model.current
        if held is not None and held.version == version and seen and seen == model.seen:
            return model
        bundle = self._repository.bundle(name, version)
        if held is None or held.digest != bundle.digest:
            loaded = self._loaded(bundle)
            logger.info("serving %s version %d, digest %s", name, version, bundle.digest[:16])
            return replace(model, current=loaded, seen=seen)
        return replace(model, seen=seen)

    def _loaded(self, bundle: Bundle) -> Loaded:
        """What is told of a bundle that is in memory.

        Raises:
            _LoadingError: it isn't yet; its load is under way.
            RefusedError: it can't be.
        """
        if self.get(bundle.digest) is None:
            load = self._loads.begin(bundle)
            if not load.engine.done():
                raise _LoadingError(load)
            load.engine.result()
        return Loaded.of(bundle)

    def _try_out(self, name: str, model: Model) -> Model:
        """The model with its candidate, if there is one."""
        before = model.candidacy
        assert model.current is not None
        version, share, text = None, 0.0, ""
        found: Candidacy | None = None
        try:
            candidate = self._repository.candidate(name)
            if candidate is not None and candidate.version != model.current.version:
                version, share = candidate.version, candidate.share_percent
                bundle = self._repository.bundle(name, version)
                held = None if before is None else before.loaded
                if held is None or held.digest != bundle.digest:
                    held = self._loaded(bundle)
                found = Candidacy(name, version, share, held, refused="")
        except _LoadingError as error:
            if not error.load.is_overdue:
                # What was on trial before goes on until this one can, or can't.
                return replace(model, loading=True)
            found = Candidacy(name, version, share, None, refused=LOADING)
            text = LOADING
        except BaseException as error:
            public = words_for_clients(error, self.root)
            found = Candidacy(name, version, share, None, refused=public)
            text = str(error) if isinstance(error, ModelError) else cause_of(error)
        if found != before:
            say_trial(name, found, text)
        return replace(model, candidacy=found)

    def _note(self, name: str, before: Model, public: str, text: str) -> Fault:
        """Logs what is wrong with a model, once for as long as it stays the same."""
        held = before.fault
        if held is not None and held.text == text:
            return held
        logger.error("model %s: %s", name, text)
        return Fault(public, text, time.time() if held is None else held.since)

    def _unforeseen(self, name: str, before: Model, error: BaseException) -> Fault:
        known = isinstance(error, ModelError)
        public = words_for_clients(error, self.root)
        if not known and self._said.is_new((name, cause_of(error))):
            logger.error("model %s can't be looked at", name, exc_info=error)
        return self._note(name, before, public, str(error) if known else cause_of(error))

    def _suspect(self, journal: Journal) -> None:
        for attempt in journal.suspects():
            folder = Path(attempt.version)
            words = (
                f"the worker died {attempt.num_deaths} times while it loaded this version; it is "
                f"tried again after {attempt.pause_s:g} s"
            )
            refused = RefusedError(f"{folder}: {words}", words)
            logger.error("%s", refused)
            self._refusals.add(folder, state_of(folder), refused, pause_s=attempt.pause_s)


class _LoadingError(Exception):
    """A version isn't in memory yet."""

    def __init__(self, load: Load) -> None:
        super().__init__(LOADING)
        self.load = load
