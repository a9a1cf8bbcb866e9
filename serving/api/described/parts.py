"""The directions and the units of a version, with their evidence."""

from collections.abc import Iterator

import numpy as np

from models.bundle.directions import IN_Z, MAX_AMOUNT, SETS, Applied, Directions, DirectionSet
from models.bundle.styles import has_styles
from models.bundle.units import UnitInfo
from serving.api.schemas import (
    CloseUnit,
    Direction,
    Evidence,
    ModelDirections,
    ModelUnits,
    UnitArtifact,
    UnitConcept,
    UnitEffect,
    UnitLayer,
)
from serving.dispatch.catalogue import Served
from serving.requests.directions import directions_of
from serving.requests.units import units_of

_NUM_TOLD, _NUM_CLOSE = 3, 8


def model_directions(served: Served) -> ModelDirections:
    """The directions of a version that requests can name.

    Raises:
        InvalidRequestProblem: it has none.
        UnavailableProblem: they can't be read.
    """
    found = directions_of(served)
    name, version = served.key
    return ModelDirections(
        name=name,
        version=version,
        digest=served.bundle.digest,
        max_amount=MAX_AMOUNT,
        directions=[
            each
            for kind in (SETS if has_styles(served.manifest) else IN_Z)
            if kind in found.sets
            for each in _directions(found, kind)
        ],
    )


def _directions(found: Directions, kind: str) -> Iterator[Direction]:
    each = found.sets[kind]
    if each.steps.ndim == 2:
        for number in range(each.num):
            yield _direction(found, kind, each, (number,), None)
        return
    for label in range(len(each.steps)):
        for number in range(each.num):
            yield _direction(found, kind, each, (label, number), label)


def _direction(
    found: Directions, kind: str, each: DirectionSet, at: tuple[int, ...], label: int | None
) -> Direction:
    values, rho = each.eigenvalues[at[:-1]], each.evidence[at]
    closest = np.argsort(-np.abs(rho), kind="stable")[:_NUM_TOLD]
    return Direction(
        key=Applied(kind, at[-1], 0).key,
        name=str(each.names[at]) or None,
        label=label,
        share=round(float(each.eigenvalues[at] / max(float(values.sum()), 1e-12)), 4),
        evidence=[Evidence(found.concepts[i], round(float(rho[i]), 3)) for i in closest],
    )


def model_units(served: Served) -> ModelUnits:
    """The units of a version.

    Raises:
        InvalidRequestProblem: it has none.
        UnavailableProblem: they can't be read.
    """
    info = units_of(served)
    name, version = served.key
    starts = np.cumsum([0, *info.channels.tolist()]).tolist()
    return ModelUnits(
        name=name,
        version=version,
        digest=served.bundle.digest,
        num=info.num,
        layers=[
            UnitLayer(maps=str(size), first=first, num=int(num))
            for size, first, num in zip(info.layers, starts, info.channels, strict=False)
        ],
        concepts=[_concept(info, column) for column in range(info.concepts.size)],
        effects=[
            UnitEffect(str(concept), units.tolist(), *(round(float(x), 4) for x in values))
            for concept, units, values in zip(
                info.effect_concepts, info.effect_units, info.effects, strict=True
            )
        ],
        artifacts=[
            UnitArtifact(int(unit), *(round(float(x), 4) for x in values))
            for unit, values in zip(info.artifact_units, info.artifact_gains, strict=True)
        ],
    )


def _concept(info: UnitInfo, column: int) -> UnitConcept:
    agreement = info.agreement[:, column]
    closest = np.argsort(-agreement, kind="stable")[:_NUM_CLOSE]
    return UnitConcept(
        str(info.concepts[column]),
        [CloseUnit(int(i), round(float(agreement[i]), 4)) for i in closest if agreement[i] > 0],
    )
