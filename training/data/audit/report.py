"""The report of an audit, as text for people and as JSON for programs."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

KINDS: dict[str, str] = {
    "unreadable": "can't be decoded, and is not used",
    "unsupported": "of a format that can't be read here; not used",
    "truncated": "its end is missing, and it is not used",
    "other-file": "not images by their names, perhaps captions or notes; not used",
    "unplaced": "is in no class, or is a class without images; not used",
    "constant": "one flat colour",
    "faint": "uses little of the range from black to white",
    "size": "far larger, smaller, longer or wider than the others",
    "upscaled": "smaller than the resolution, so it is enlarged",
    "mode": "of another mode than most, or of one that loses something; it is converted",
    "duplicate": "the same pixels as another, as training sees them",
    "near-duplicate": "almost the same picture as another",
    "mirrored": "almost the mirror image of another",
    "imbalance": "a class with far fewer images than the largest",
}
"""Kinds of findings in the order of the report, the worst first."""

SHOWN = 10
_SIZES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A fault of one image or one class."""

    kind: str
    """A key of KINDS."""
    name: str
    """Path of the image below the folder, or name of the class; printable."""
    detail: str
    """A description with the values found."""
    index: int | None = None
    """The image's index among the usable ones; None for a file without pixels."""
    group: int | None = None
    """The same number for duplicates, or mirror images, of one another."""
    twin: int | None = None
    """Of a duplicate: the index of the image that it repeats."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The findings of an audit, and statistics of the set."""

    where: str
    """Folder of the images."""
    width: int
    """Of the images as training sees them, in pixels."""
    height: int
    """Of these, in pixels."""
    num_usable: int
    """Number of images that a training would use."""
    classes: dict[str, int]
    """Number of usable images of each class; empty without subfolders."""
    findings: tuple[Finding, ...]
    """In the order of KINDS."""
    modes: dict[str, int] = field(default_factory=dict)
    """Number of usable images of each Pillow mode, the commonest first; empty without files."""
    notes: tuple[str, ...] = ()
    """What was done to many images, or is to be done for them, a line each."""
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    """Number of usable images of each width and height in pixels, the commonest first."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind that occurs, in the order of KINDS."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if kind in found}

    def to_builtins(self) -> dict[str, Any]:
        """The report as JSON types."""
        size = _size((self.width, self.height))
        return {
            "where": self.where,
            "resolution": self.width if self.width == self.height else size,
            "num_usable": self.num_usable,
            "classes": self.classes,
            "modes": self.modes,
            "sizes": {_size(size): num for size, num in self.sizes.items()},
            "notes": list(self.notes),
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
        """One line with the number of findings of each kind."""
        found = ", ".join(f"{num:,} {kind}" for kind, num in self.counts.items())
        return (
            f"audit of {self.where}: {self.num_usable:,} usable images at {self.width}x"
            f"{self.height}, {found or 'nothing found'}"
        )

    def text(self, shown: int = SHOWN) -> str:
        """The report for people: each kind, what it means and its findings, then the classes.

        shown: findings of each kind to list at most.
        """
        lines = [self.summary(), *(f"note: {note}" for note in self.notes)]
        for kind, num in self.counts.items():
            found = [finding for finding in self.findings if finding.kind == kind]
            lines += ["", f"{kind}: {num:,} ({KINDS[kind]})"]
            lines += [f"  {finding.name}: {finding.detail}" for finding in found[:shown]]
            if num > shown:
                lines.append(f"  and {num - shown:,} more")
        if self.modes:
            lines += ["", *self._kinds_of_files()]
        if self.classes:
            lines += ["", "classes:", *_classes(self.classes, self.num_usable)]
        if "imbalance" in self.counts:
            lines += ["", f"to draw all classes equally often: --data.weights {self._balance()}"]
        return "\n".join(lines) + "\n"

    def _kinds_of_files(self) -> list[str]:
        """Modes and sizes of all files, since a fault that all of them have is no finding."""
        modes = ", ".join(f"{num:,} {mode}" for mode, num in self.modes.items())
        shown = list(self.sizes.items())[:_SIZES_SHOWN]
        sizes = ", ".join(f"{num:,} of {_size(size)}" for size, num in shown)
        by_area = sorted(self.sizes, key=lambda size: size[0] * size[1])
        if others := len(self.sizes) - len(shown):
            sizes += f", {others:,} more sizes"
        if len(by_area) > 1:
            sizes += f"; the smallest is {_size(by_area[0])}, the largest {_size(by_area[-1])}"
        return [f"modes: {modes}", f"sizes: {sizes}"]

    def _balance(self) -> str:
        """Arguments of --data.weights that draw all classes equally often."""
        most = max(self.classes.values())
        rules = (f"{name}={most / num:.4g}" for name, num in self.classes.items())
        return " ".join(map(shlex.quote, rules))


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _classes(classes: dict[str, int], num: int) -> Sequence[str]:
    width = max(len(name) for name in classes)
    return [
        f"  {name:<{width}}  {count:>9,}  {count / num:6.1%}" for name, count in classes.items()
    ]
