"""What an audit found, for people and for programs. Knows no pixels."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

KINDS: dict[str, str] = {
    "unreadable": "can't be decoded, and is not used",
    "truncated": "its end is missing, and it is not used",
    "other-file": "no images by their names, captions or notes perhaps; not used",
    "unplaced": "is in no class, or a class without images; not used",
    "constant": "one flat colour",
    "faint": "uses little of the range from black to white",
    "size": "far larger, smaller, longer or wider than the others",
    "upscaled": "smaller than the resolution, so it is enlarged",
    "mode": "not of the mode that most are of, or of one that loses something; it is converted",
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
    """One thing that is wrong with one image, or with one class."""

    kind: str
    """A key of KINDS."""
    name: str
    """Path of the image below the folder, or name of the class; printable."""
    detail: str
    """What was seen, in words."""
    index: int | None = None
    """Of the image among those that are usable; None for what has no pixels."""
    group: int | None = None
    """Duplicates, or mirror images, of one another have the same number."""
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
    modes: dict[str, int] = field(default_factory=dict)
    """Usable images of each Pillow mode, the commonest first; empty where they aren't files."""
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    """The same of each width and height in pixels."""

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
            "modes": self.modes,
            "sizes": {_size(size): num for size, num in self.sizes.items()},
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
        if self.modes:
            lines += ["", *self._kinds_of_files()]
        if self.classes:
            lines += ["", "classes:", *_classes(self.classes, self.num_usable)]
        if "imbalance" in self.counts:
            lines += ["", f"to draw all classes equally often: --data.weights {self._balance()}"]
        return "\n".join(lines) + "\n"

    def _kinds_of_files(self) -> list[str]:
        """What all files are like: a fault of every one of them is an exception nowhere else."""
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
