"""What an audit found, for people and for programs. Knows no pixels."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

KINDS: dict[str, str] = {
    "unreadable": "can't be decoded, and is not used",
    "truncated": "its end is missing, and it is not used",
    "unplaced": "is in no class, or a class without images; not used",
    "constant": "one flat colour",
    "size": "far larger, smaller, longer or wider than the others",
    "upscaled": "smaller than the resolution, so it is enlarged",
    "mode": "not of the mode that most are of; it is converted",
    "duplicate": "the same pixels as another, as training sees them",
    "near-duplicate": "almost the same picture as another",
    "imbalance": "a class with far fewer images than the largest",
}
"""Kinds of findings in the order of the report, the worst first."""

SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with one image, or with one class."""

    kind: str
    """A key of KINDS."""
    name: str
    """Path of the image below the folder, or name of the class."""
    detail: str
    """What was seen, in words."""
    index: int | None = None
    """Of the image among those that are usable; None for what has no pixels."""
    group: int | None = None
    """Duplicates of one another have the same number."""
    twin: int | None = None
    """Of duplicates: the index of the one that is no finding."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was found in a set of images."""

    where: str
    """The folder."""
    resolution: int
    """Height and width that the images were fitted to."""
    num_usable: int
    """Images that training would see."""
    classes: dict[str, int]
    """Usable images a class; empty without subfolders."""
    findings: tuple[Finding, ...]
    """In the order of KINDS."""

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind that there is."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if kind in found}

    def to_builtins(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "where": self.where,
            "resolution": self.resolution,
            "num_usable": self.num_usable,
            "classes": self.classes,
            "counts": self.counts,
            "findings": [
                {
                    "kind": finding.kind,
                    "name": finding.name,
                    "detail": finding.detail,
                    "group": finding.group,
                }
                for finding in self.findings
            ],
        }

    def summary(self) -> str:
        """One line."""
        found = ", ".join(f"{num:,} {kind}" for kind, num in self.counts.items())
        return (
            f"audit of {self.where}: {self.num_usable:,} usable images at {self.resolution}x"
            f"{self.resolution}, {found or 'nothing found'}"
        )

    def text(self, shown: int = SHOWN) -> str:
        """For a person: each kind with what it means and the first few of it, then the classes."""
        lines = [self.summary()]
        for kind, num in self.counts.items():
            found = [finding for finding in self.findings if finding.kind == kind]
            lines += ["", f"{kind}: {num:,} ({KINDS[kind]})"]
            lines += [f"  {finding.name}: {finding.detail}" for finding in found[:shown]]
            if num > shown:
                lines.append(f"  and {num - shown:,} more")
        if self.classes:
            lines += ["", "classes:", *_classes(self.classes, self.num_usable)]
        if "imbalance" in self.counts:
            lines += ["", f"to draw all classes equally often: --data.weights {self._balance()}"]
        return "\n".join(lines) + "\n"

    def _balance(self) -> str:
        most = max(self.classes.values())
        rules = (f"{name}={most / num:.4g}" for name, num in self.classes.items())
        return " ".join(map(shlex.quote, rules))


def _classes(classes: dict[str, int], num: int) -> Sequence[str]:
    width = max(len(name) for name in classes)
    return [
        f"  {name:<{width}}  {count:>9,}  {count / num:6.1%}" for name, count in classes.items()
    ]
