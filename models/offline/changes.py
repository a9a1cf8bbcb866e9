"""What the images of a command are changed by: directions, styles, units; as a server does it."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.bundle.directions import (
    IN_W,
    IN_Z,
    SETS,
    Applied,
    DirectionError,
    Directions,
    as_text,
    read_directions,
)
from models.bundle.generator import CpuGenerator, Images
from models.bundle.runtime import inputs_of, open_session
from models.bundle.styles import (
    MAPPING,
    SYNTHESIS,
    StyleInfo,
    StyleRows,
    has_styles,
    read_styles,
    styled,
)
from models.bundle.units import GRAPH, UnitInfo, read_units, without_units
from models.image_metadata import written_styles
from models.latents import latents

Floats = npt.NDArray[np.float32]


class UsageError(Exception):
    """An option is not allowed for this model."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What was asked for, for all images."""

    directions: Mapping[str, float] | None = None
    """Units by number or name; their steps are added last."""
    styles: Mapping[str, Any] | None = None
    """As in a request: from and layers, truncation."""
    units_off: Sequence[int] | None = None
    """Numbers of units."""


class ChangedImages:
    """Images of a bundle, with changes; its optional graphs are opened when they are needed."""

    def __init__(self, bundle: Bundle, generate: CpuGenerator) -> None:
        """generate: the whole model."""
        self._bundle = bundle
        self._generate = generate

    def make(
        self, z: Floats, labels: npt.NDArray[np.int64] | None, psi: float, changes: Changes
    ) -> Images:
        """Makes images [N, H, W, C] uint8 of latents [N, z_dim].

        Raises:
            UsageError: the model doesn't have what was asked for.
            ModelError: a part of the bundle can't be used.
        """
        applied = self._applied(changes)
        by_style = changes.styles is not None or any(each.set in IN_W for each in applied)
        if by_style and changes.units_off:
            raise UsageError(
                "--units-off is given with styles, or with directions of w; give one of them: "
                "they are different graphs"
            )
        if not by_style and not self._bundle.manifest.has_mapping:
            z = z * np.float32(psi)
        if applied and self._directions is not None:
            given = None if labels is None else labels.tolist()
            shift = self._directions.shift(applied, len(z), given)
            z = z if shift is None else z + shift
        if by_style:
            return self._styled(z, labels, psi, changes, applied)
        truncation = np.full(len(z), psi, np.float32)
        if changes.units_off:
            return self._without(z, labels, truncation, changes.units_off)
        return self._generate(z, labels, truncation)

    def words(self, changes: Changes) -> dict[str, str]:
        """The changes as `models.image_metadata.provenance` takes them."""
        styles, off = changes.styles or {}, sorted(set(changes.units_off or ()))
        choice = (styles.get("from"), styles.get("layers"), styles.get("truncation"))
        return {
            "directions": as_text(self._applied(changes)),
            "styles": written_styles(*choice) if styles else "",
            "units_off": ",".join(map(str, off)),
        }

    @property
    def _name(self) -> str:
        return self._bundle.manifest.name

    @functools.cached_property
    def _directions(self) -> Directions | None:
        return read_directions(self._bundle)

    def _applied(self, changes: Changes) -> tuple[Applied, ...]:
        if not changes.directions:
            return ()
        if self._directions is None:
            raise UsageError(
                f"--directions is given, but {self._name} has none; leave it out, "
                "or find them with `python -m training.interpretation directions`"
            )
        sets = SETS if has_styles(self._bundle.manifest) else IN_Z
        try:
            return self._directions.resolve(changes.directions, sets)
        except DirectionError as error:
            raise UsageError(f"--{error}") from None

    @functools.cached_property
    def _styles(self) -> tuple[StyleInfo, Any, Any]:
        info = read_styles(self._bundle)
        if info is None:
            raise UsageError(
                f"styles are asked for, but {self._name} has none; leave --style-from, "
                "--style-layers and --style-truncation out, or take a model of the family 'style'"
            )
        path = self._bundle.path
        return info, open_session(path / MAPPING), open_session(path / SYNTHESIS)

    def _styled(
        self,
        z: Floats,
        labels: npt.NDArray[np.int64] | None,
        psi: float,
        changes: Changes,
        applied: Sequence[Applied],
    ) -> Images:
        info, mapping, synthesis = self._styles
        num, row = len(z), _row(changes.styles or {}, info, psi)
        other = take = shift = None
        if row.layers is not None and row.seed is not None:
            take = np.zeros((num, info.num_styles), np.float32)
            take[:, list(row.layers)] = 1
            other = np.repeat(latents([row.seed], z.shape[1]), num, axis=0)
        if self._directions is not None and any(each.set in IN_W for each in applied):
            try:
                each = self._directions.shift_of_styles(applied, info.num_styles)
            except DirectionError as error:
                raise UsageError(f"--{error}") from None
            shift = np.broadcast_to(each, (num, *each.shape))
        truncation = np.tile(np.array(row.truncation, np.float32), (num, 1))
        rows = StyleRows(psi=truncation, other=other, take=take, shift=shift)
        return styled(mapping, synthesis, z, labels, rows)

    @functools.cached_property
    def _units(self) -> tuple[UnitInfo, Any, list[str]]:
        info = read_units(self._bundle)
        if info is None:
            raise UsageError(
                f"--units-off is given, but {self._name} has no units; leave it out, or publish it "
                f"with `python -m training.interpretation units {self._name} --publish`"
            )
        session = open_session(self._bundle.path / GRAPH)
        return info, session, list(inputs_of(session))

    def _without(
        self,
        z: Floats,
        labels: npt.NDArray[np.int64] | None,
        psi: Floats,
        off: Sequence[int],
    ) -> Images:
        info, session, names = self._units
        for unit in off:
            if unit >= info.num:
                raise UsageError(f"--units-off names {unit}, allowed are 0 .. {info.num - 1}")
        mask = np.tile(info.mask(off), (len(z), 1))
        return without_units(session, names, z, labels, psi, mask)


@dataclass(frozen=True)
class _Row:
    seed: int | None
    layers: tuple[int, ...] | None
    truncation: tuple[float, ...]


def _row(styles: Mapping[str, Any], info: StyleInfo, psi: float) -> _Row:
    """Checks a choice of styles."""
    seed, layers, truncation = (styles.get(name) for name in ("from", "layers", "truncation"))
    num = info.num_styles
    if (seed is None) != (layers is None):
        there, missing = ("from", "layers") if layers is None else ("layers", "from")
        raise UsageError(f"--style-{there} is given without --style-{missing}; give both")
    if layers is not None and max(layers) >= num:
        raise UsageError(f"--style-layers names {max(layers)}, allowed are 0 .. {num - 1}")
    if truncation is not None and len(truncation) != num:
        raise UsageError(
            f"--style-truncation has {len(truncation)} numbers, this model has {num} styles; give "
            "one for each"
        )
    each = (psi,) * num if truncation is None else tuple(truncation)
    return _Row(seed, None if layers is None else tuple(layers), each)
