"""The routes under /v1 that describe: models, and the parts that their images are changed by."""

import re
from typing import Literal

from models.bundle import ENCODER
from models.bundle.anomaly import SCORE
from models.bundle.directions import (
    DIRECTIONS,
)
from models.bundle.styles import STYLES
from models.bundle.units import UNITS
from models.errors import BundleError
from serving.api.described.parts import model_directions, model_units
from serving.api.operations import JSON, MODEL, MODEL_PROBLEMS, Operation, in_query
from serving.api.router import Route
from serving.api.schemas import (
    Candidate,
    Encoder,
    Limits,
    Model,
    ModelDirections,
    Models,
    ModelUnits,
)
from serving.dispatch.catalogue import Served
from serving.errors import InvalidRequestProblem, quoted
from serving.http.messages import Request, Response
from serving.process.service import Service
from serving.requests.generate import MAX_VERSION
from serving.settings import Settings

VERSION = in_query(
    "version",
    {"type": "integer", "minimum": 1, "maximum": MAX_VERSION},
    "CURRENT if absent, or the candidate",
    1,
)
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
