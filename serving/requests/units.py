"""The units that a request switches off: how they are asked for, and refused."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from models.bundle.units import UnitInfo
from models.errors import BundleError
from serving.dispatch.catalogue import Served
from serving.errors import InvalidRequestProblem, UnavailableProblem, quoted

UnitsOff = Annotated[
    list[int] | None,
    msgspec.Meta(
        description="Numbers of feature maps that are switched off, of models that have units. "
        "Not together with styles."
    ),
]

_TEXT = re.compile(r"[0-9]{1,6}(,[0-9]{1,6})*")


@dataclass(frozen=True)
class Off:
    """A checked choice of units."""

    mask: npt.NDArray[np.float32]
    """[units]: 0 for those that are off."""
    text: str
    """The same choice is the same text."""


def units_from_text(text: str | None) -> list[int] | None:
    """Reads numbers of units with commas; None for None.

    Raises:
        InvalidRequestProblem: it is something else.
    """
    if text is None:
        return None
    if not _TEXT.fullmatch(text):
        raise InvalidRequestProblem(
            f"units_off is {quoted(text)}, must be numbers of units with commas, such as 3,17"
        )
    return [int(part) for part in text.split(",")]


def units_of(served: Served) -> UnitInfo:
    """What a version says of its units.

    Raises:
        InvalidRequestProblem: it has none.
        UnavailableProblem: the file can't be read at the moment, or was altered.
    """
    name, version = served.key
    try:
        found = served.units
    except BundleError:
        raise UnavailableProblem(
            f"the units of model {name!r} (version {version}) can't be read; the file was "
            "altered, or its storage is away: ask again, or ask who runs this server"
        ) from None
    if found is None:
        raise InvalidRequestProblem(
            f"units_off: model {name!r} (version {version}) has none; leave it out, or publish it "
            f"with `python -m training.interpretation units {name} --publish`"
        )
    return found


def switched_off(asked: Sequence[int] | None, served: Served, *, is_styled: bool) -> Off | None:
    """Checks the units that a request switches off; None where it names none.

    is_styled: the images are made of styles, which another graph does.

    Raises:
        InvalidRequestProblem: the model has no such units, or styles are asked for too.
        UnavailableProblem: they can't be read.
    """
    if not asked:
        return None
    info = units_of(served)
    if is_styled:
        raise InvalidRequestProblem(
            "units_off is given with styles, or with directions of w; give one of them: they are "
            "different graphs"
        )
    if len(asked) > info.num:
        raise InvalidRequestProblem(
            f"units_off has {len(asked)} entries, this model has {info.num} units; name each once"
        )
    for index, unit in enumerate(asked):
        if not 0 <= unit < info.num:
            raise InvalidRequestProblem(
                f"units_off[{index}] is {quoted(unit)}, allowed are 0 .. {info.num - 1}"
            )
    return Off(info.mask(asked), f"off={','.join(map(str, sorted(set(asked))))}")
