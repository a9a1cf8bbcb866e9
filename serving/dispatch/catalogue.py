"""The models and versions that requests may name.

A worker announces the version of each model that is used when a request names none: CURRENT,
verified and warmed up. It may also announce a candidate, which makes a share of the seeds instead.
Any other version in the repository can be asked for by number. Its manifest is read here, and the
worker loads and verifies it on demand.

A version is what its digest says. If the folder of a number holds another version by now, the
manifest is read anew. If workers announce different versions of a model, the one that was served
before is served until all of them have the other.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from models.bundle import ENCODER, MANIFEST, Bundle
from models.bundle.anomaly import Calibration, read_calibration
from models.bundle.directions import Directions, read_directions
from models.bundle.files import is_gone, state_of_file
from models.bundle.graph import names_of
from models.bundle.inversion import EncoderTraits, encoder_traits
from models.bundle.manifest import Manifest
from models.bundle.styles import StyleInfo, read_styles
from models.bundle.units import UnitInfo, read_units
from models.errors import ModelError, NotInRepositoryError
from models.repository import Repository
from models.repository.candidate import Candidate
from serving.errors import (
    InvalidRequestProblem,
    UnavailableProblem,
    UnknownModelProblem,
    VersionRefusedProblem,
    quoted,
)
from serving.inference.faults import is_passing, words_for_clients
from serving.inference.frames import Announce, Candidacy, Identity, Loaded, VersionKey

MAX_NUMBERED = 256
"""Versions asked for by number whose manifests are kept."""


@dataclass(frozen=True)
class Served:
    """A version that images can be asked of."""

    bundle: Bundle
    is_announced: bool = True
    """By a worker: CURRENT, or on trial. False where a client asked for it by number."""

    @property
    def manifest(self) -> Manifest:
        """The manifest: what the model takes and gives."""
        return self.bundle.manifest

    @cached_property
    def key(self) -> VersionKey:
        """Name and version of the model."""
        return self.manifest.name, self.manifest.version

    @cached_property
    def identity(self) -> Identity:
        """What batches are made of."""
        return Identity.of(self.bundle)

    @cached_property
    def directions(self) -> Directions | None:
        """The directions of its latent space, read once; None where it has none.

        Raises:
            BundleError: they can't be read; they are tried again the next time.
        """
        return read_directions(self.bundle)

    @cached_property
    def styles(self) -> StyleInfo | None:
        """What it says of its styles, read once; None where its graph isn't in two parts.

        Raises:
            BundleError: they can't be read; they are tried again the next time.
        """
        return read_styles(self.bundle)

    @cached_property
    def units(self) -> UnitInfo | None:
        """What it says of its units, read once; None where it has none.

        Raises:
            BundleError: they can't be read; they are tried again the next time.
        """
        return read_units(self.bundle)

    @cached_property
    def encoder(self) -> EncoderTraits | None:
        """What its encoder takes and gives, read once; None where it has none.

        Raises:
            BundleError: the graph can't be read; it is tried again the next time.
        """
        if ENCODER not in self.manifest.files:
            return None
        path = self.bundle.path / ENCODER
        return encoder_traits(path, self.manifest, *names_of(path))

    @cached_property
    def calibration(self) -> Calibration | None:
        """The scores of images that are usual, read once; None where it has none.

        Raises:
            BundleError: they can't be read; they are tried again the next time.
        """
        return read_calibration(self.bundle)

    @cached_property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Headers that tell a client which model has made its images."""
        return (
            (b"x-model", self.manifest.name.encode()),
            (b"x-model-version", str(self.manifest.version).encode()),
            (b"x-model-digest", self.bundle.digest.encode()),
        )


Shares = Mapping[VersionKey, tuple[Served, float]]
"""The versions that requests without a version get, each with its part of the seeds: 0 .. 1."""


@dataclass(frozen=True)
class _Numbered:
    """A version that was asked for by number."""

    seen: tuple[int, ...]
    """Of its manifest, when that was read."""
    served: Served | None
    refused: str
    """Why it can't be served, where it can't."""
    is_passing: bool = False
    """Its storage is at fault: it is read again by the next request."""


