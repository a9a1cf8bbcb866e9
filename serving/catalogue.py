"""Which models and versions an HTTP process may name: the workers' word, and the repository's.

A worker announces the version that each model is served in when none is asked for: verified, warmed
up, CURRENT. Any other version in the repository can be asked for by number; its manifest is read
here, and the worker loads and verifies it on demand.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from models.bundle import Bundle
from models.errors import ModelError, NotInRepositoryError
from models.manifest import Manifest
from models.repository import Repository
from serving.errors import InvalidRequestProblem, UnavailableProblem, UnknownModelProblem
from serving.frames import Announce
from serving.tickets import VersionKey


@dataclass(frozen=True)
class Served:
    """A version that images can be asked of."""

    bundle: Bundle

    @property
    def manifest(self) -> Manifest:
        """What the model takes and gives."""
        return self.bundle.manifest

    @cached_property
    def key(self) -> VersionKey:
        """Name and version."""
        return self.manifest.name, self.manifest.version

    @cached_property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What a reply says of the model that made it."""
        return (
            (b"x-model", self.manifest.name.encode()),
            (b"x-model-version", str(self.manifest.version).encode()),
            (b"x-model-digest", self.bundle.digest.encode()),
        )


class Catalogue:
    """Versions by name and number."""

    def __init__(
        self,
        repository: Repository,
        on_change: Callable[[Iterable[Served], Iterable[Served]], None],
    ) -> None:
        """on_change hears what was current and what is, whenever that changes."""
        self._repository = repository
        self._on_change = on_change
        self._current: dict[str, Served] = {}
        self._known: dict[VersionKey, Served] = {}
        self.device = ""
        self.complaints: dict[str, str] = {}
        """What is wrong with which model."""

    def announce(self, announce: Announce) -> None:
        """A worker says what is current.

        Raises:
            ModelError: a manifest that it names can't be read here.
        """
        before = self._current
        self._current = {
            loaded.name: self._open((loaded.name, loaded.version)) for loaded in announce.current
        }
        self.device = announce.device
        self.complaints = announce.complaints
        if before != self._current:
            self._on_change(before.values(), self._current.values())

    @property
    def current(self) -> tuple[Served, ...]:
        """The version of each model that is served when none is asked for."""
        return tuple(self._current.values())

    def resolve(self, name: str | None, version: int | None) -> Served:
        """What a request means.

        Raises:
            UnknownModelProblem: there is no such model or version.
            InvalidRequestProblem: no model is named and there are several.
            UnavailableProblem: no worker has announced any yet, or the manifest is unusable.
        """
        if name is None:
            name = self._only()
        served = self._current.get(name)
        if served is None:
            known = ", ".join(sorted(self._current)) or "none"
            raise UnknownModelProblem(f"model is {name!r}; served are: {known}")
        if version is None or version == served.key[1]:
            return served
        try:
            return self._open((name, version))
        except NotInRepositoryError:
            held = ", ".join(map(str, self.versions(name)))
            raise UnknownModelProblem(f"version is {version}; model {name!r} has: {held}") from None
        except ModelError as error:
            raise UnavailableProblem(
                f"version {version} of {name!r} is refused: {error}"
            ) from error

    def versions(self, name: str) -> list[int]:
        """Versions of a model that lie in the repository."""
        try:
            return self._repository.versions(name)
        except ModelError:
            return []

    def manifest(self, key: VersionKey) -> Manifest:
        """The manifest of a version that was resolved before."""
        return self._known[key].manifest

    def _only(self) -> str:
        if not self._current:
            raise UnavailableProblem("no model is loaded yet; try again in a moment")
        if len(self._current) > 1:
            raise InvalidRequestProblem(
                f"model is missing; served are: {', '.join(sorted(self._current))}"
            )
        return next(iter(self._current))

    def _open(self, key: VersionKey) -> Served:
        served = self._known.get(key)
        if served is None:
            served = self._known[key] = Served(self._repository.bundle(*key))
        return served
