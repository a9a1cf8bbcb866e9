"""Directions of a model's latent space: how far one unit goes, what they change, the evidence.

    directions.npz    optional; written by `training.interpretation`, read here without torch

A set of directions is addressed by its prefix and a number, one of `z` also by the number alone or
by name: "0", "thickness", "class:0" (of the image's own class). One of w, "sefa:0", may be limited
to some styles: "sefa:0@4-7". A step is added to z after truncation has scaled z; where the model
has a mapping network, before z enters it. One unit of a step changes the pixels, to first order, by
their standard deviation over the latents.
"""

import io
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.bundle.archive import read_stream
from models.bundle.bundle import GOLDEN_TOLERANCE, Bundle
from models.bundle.generator import Generate, Images
from models.bundle.manifest import Manifest
from models.bundle.part import decoding, read_part
from models.errors import BundleError
from models.latents import latents

DIRECTIONS = "directions.npz"
MAX_BYTES = 64 << 20
MAX_AMOUNT = 10.0
"""The most units of one direction, either way: far beyond what a model was trained on."""
MAX_AT_ONCE = 16
"""The most directions of one request."""
SHARED, OF_CLASS = "z", "class"
"""Sets whose steps are added to z; those of w need the graph in two parts."""
IN_Z, IN_W = (SHARED, OF_CLASS), ("sefa", "pca")
SETS = (*IN_Z, *IN_W)

Floats = npt.NDArray[np.float32]
_FIELDS = ("steps", "eigenvalues", "names", "evidence", "pictures")
_GOLDEN = ("seeds", "labels", "amounts", "images")
_STYLES = re.compile(r"([0-9]{1,6})@([0-9]{1,4})(?:-([0-9]{1,4}))?")
_NUMBER = re.compile(r"[0-9]{1,6}")
_MAX_NAME = 80


class DirectionError(ValueError):
    """A request names a direction that there isn't, or an amount that is not allowed."""


class Applied(NamedTuple):
    """So many units of one direction."""

    set: str
    number: int
    amount: float
    first: int = -1
    """Of the styles that a direction of w moves, with `last`; -1 for all of them."""
    last: int = -1

    @property
    def key(self) -> str:
        """How a request addresses the direction by number."""
        styles = "" if self.first < 0 else f"@{self.first}-{self.last}"
        return str(self.number) if self.set == SHARED else f"{self.set}:{self.number}{styles}"


@dataclass(frozen=True, kw_only=True, eq=False)
class DirectionSet:
    """K directions of one kind, the strongest first; where they are of classes, K of each of C."""

    steps: Floats
    """[K, dim], or [C, K, dim]: what one unit adds to z, or to w."""
    eigenvalues: Floats
    """[K] or [C, K]: the pixel change, squared and summed, of a step of length 1."""
    names: npt.NDArray[np.str_]
    """[K] or [C, K]: empty where no measured concept follows the direction closely enough."""
    evidence: Floats
    """[K, M] or [C, K, M]: Spearman's correlation of the amount with each concept."""
    pictures: Images
    """[K, A, h, w, C] or [C, K, A, h, w, C] uint8: one seed at each amount."""

    @property
    def num(self) -> int:
        """K."""
        return int(self.steps.shape[-2])


