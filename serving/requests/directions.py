"""The directions that a request moves its images along: how they are asked for, and refused."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from models.bundle.directions import IN_Z, MAX_AMOUNT, SETS, Applied, DirectionError, Directions
from models.bundle.styles import has_styles
from models.errors import BundleError
from serving.dispatch.catalogue import Served
from serving.errors import InvalidRequestProblem, UnavailableProblem

Amounts = Annotated[
    dict[str, float] | None,
    msgspec.Meta(
        description="Units of the model's directions, by number or name: a step in its latent "
        f"space for all images, {-MAX_AMOUNT:g} .. {MAX_AMOUNT:g}. Listed by "
        "GET /v1/models/{model}/directions."
    ),
]


def directions_of(served: Served) -> Directions:
    """The directions of a version.

    Raises:
        InvalidRequestProblem: it has none.
        UnavailableProblem: the file can't be read at the moment, or was altered.
    """
    name, version = served.key
    try:
        found = served.directions
    except BundleError:
        raise UnavailableProblem(
            f"the directions of model {name!r} (version {version}) can't be read; the file was "
            "altered, or its storage is away: ask again, or ask who runs this server"
        ) from None
    if found is None:
        raise InvalidRequestProblem(
            f"directions: model {name!r} (version {version}) has none; leave them out, or publish "
            f"it with `python -m training.interpretation directions {name} --publish`"
        )
    return found


def applied(asked: Mapping[str, float] | None, served: Served) -> tuple[Applied, ...]:
    """Finds the directions that a request names; those of w need the model's graph in two.

    Raises:
        InvalidRequestProblem: the model has no such direction, or an amount is not allowed.
        UnavailableProblem: its directions can't be read.
    """
    if not asked:
        return ()
    try:
        sets = SETS if has_styles(served.manifest) else IN_Z
        return directions_of(served).resolve(asked, sets)
    except DirectionError as error:
        raise InvalidRequestProblem(str(error)) from None
