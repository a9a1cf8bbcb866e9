"""Which models and versions an HTTP process may name: the workers' word, and the repository's.

A worker announces the version that each model is served in when none is asked for: verified, warmed
up, CURRENT; and perhaps a candidate, which makes a share of the seeds instead. Any other version
in the repository can be asked for by number; its manifest is read here, and the worker loads and
verifies it on demand.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from models.bundle import Bundle
from models.candidate import Candidate
from models.errors import ModelError, NotInRepositoryError
from models.manifest import Manifest
from models.repository import Repository
from serving.errors import InvalidRequestProblem, UnavailableProblem, UnknownModelProblem
from serving.frames import Announce, Candidacy
from serving.tickets import VersionKey
from serving.wording import shown


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


Shares = Mapping[VersionKey, tuple[Served, float]]
"""What requests that name no version get, and which part of their seeds: 0 .. 1."""


class Catalogue:
    """Versions by name and number."""

    def __init__(self, repository: Repository, on_change: Callable[[Shares, Shares], None]) -> None:
        """on_change hears what was served and what is, whenever that changes."""
        self._repository = repository
        self._on_change = on_change
        self._current: dict[str, Served] = {}
        self._trials: dict[str, tuple[Candidate, Served]] = {}
        self._shares: Shares = {}
        self._known: dict[VersionKey, Served] = {}
        self.device = ""
        self.complaints: dict[str, str] = {}
        """What is wrong with which model."""
        self.candidacies: dict[str, Candidacy] = {}
        """Versions on trial, by model, refused ones too."""

    def announce(self, announce: Announce) -> None:
        """A worker says what is current.

        Raises:
            ModelError: a manifest that it names can't be read here.
        """
        current = {
            loaded.name: self._open((loaded.name, loaded.version)) for loaded in announce.current
        }
        trials = {
            entry.name: (
                Candidate(entry.version, entry.share_percent),
                self._open((entry.name, entry.version)),
            )
            for entry in announce.candidates
            if entry.version is not None and not entry.refused
        }
        self._current, self._trials = current, trials
        self.candidacies = {entry.name: entry for entry in announce.candidates}
        self.device = announce.device
        self.complaints = announce.complaints
        before, self._shares = self._shares, self._shares_now()
        if before != self._shares:
            self._on_change(before, self._shares)

    @property
    def current(self) -> tuple[Served, ...]:
        """The version of each model that is served when none is asked for."""
        return tuple(self._current.values())

    def resolve(
        self, name: str | None, version: int | None, seeds: Sequence[int] | None = None
    ) -> Served:
        """What a request means. seeds: the first decides between CURRENT and a candidate.

        Raises:
            UnknownModelProblem: there is no such model or version.
            InvalidRequestProblem: no model is named and there are several.
            UnavailableProblem: no worker has announced any yet, or the manifest is unusable.
        """
        if name is None:
            name = self._only()
        served = self._current.get(name)
        if served is None:
            if name in self.complaints:
                raise UnavailableProblem(f"model {shown(name)} is refused: {self.complaints[name]}")
            known = ", ".join(sorted(self._current)) or "none"
            raise UnknownModelProblem(f"model is {shown(name)}; served are: {known}")
        if version is None:
            return self.on_trial(served, seeds) if self._trials and seeds else served
        if version == served.key[1]:
            return served
        try:
            self._repository.check_there(name, version)
            return self._open((name, version))
        except NotInRepositoryError:
            held = ", ".join(map(str, self.versions(name)))
            raise UnknownModelProblem(
                f"version is {shown(version)}; model {name!r} has: {held}"
            ) from None
        except ModelError as error:
            raise UnavailableProblem(
                f"version {version} of {name!r} is refused: {error}"
            ) from error

    def on_trial(self, served: Served, seeds: Sequence[int]) -> Served:
        """The candidate in the place of CURRENT where the first seed is one of its share."""
        trial = self._trials.get(served.key[0])
        return trial[1] if trial is not None and trial[0].takes(seeds[0]) else served

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

    def _shares_now(self) -> Shares:
        shares = {}
        for name, served in self._current.items():
            share = 0.0
            if name in self._trials:
                candidate, trial = self._trials[name]
                share = candidate.share_percent / 100
                shares[trial.key] = (trial, share)
            shares[served.key] = (served, 1 - share)
        return shares

    def _open(self, key: VersionKey) -> Served:
        served = self._known.get(key)
        if served is None:
            served = self._known[key] = Served(self._repository.bundle(*key))
        return served
