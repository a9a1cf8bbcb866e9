"""What a repository holds and serves, in words for people and as JSON for programs.

What can't be read is said where it stands, and doesn't keep the rest from being listed.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from models.candidate import Candidate
from models.errors import ModelError
from models.repository import Current, Repository

T = TypeVar("T")
SHOWN = ("frechet_distance", "coverage", "label_agreement")


@dataclass(frozen=True, kw_only=True)
class State:
    """What is served of a model, as far as its files say."""

    name: str
    versions: list[int]
    current: Current | None
    candidate: Candidate | None
    faults: list[ModelError]

    @classmethod
    def of(cls, repository: Repository, name: str) -> "State":
        """Reads it; what can't be read is among the faults."""
        faults: list[ModelError] = []

        def read(what: Callable[[str], T]) -> T | None:
            try:
                return what(name)
            except ModelError as error:
                faults.append(error)
                return None

        return cls(
            name=name,
            versions=read(repository.versions) or [],
            current=read(repository.current),
            candidate=read(repository.candidate),
            faults=faults,
        )

    def mark(self, version: int) -> str:
        """What a version is: CURRENT, pinned, on trial, or nothing of these."""
        if self.current is not None and version == self.current.version:
            return "pinned" if self.current.pinned else "current"
        if self.candidate is not None and version == self.candidate.version:
            return f"{self.candidate.share_percent:g}%"
        return ""


def summary(repository: Repository, name: str, version: int) -> str:
    """When a version was exported, and three of its figures; or why it is refused."""
    try:
        manifest = repository.bundle(name, version).manifest
    except ModelError as error:
        return f"refused: {error}"
    metrics = [metric for metric in manifest.metrics if metric.name in SHOWN]
    chosen = metrics or manifest.metrics[: len(SHOWN)]  # of a bundle that has others
    figures = ", ".join(f"{metric.name} {metric.value:.4g}" for metric in chosen)
    return f"{manifest.created:25} {figures}"


def listed(repository: Repository, state: State) -> dict[str, Any]:
    """A model as JSON has it."""
    versions: list[dict[str, Any]] = []
    for version in state.versions:
        try:
            bundle = repository.bundle(state.name, version)
        except ModelError as error:
            versions.append({"version": version, "refused": str(error)})
            continue
        metrics = {metric.name: metric.value for metric in bundle.manifest.metrics}
        created = bundle.manifest.created
        versions.append(
            {"version": version, "digest": bundle.digest, "created": created, "metrics": metrics}
        )
    found = {**served(state.name, state.current, state.candidate), "versions": versions}
    return found | ({"faults": [str(fault) for fault in state.faults]} if state.faults else {})


def served(name: str, current: Current | None, candidate: Candidate | None) -> dict[str, Any]:
    """What is served of a model, as JSON has it."""
    return {
        "model": name,
        "current": None if current is None else current.version,
        "pinned": current is not None and current.pinned,
        "candidate": None if candidate is None else asdict(candidate),
    }