@dataclass(frozen=True, kw_only=True, eq=False)
class GoldenSteps:
    """Images that the model must give for certain seeds, each with a step."""

    seeds: npt.NDArray[np.uint64]
    """[G]."""
    labels: npt.NDArray[np.int64] | None
    """[G], of conditional models."""
    amounts: Floats
    """[G, K]: units of each shared direction."""
    images: Images
    """[G, H, W, C] uint8."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Directions:
    """Everything that directions.npz holds."""

    sets: Mapping[str, DirectionSet]
    """By prefix; `SHARED` is always there."""
    concepts: tuple[str, ...]
    """The M concepts that were measured on the images."""
    amounts: Floats
    """[A]: units of the pictures."""
    golden: GoldenSteps
    protocol: Mapping[str, float] = field(default_factory=dict)
    """How they were found: numbers of latents and of images, and so on."""

    def to_bytes(self) -> bytes:
        """Encodes as a compressed .npz archive."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "concepts": np.array(self.concepts, np.str_),
            "amounts": self.amounts,
            "protocol.names": np.array(list(self.protocol), np.str_),
            "protocol.values": np.array(list(self.protocol.values()), np.float64),
        }
        for name, each in self.sets.items():
            arrays |= {f"{name}.{entry}": getattr(each, entry) for entry in _FIELDS}
        for entry in _GOLDEN:
            if (value := getattr(self.golden, entry)) is not None:
                arrays[f"golden.{entry}"] = value
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    def resolve(
        self, asked: Mapping[str, float], sets: Collection[str] = IN_Z
    ) -> tuple[Applied, ...]:
        """Finds what a request names; amounts of 0 are left out, and the order is always the same.

        Args:
            asked: units by number or name.
            sets: the sets that can be used here.

        Raises:
            DirectionError: there is no such direction, it is named twice, or an amount is too
                large.
        """
        if len(asked) > MAX_AT_ONCE:
            raise DirectionError(
                f"directions has {len(asked)} entries, allowed are {MAX_AT_ONCE}; leave some out"
            )
        found: dict[tuple[str, int, int, int], float] = {}
        for key, amount in asked.items():
            if not (math.isfinite(amount) and abs(amount) <= MAX_AMOUNT):
                raise DirectionError(
                    f"directions[{_quoted(key)}] is {amount:g}, allowed are "
                    f"{-MAX_AMOUNT:g} .. {MAX_AMOUNT:g}"
                )
            place = self._find(key, sets)
            if place in found:
                raise DirectionError(
                    f"directions names {_applied(place, 0).key} twice, by number and by name; "
                    "give one"
                )
            found[place] = amount
        return tuple(_applied(place, amount) for place, amount in sorted(found.items()) if amount)

    def _find(self, key: str, sets: Collection[str]) -> tuple[str, int, int, int]:
        prefix, colon, rest = key.partition(":")
        name, number = (prefix, rest) if colon else (SHARED, key)
        first = last = -1
        if name in IN_W and (styles := _STYLES.fullmatch(number)):
            number, first, last = styles[1], int(styles[2]), int(styles[3] or styles[2])
        each = self.sets.get(name)
        is_known = each is not None and name in sets
        if is_known and _NUMBER.fullmatch(number) and int(number) < self.sets[name].num:
            return name, int(number), first, last
        names = self.sets[SHARED].names.tolist()
        if key and key in names:
            return SHARED, names.index(key), -1, -1
        raise DirectionError(
            f"directions names {_quoted(key)}, allowed are {', '.join(self._allowed(sets))}"
        )

    def _allowed(self, sets: Collection[str]) -> Iterable[str]:
        for name, each in self.sets.items():
            if name not in sets:
                continue
            prefix = "" if name == SHARED else f"{name}:"
            yield f"{prefix}0 .. {prefix}{each.num - 1}"
        yield from (name for name in self.sets[SHARED].names.tolist() if name)

    def shift(
        self, applied: Sequence[Applied], num_rows: int, labels: Sequence[int] | None
    ) -> Floats | None:
        """What the directions of z add to the latents of num_rows images: [num_rows, z_dim].

        It is the same for a row whatever rows stand beside it. None where they add nothing.
        """
        dim = self.sets[SHARED].steps.shape[-1]
        total: npt.NDArray[np.float64] | None = None
        for name, number, amount, *_ in applied:
            steps = self.sets[name].steps
            if name == OF_CLASS:
                assert labels is not None
                row = steps[np.asarray(labels), number]
            elif name == SHARED:
                row = np.broadcast_to(steps[number], (num_rows, dim))
            else:
                continue
            step = amount * row.astype(np.float64)
            total = step if total is None else total + step
        return None if total is None else total.astype(np.float32)

    def shift_of_styles(self, applied: Sequence[Applied], num_styles: int) -> Floats:
        """What the directions of w add to each style: [num_styles, w_dim].

        Raises:
            DirectionError: a direction names styles that the model doesn't have.
        """
        moving = [each for each in applied if each.set in IN_W]
        dim = self.sets[moving[0].set].steps.shape[-1] if moving else 0
        total = np.zeros((num_styles, dim))
        for each in moving:
            if not each.first <= each.last < num_styles:
                raise DirectionError(
                    f"directions names {each.key!r}, styles are 0 .. {num_styles - 1}: "
                    f"{each.set}:{each.number}@0-{num_styles - 1} is all of them"
                )
            styles = slice(max(each.first, 0), num_styles if each.first < 0 else each.last + 1)
            total[styles] += each.amount * self.sets[each.set].steps[each.number].astype(np.float64)
        return total.astype(np.float32)


def _applied(place: tuple[str, int, int, int], amount: float) -> Applied:
    return Applied(place[0], place[1], amount, place[2], place[3])


def as_text(applied: Sequence[Applied]) -> str:
    """Directions as `0:1.5,class:2:-1`, in all digits, as `parse_amounts` reads them."""
    return ",".join(f"{each.key}:{float(each.amount)!r}".removesuffix(".0") for each in applied)