class Catalogue:
    """The versions of one HTTP process, by name and number."""

    def __init__(self, repository: Repository, on_change: Callable[[Shares, Shares], None]) -> None:
        """on_change: called with the shares before and after, whenever they change."""
        self._repository = repository
        self._on_change = on_change
        self._announced: OrderedDict[object, Announce] = OrderedDict()  # by worker; latest last
        self._current: dict[str, Served] = {}
        self._trials: dict[str, tuple[Candidate, Served]] = {}
        self._shares: Shares = {}
        self._numbered: OrderedDict[VersionKey, _Numbered] = OrderedDict()
        self.device = ""
        self.faults: dict[str, str] = {}
        """By model, why its current version can't be used, in words for clients."""
        self.candidacies: dict[str, Candidacy] = {}
        """By model, its version on trial, also if that was refused."""

    def announce(self, worker: object, announce: Announce) -> None:
        """Takes a worker's announcement of what it serves.

        Raises:
            Exception: it can't be taken up; what was served before still is.
        """
        announced = self._announced.copy()
        announced.pop(worker, None)
        announced[worker] = announce
        self._take_up(announced)

    def forget(self, worker: object) -> None:
        """A worker can't be reached any more. What the last one announced stays until the next."""
        if worker in self._announced and len(self._announced) > 1:
            announced = self._announced.copy()
            del announced[worker]
            self._take_up(announced)
        else:
            self._announced.pop(worker, None)

    def _take_up(self, announced: OrderedDict[object, Announce]) -> None:
        everyone = list(announced.values())
        known = {served.bundle.digest: served for served in self._current.values()}
        known |= {served.bundle.digest: served for _, served in self._trials.values()}

        def served_of(loaded: Loaded) -> Served:
            served = known.get(loaded.digest)
            if served is None:
                served = known[loaded.digest] = Served(loaded.bundle(self._repository.root))
            return served

        current: dict[str, Served] = {}
        candidacies: dict[str, Candidacy] = {}
        for name in sorted({loaded.name for each in everyone for loaded in each.current}):
            offered = [entry for each in everyone for entry in each.current if entry.name == name]
            current[name] = served_of(self._agreed_version(name, offered))
            trial = self._agreed_trial(name, [_candidacy(each, name) for each in everyone])
            if trial is not None:
                candidacies[name] = trial
        trials = {
            name: (Candidate(entry.version, entry.share_percent), served_of(entry.loaded))
            for name, entry in candidacies.items()
            if entry.version is not None and entry.loaded is not None
        }
        self._announced = announced
        self._current, self._trials, self.candidacies = current, trials, candidacies
        self.device = everyone[-1].device
        self.faults = {name: text for each in everyone for name, text in each.faults.items()}
        before, after = self._shares, self._shares_now()
        if before != after:
            self._on_change(before, after)
            self._shares = after  # last: if on_change raises, it is tried again

    def _agreed_version(self, name: str, offered: Sequence[Loaded]) -> Loaded:
        """Of what workers offer, what was served before; the latest word where nobody does."""
        held = self._current.get(name)
        for loaded in offered:
            if held is not None and loaded.digest == held.bundle.digest:
                return loaded
        return offered[-1]

    def _agreed_trial(self, name: str, offered: Sequence[Candidacy | None]) -> Candidacy | None:
        held = self.candidacies.get(name)
        return held if held in offered else offered[-1]

    @property
    def current(self) -> tuple[Served, ...]:
        """The version of each model that is used when a request names none."""
        return tuple(self._current.values())

    def resolve(
        self, name: str | None, version: int | None, seeds: Sequence[int] | None = None
    ) -> Served:
        """Returns the version that a request means.

        seeds: the first one decides between CURRENT and a candidate.

        Raises:
            UnknownModelProblem: there is no such model or version.
            InvalidRequestProblem: no model is named and there are several.
            UnavailableProblem: no worker has announced any yet, or CURRENT is unusable.
            VersionRefusedProblem: the version that is named is unusable.
        """
        if name is None:
            name = self._only()
        served = self._current.get(name)
        if served is None:
            if name in self.faults:
                raise UnavailableProblem(f"model {quoted(name)} is refused: {self.faults[name]}")
            known = ", ".join(sorted(self._current)) or "none"
            raise UnknownModelProblem(f"model is {quoted(name)}; served are: {known}")
        if version is None:
            return self.on_trial(served, seeds) if self._trials and seeds else served
        if version == served.key[1]:
            return served
        return self._by_number(name, version)

    def on_trial(self, served: Served, seeds: Sequence[int]) -> Served:
        """Returns the candidate if the first seed belongs to its share, or else `served`."""
        trial = self._trials.get(served.key[0])
        return trial[1] if trial is not None and trial[0].takes(seeds[0]) else served

    def versions(self, name: str) -> list[int]:
        """Returns the numbers of a model's versions in the repository."""
        try:
            return self._repository.versions(name)
        except ModelError:
            return []

    def _by_number(self, name: str, version: int) -> Served:
        folder = self._repository.root / name / str(version)
        seen = state_of_file(folder / MANIFEST)
        held = self._numbered.get((name, version))
        if held is None or (held.seen != seen and (seen or self._is_removed(folder))):
            held = self._read(name, version, seen)
        if held.served is None:
            text = f"version {version} of {name!r} is refused: {held.refused}"
            raise UnavailableProblem(text) if held.is_passing else VersionRefusedProblem(text)
        return held.served

    @staticmethod
    def _is_removed(folder: Path) -> bool:
        """False where its model's folder isn't there either: then the storage may be away.

        Where the model was removed, workers take it out of service.
        """
        return is_gone(folder) and not is_gone(folder.parent)

    def _read(self, name: str, version: int, seen: tuple[int, ...]) -> _Numbered:
        key = name, version
        self._numbered.pop(key, None)
        try:
            served = Served(self._repository.bundle(name, version), is_announced=False)
            numbered = _Numbered(seen, served, "")
        except NotInRepositoryError:
            held = self.versions(name)
            if not held:
                raise UnavailableProblem(
                    f"version {version} of {name!r}: the repository can't be read at the moment"
                ) from None
            raise UnknownModelProblem(
                f"version is {quoted(version)}; model {name!r} has: {', '.join(map(str, held))}"
            ) from None
        except ModelError as error:
            words = words_for_clients(error, self._repository.root)
            numbered = _Numbered(seen, None, words, is_passing(error))
            if numbered.is_passing:
                return numbered
        self._numbered[key] = numbered
        while len(self._numbered) > MAX_NUMBERED:
            self._numbered.popitem(last=False)
        return numbered

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


def _candidacy(announce: Announce, name: str) -> Candidacy | None:
    return next((entry for entry in announce.candidates if entry.name == name), None)
