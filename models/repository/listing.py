"""Lists a repository, as text for people and as JSON for programs.

A model or version that can't be read is listed with its fault, beside the others.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from models.errors import ModelError
from models.repository.candidate import Candidate
from models.repository.store import Current, Repository

T = TypeVar("T")
SHOWN = ("frechet_distance", "coverage", "label_agreement")


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """A model's versions and which of them are served, as far as its files can be read."""

    name: str
    versions: list[int]
    current: Current | None
    candidate: Candidate | None
    faults: list[ModelError]

    @classmethod
    def read(cls, repository: Repository, name: str) -> "ModelStatus":
        """Reads a model's files; what can't be read is added to the faults."""
        faults: list[ModelError] = []

        def attempt(read: Callable[[str], T]) -> T | None:
            try:
                return read(name)
            except ModelError as error:
                faults.append(error)
                return None

        return cls(
            name=name,
            versions=attempt(repository.versions) or [],
            current=attempt(repository.current),
            candidate=attempt(repository.candidate),
            faults=faults,
        )

    def role(self, version: int) -> str:
        """Describes a version: current, pinned, the candidate's share, or empty."""
        if self.current is not None and version == self.current.version:
            return "pinned" if self.current.pinned else "current"
        if self.candidate is not None and version == self.candidate.version:
            return f"{self.candidate.share_percent:g}%"
        return ""


def version_summary(repository: Repository, name: str, version: int) -> str:
    """The date of a version's export and three of its figures, or why it is refused."""
    try:
        manifest = repository.bundle(name, version).manifest
    except ModelError as error:
        return f"refused: {error}"
    metrics = [metric for metric in manifest.metrics if metric.name in SHOWN]
    chosen = metrics or manifest.metrics[: len(SHOWN)]  # of a bundle that has others
    figures = ", ".join(f"{metric.name} {metric.value:.4g}" for metric in chosen)
    return f"{manifest.created:25} {figures}"


def model_record(repository: Repository, model: ModelStatus) -> dict[str, Any]:
    """A model with its versions, as JSON."""
    versions: list[dict[str, Any]] = []
    for version in model.versions:
        try:
            bundle = repository.bundle(model.name, version)
        except ModelError as error:
            versions.append({"version": version, "refused": str(error)})
            continue
        metrics = {metric.name: metric.value for metric in bundle.manifest.metrics}
        created = bundle.manifest.created
        versions.append(
            {"version": version, "digest": bundle.digest, "created": created, "metrics": metrics}
        )
    found = {**status_record(model.name, model.current, model.candidate), "versions": versions}
    return found | ({"faults": [str(fault) for fault in model.faults]} if model.faults else {})


def status_record(
    name: str, current: Current | None, candidate: Candidate | None
) -> dict[str, Any]:
    """Which versions of a model are served, as JSON."""
    return {
        "model": name,
        "current": None if current is None else current.version,
        "pinned": current is not None and current.pinned,
        "candidate": None if candidate is None else asdict(candidate),
    }
