"""The routes under /v1 that describe: models, and the parts that their images are changed by."""

import re
from collections.abc import Iterator
from typing import Literal

import numpy as np

from models.bundle import ENCODER
from models.bundle.anomaly import SCORE
from models.bundle.directions import (
    DIRECTIONS,
    IN_Z,
    MAX_AMOUNT,
    SETS,
    Applied,
    Directions,
    DirectionSet,
)
from models.bundle.styles import STYLES, has_styles
from models.bundle.units import UNITS, UnitInfo
from models.errors import BundleError
from serving.api.operations import JSON, MODEL, MODEL_PROBLEMS, Operation, in_query
from serving.api.router import Route
from serving.api.schemas import (
    Candidate,
    CloseUnit,
    Direction,
    Encoder,
    Evidence,
    Limits,
    Model,
    ModelDirections,
    Models,
    ModelUnits,
    UnitArtifact,
    UnitConcept,
    UnitEffect,
    UnitLayer,
)
from serving.dispatch.catalogue import Served
from serving.errors import InvalidRequestProblem, quoted
from serving.http.messages import Request, Response
from serving.process.service import Service
from serving.requests.directions import directions_of
from serving.requests.generate import MAX_VERSION
from serving.requests.units import units_of
from serving.settings import Settings

VERSION = in_query(
    "version",
    {"type": "integer", "minimum": 1, "maximum": MAX_VERSION},
    "CURRENT if absent, or the candidate",
    1,
)
_NUM_TOLD, _NUM_CLOSE = 3, 8
_PARTS = {
    "directions": DIRECTIONS,
    "styles": STYLES,
    "units": UNITS,
    "encoder": ENCODER,
    "score": SCORE,
}
_MODELS = Operation(
    id="models",
    summary="Every model that is served.",
    tag="Models",
    response="Manifests, versions, limits.",
    content={JSON: Models},
    problems=(InvalidRequestProblem,),
)
_MODEL = Operation(
    id="model",
    summary="One model.",
    tag="Models",
    parameters=(MODEL, VERSION),
    response="Manifest, versions, limits.",
    content={JSON: Model},
    problems=(InvalidRequestProblem, *MODEL_PROBLEMS),
)


_DIRECTIONS = Operation(
    id="directions",
    summary="The directions of a model's latent space.",
    tag="Models",
    description="In which the pixels change most, with what was measured to follow them. A name is "
    "given only where a measure follows with a rank correlation above .6.",
    parameters=(MODEL, VERSION),
    response="Directions, the strongest first.",
    content={JSON: ModelDirections},
    problems=(InvalidRequestProblem, *MODEL_PROBLEMS),
)

_UNITS = Operation(
    id="units",
    summary="The units of a model: its feature maps.",
    tag="Models",
    description="What each agrees with, what images lose without some, and which ones make images "
    "worse. A request switches them off by number: units_off.",
    parameters=(MODEL, VERSION),
    response="Layers, concepts, effects.",
    content={JSON: ModelUnits},
    problems=(InvalidRequestProblem, *MODEL_PROBLEMS),
)


class V1Models:
    """The handlers that describe, for one service."""

    def __init__(self, service: Service) -> None:
        self._settings: Settings = service.settings
        self._catalogue = service.catalogue

    def routes(self) -> list[Route]:
        """Lists the routes."""
        return [
            Route("GET", "/v1/models", self.models, _MODELS),
            Route("GET", "/v1/models/{model}", self.model, _MODEL),
            Route("GET", "/v1/models/{model}/directions", self.directions, _DIRECTIONS),
            Route("GET", "/v1/models/{model}/units", self.units, _UNITS),
        ]

    async def models(self, request: Request) -> Response:
        """Describes every model that is served."""
        request.query()
        return Response.json(Models([self._describe(served) for served in self._catalogue.current]))

    async def model(self, request: Request) -> Response:
        """Describes one model, in the version that the query names or that is served."""
        return Response.json(self._describe(self._named(request)))

    async def directions(self, request: Request) -> Response:
        """Lists the directions of one model, with their evidence."""
        return Response.json(model_directions(self._named(request)))

    async def units(self, request: Request) -> Response:
        """Lists the units of one model, with what they agree with and do."""
        return Response.json(model_units(self._named(request)))

    def _named(self, request: Request) -> Served:
        query = request.query("version")
        version = None if "version" not in query else integer("version", query["version"])
        return self._catalogue.resolve(request.params["model"], version)

    def _describe(self, served: Served) -> Model:
        manifest, settings = served.manifest, self._settings
        name, version = served.key
        return Model(
            name=name,
            version=version,
            digest=served.bundle.digest,
            versions=self._catalogue.versions(name),
            candidate=self._candidate(name),
            z_dim=manifest.z_dim,
            image=manifest.image,
            labels=manifest.labels,
            encoder=_encoder(served),
            num_styles=_num_styles(served),
            parts=[name for name, file in _PARTS.items() if file in manifest.files],
            recipe=manifest.recipe,
            dataset=manifest.dataset,
            metrics=manifest.metrics,
            created=manifest.created,
            limits=Limits(
                max_seeds=settings.max_seeds,
                max_frames=settings.max_frames,
                max_image_pixels=settings.max_image_pixels,
                max_input_pixels=settings.max_input_pixels,
                max_body_bytes=settings.max_body_bytes,
                request_timeout_ms=settings.request_timeout_ms,
            ),
        )

    def _candidate(self, name: str) -> Candidate | None:
        found = self._catalogue.candidacies.get(name)
        if found is None:
            return None
        return Candidate(
            version=found.version,
            share_percent=found.share_percent,
            digest=found.digest or None,
            refused=found.refused or None,
        )


def _encoder(served: Served) -> Encoder | None:
    """What a version's encoder can do; None where that can't be known."""
    try:
        traits, calibration = served.encoder, served.calibration
    except BundleError:
        return None
    if traits is None:
        return None
    label: Literal["none", "needed", "found"] = "none"
    if served.manifest.conditional:
        label = "found" if traits.infers_label else "needed"
    num = 0 if calibration is None else len(calibration.scores)
    return Encoder(label, traits.fills, traits.varies, num)


def _num_styles(served: Served) -> int | None:
    """None too where they can't be read: the list of models must not fail for it."""
    try:
        found = served.styles
    except BundleError:
        return None
    return None if found is None else found.num_styles


def integer(name: str, text: str) -> int:
    """Reads a parameter of a query.

    Raises:
        InvalidRequestProblem: it is no whole number.
    """
    if not re.fullmatch(r"-?[0-9]{1,39}", text):
        raise InvalidRequestProblem(f"{name} is {quoted(text)}, must be a whole number")
    return int(text)


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
