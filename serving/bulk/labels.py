"""The class of each image of a plan: cycled, drawn by weights, or given for each seed.

The first two are functions of the seed alone, so a seed has its label in whatever plan it is, on
whatever machine. Cycling is what golden images and sample grids do: label = seed % classes.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from serving.bulk.errors import PlanError
from serving.bulk.seeds import lines
from serving.errors import quoted


class LabelRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How labels come about.

    cycle: the label of a seed is classes[seed % len(classes)]. weights: it is drawn of `classes`
    with these probabilities, by the seed. listed: one for each seed in a file, of this digest.
    """

    kind: Literal["cycle", "weights", "listed"]
    classes: tuple[int, ...]
    weights: tuple[float, ...] = ()
    sha256: str = ""

    def of(self, seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Labels of seeds [N], by the rules `cycle` and `weights`; [N] int64."""
        classes: npt.NDArray[np.int64] = np.array(self.classes, np.int64)
        if self.kind == "cycle":
            return np.take(classes, (seeds % np.uint64(len(classes))).astype(np.int64))
        edges = np.cumsum(np.array(self.weights, np.float64))
        draws = uniform(seeds) * edges[-1]
        chosen = np.searchsorted(edges, draws, side="right")
        found: npt.NDArray[np.int64] = classes[np.minimum(chosen, len(classes) - 1)]
        return found


def uniform(seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each seed: the finaliser of SplitMix64 (Steele et al. 2014).

    It must never change, or plans would give other labels. It shares no bits with `latents`, so a
    label says nothing about z.
    """
    with np.errstate(over="ignore"):
        x = seeds + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def cycled(text: str | None, names: Sequence[str]) -> LabelRule:
    """The rule of `--labels 3` or `--labels 0,3,5`; every class in turn where it is absent.

    Raises:
        PlanError: one is no class of the model.
    """
    if text is None:
        return LabelRule(kind="cycle", classes=tuple(range(len(names))))
    classes = tuple(class_of(word.strip(), names, "--labels") for word in text.split(","))
    return LabelRule(kind="cycle", classes=classes)


def weighted(text: str, names: Sequence[str]) -> LabelRule:
    """The rule of `--label-weights 0=3,7=1`.

    Raises:
        PlanError: a class is unknown or comes twice, or a weight isn't positive.
    """
    weights: dict[int, float] = {}
    for entry in text.split(","):
        word, equals, number = entry.rpartition("=")
        label = class_of(word.strip(), names, "--label-weights")
        try:
            weight = float(number)
        except ValueError:
            weight = 0.0
        if not equals or not 0 < weight < float("inf"):
            raise PlanError(
                f"--label-weights holds {quoted(entry)}: give CLASS=WEIGHT with a number above 0"
            )
        if label in weights:
            raise PlanError(f"--label-weights names class {label} twice; name each once")
        weights[label] = weight
    return LabelRule(kind="weights", classes=tuple(weights), weights=tuple(weights.values()))


def read_labels(
    path: Path, num: int, names: Sequence[str]
) -> tuple[LabelRule, npt.NDArray[np.int64]]:
    """Reads one label a line, for each seed in order; `#` begins a comment. Labels are [num].

    Raises:
        PlanError: it can't be read, a label is unknown, or their number isn't that of the seeds.
    """
    option = "--labels-from"
    found = [class_of(text, names, where) for where, text in lines(path, option)]
    if len(found) != num:
        raise PlanError(
            f"{option} is {path}: holds {len(found)} labels for {num} seeds; give one for each"
        )
    labels = np.array(found, np.int64)
    digest = hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()
    classes = tuple(map(int, np.unique(labels)))
    return LabelRule(kind="listed", classes=classes, sha256=digest), labels


def class_of(word: str, names: Sequence[str], where: str) -> int:
    """The number of a class that is given by number or by name.

    Raises:
        PlanError: the model has no such class.
    """
    if word.isascii() and word.isdigit() and int(word) < len(names):
        return int(word)
    if word in names:
        return list(names).index(word)
    some = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    raise PlanError(
        f"{where} holds {quoted(word)}: allowed are 0 .. {len(names) - 1}, or a name ({some})"
    )