def parse_amounts(text: str) -> dict[str, float]:
    """Parses `0:1.5,thickness:-1`: a number or name, a colon, units.

    Raises:
        DirectionError: it is malformed, or names one twice.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        key, colon, amount = part.strip().rpartition(":")
        try:
            value = float(amount)
        except ValueError:
            colon = ""
        if not colon or not key or key in found:
            raise DirectionError(
                f"{_quoted(part.strip())} is no direction and its units, such as 0:1.5,thickness:-1"
            )
        found[key] = value
    return found


def read_directions(bundle: Bundle) -> Directions | None:
    """Reads directions.npz, whose digest is compared with the manifest; None where there is none.

    Raises:
        BundleError: the file was altered, can't be read, or doesn't fit the model.
    """
    data = read_part(bundle, DIRECTIONS, max_bytes=MAX_BYTES)
    if data is None:
        return None
    return _decode(data, bundle.manifest, bundle.path / DIRECTIONS)


def _decode(data: bytes, manifest: Manifest, path: Path) -> Directions:
    with decoding(path):
        arrays = read_stream(io.BytesIO(data), names=None, max_bytes=MAX_BYTES)
        sets = {
            name: DirectionSet(**{entry: arrays[f"{name}.{entry}"] for entry in _FIELDS})
            for name in SETS
            if f"{name}.steps" in arrays
        }
        golden = GoldenSteps(**{entry: arrays.get(f"golden.{entry}") for entry in _GOLDEN})  # type: ignore[arg-type]
        names, values = arrays["protocol.names"].tolist(), arrays["protocol.values"].tolist()
        found = Directions(
            sets=sets,
            concepts=tuple(arrays["concepts"].tolist()),
            amounts=arrays["amounts"],
            golden=golden,
            protocol=dict(zip(names, values, strict=True)),
        )
        _check(found, manifest)
    return found


def verify_directions(bundle: Bundle, generate: Generate) -> int:
    """Makes the golden images of directions.npz again; returns the largest difference.

    0 where the bundle has no directions.

    Raises:
        BundleError: the file can't be used, or an image differs by more than GOLDEN_TOLERANCE.
    """
    directions = read_directions(bundle)
    if directions is None:
        return 0
    golden = directions.golden
    steps = directions.sets[SHARED].steps
    z = latents(golden.seeds, bundle.manifest.z_dim)
    z += (golden.amounts.astype(np.float64) @ steps).astype(np.float32)
    psi = np.ones(len(z), np.float32) if bundle.manifest.has_mapping else None
    images = generate(z, golden.labels, psi)
    difference = int(np.abs(images.astype(np.int16) - golden.images).max())
    if difference > GOLDEN_TOLERANCE:
        raise BundleError(
            f"{bundle.path / DIRECTIONS}: golden images differ by up to {difference}/255, allowed "
            f"are {GOLDEN_TOLERANCE}/255; the directions are of another model: export it again"
        )
    return difference


def _check(found: Directions, manifest: Manifest) -> None:
    """Raises ValueError where arrays contradict each other or the model."""
    num_classes = len(manifest.labels or ())
    num_concepts = len(found.concepts)
    if SHARED not in found.sets:
        raise ValueError(f"holds no {SHARED}.steps")
    for name, each in found.sets.items():
        classes = (num_classes,) if name == OF_CLASS else ()
        dim = each.steps.shape[-1] if name in IN_W else manifest.z_dim
        leading = (*classes, each.num)
        fits = (
            each.num >= 1
            and (name != OF_CLASS or num_classes > 0)
            and each.steps.shape == (*leading, dim)
            and each.eigenvalues.shape == leading
            and each.names.shape == leading
            and each.evidence.shape == (*leading, num_concepts)
            and each.pictures.shape[: len(leading) + 1] == (*leading, len(found.amounts))
            and each.pictures.dtype == np.uint8
            and all(array.dtype == np.float32 for array in (each.steps, each.evidence))
        )
        if not fits or not np.isfinite(each.steps).all():
            raise ValueError(f"its arrays {name}.* don't fit the model")
        # `tolist` gives what a name is compared with and printed as.
        if any(_is_bad_name(word) for word in each.names.ravel().tolist()):
            raise ValueError(f"{name}.names holds a name that a request can't give")
    given = [word for word in found.sets[SHARED].names.tolist() if word]
    if len(set(given)) != len(given):
        raise ValueError(f"{SHARED}.names holds a name twice")
    golden, image = found.golden, manifest.image
    num = golden.seeds.size
    fits = (
        golden.seeds.shape == (num,)
        and golden.seeds.dtype == np.uint64
        and golden.amounts.shape == (num, found.sets[SHARED].num)
        and golden.images.shape == (num, image.height, image.width, image.channels)
        and golden.images.dtype == np.uint8
        and (golden.labels is None) == (not num_classes)
        and (golden.labels is None or golden.labels.shape == (num,))
    )
    if not fits or not num:
        raise ValueError("its golden images don't fit the model")


def _is_bad_name(word: str) -> bool:
    return len(word) > _MAX_NAME or word.isdigit() or bool(set(word) & set(":,&=\n"))


def _quoted(key: str) -> str:
    return repr(key if len(key) <= _MAX_NAME else key[:_MAX_NAME] + "...")
