"""The types of the JSON in responses: handlers return them, and openapi.json is made of them."""

from typing import Annotated, Any, Literal

import msgspec

from models.bundle.manifest import Dataset, ImageSpec, Metric


def _meta(text: str, **schema: Any) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra_json_schema=schema or None)


class ResponseBody(msgspec.Struct, forbid_unknown_fields=True):
    """The base: a response has these fields, all that have no default, and no others."""


class ProblemDocument(ResponseBody):
    """An error: RFC 9457, application/problem+json."""

    type: Annotated[str, _meta("Stable: programs compare it.", format="uri")]
    title: str
    status: int
    detail: Annotated[str, _meta("Field, value, what is allowed, the remedy.")]


class Candidate(ResponseBody):
    """A version on trial beside CURRENT."""

    version: int | None
    share_percent: Annotated[float, _meta("How many of the seeds it serves, always the same ones.")]
    digest: str | None
    refused: Annotated[str | None, _meta("Why it is not served; null if it is.")]


class Limits(ResponseBody):
    """The largest requests that this server accepts."""

    max_seeds: int
    max_frames: int
    max_image_pixels: Annotated[int, _meta("Of all images or frames of a request.")]
    max_input_pixels: Annotated[int, _meta("Of an image that a client sends.")]
    max_body_bytes: int
    request_timeout_ms: int


class Encoder(ResponseBody):
    """What a model's encoder takes and gives."""

    label: Annotated[
        Literal["none", "needed", "found"],
        _meta("Of a model with classes: whether a request must name it, or the encoder finds it."),
    ]
    fills: Annotated[bool, _meta("Whether it takes a mask: /v1/inpaint and /v1/upscale.")]
    varies: Annotated[bool, _meta("Whether seeds give further answers.")]
    num_calibration: Annotated[int, _meta("Usual images that /v1/score counts p in; 0 for none.")]


class Model(ResponseBody):
    """A model in one of its versions."""

    name: str
    version: int
    digest: Annotated[str, _meta("SHA-256 over the bundle: what the images depend on.")]
    versions: Annotated[list[int], _meta("All that can be asked for.")]
    candidate: Candidate | None
    z_dim: int
    image: ImageSpec
    labels: Annotated[tuple[str, ...] | None, _meta("Names of the classes; null if unconditional.")]
    parts: Annotated[
        list[str],
        _meta(
            "What else it has: directions, styles (to mix and to truncate by layer), units, "
            "encoder, score."
        ),
    ]
    num_styles: Annotated[int | None, _meta("That can be mixed; null where there are none.")]
    encoder: Annotated[Encoder | None, _meta("Null where it has none, or it can't be read.")]
    recipe: str
    dataset: Dataset
    metrics: tuple[Metric, ...]
    created: str
    limits: Limits


class Models(ResponseBody):
    """Every model that is served."""

    models: list[Model]


class Evidence(ResponseBody):
    """A measured concept, and how closely it follows a direction."""

    concept: str
    correlation: Annotated[float, _meta("Spearman's, of the amount with the concept.")]


class Direction(ResponseBody):
    """A direction of a model's latent space."""

    key: Annotated[str, _meta("How a request names it.")]
    name: Annotated[str | None, _meta("What follows it closely enough; a request may use it too.")]
    label: Annotated[int | None, _meta("The class whose images it is of; null for all.")]
    share: Annotated[float, _meta("Of the change of pixels that all directions of its kind make.")]
    evidence: Annotated[list[Evidence], _meta("The closest concepts first.")]


class ModelDirections(ResponseBody):
    """The directions of a model."""

    name: str
    version: int
    digest: str
    max_amount: Annotated[float, _meta("The most units of a direction, either way.")]
    directions: list[Direction]


class UnitLayer(ResponseBody):
    """Feature maps of one layer."""

    maps: Annotated[str, _meta("Their size, WIDTHxHEIGHT.")]
    first: Annotated[int, _meta("Number of its first unit.")]
    num: int


class CloseUnit(ResponseBody):
    """A unit that agrees with a concept."""

    unit: int
    agreement: Annotated[float, _meta("Information quality ratio, 0 .. 1.")]


class UnitConcept(ResponseBody):
    """A concept, and the units that agree with it most."""

    concept: str
    closest: list[CloseUnit]


class UnitEffect(ResponseBody):
    """What a concept loses where its units are off, beside random sets of as many."""

    concept: str
    units: list[int]
    effect: Annotated[float, _meta("In standard deviations, less that of random sets.")]
    low: Annotated[float, _meta("Of the range of random sets around it, 95 %.")]
    high: float
    p: Annotated[float, _meta("Corrected by Holm for all concepts.")]


class UnitArtifact(ResponseBody):
    """A unit without which images are closer to the real ones."""

    unit: int
    gain: Annotated[float, _meta("By how much the Frechet distance falls.")]
    low: Annotated[float, _meta("Of its interval.")]
    high: float


class ModelUnits(ResponseBody):
    """The units of a model."""

    name: str
    version: int
    digest: str
    num: Annotated[int, _meta("Units are 0 .. num - 1.")]
    layers: list[UnitLayer]
    concepts: list[UnitConcept]
    effects: Annotated[list[UnitEffect], _meta("The surest first.")]
    artifacts: Annotated[list[UnitArtifact], _meta("The largest gain first.")]


class Job(ResponseBody):
    """A long job; times are seconds since 1970."""

    id: str
    status: Literal["waiting", "running", "done", "failed"]
    model: str
    version: int
    digest: str
    num_images: int
    num_done: int
    num_bytes: Annotated[int, _meta("Of the archive, so far.")]
    archive: Literal["tar", "zip"]
    problem: Annotated[str | None, _meta("Why it failed, or what holds it up.")]
    created: float
    ended: float | None
    expires: Annotated[float | None, _meta("When it is removed; null before its end.")]


class Jobs(ResponseBody):
    """Every job of the key, or of the server where it has no keys."""

    jobs: list[Job]


class V2Error(ResponseBody):
    """An error under /v2."""

    error: Annotated[str, _meta("Field, value, what is allowed, the remedy.")]


class V2Server(ResponseBody):
    """The server, and the extensions of the protocol that it supports."""

    name: str
    version: str
    extensions: tuple[str, ...]


class V2Tensor(ResponseBody):
    """An input or output; -1 is a side of any length."""

    name: str
    datatype: str
    shape: list[int]


class V2Model(ResponseBody):
    """A model's inputs, of which either SEED or z, and outputs; or those of a part."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[V2Tensor]
    outputs: list[V2Tensor]


class V2ConfigTensor(ResponseBody, omit_defaults=True):
    """An input or output in the terms of Triton."""

    name: str
    data_type: str
    dims: list[int]
    optional: bool = False


class V2Specific(ResponseBody):
    """The versions that serve requests which name none."""

    versions: list[int]


class V2VersionPolicy(ResponseBody):
    """Which versions are served."""

    specific: V2Specific


class V2Config(ResponseBody):
    """A model's configuration in the terms of Triton."""

    name: str
    platform: str
    backend: str
    max_batch_size: Annotated[int, _meta("0: N is a side of the tensors themselves.")]
    version_policy: V2VersionPolicy
    input: list[V2ConfigTensor]
    output: list[V2ConfigTensor]


class V2Duration(ResponseBody):
    """A count, and the total time in nanoseconds."""

    count: int
    ns: int


class V2Times(ResponseBody):
    """The time spent in each stage."""

    queue: V2Duration
    compute_infer: V2Duration


class V2ModelStats(ResponseBody):
    """Statistics of a version since the server started."""

    name: str
    version: str
    inference_count: Annotated[int, _meta("Images.")]
    execution_count: Annotated[int, _meta("Runs of the model.")]
    inference_stats: V2Times


class V2Stats(ResponseBody):
    """Statistics of each version."""

    model_stats: list[V2ModelStats]


class V2OutputTensor(ResponseBody):
    """An output; without data, parameters.binary_data_size bytes follow the JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


class V2Inference(ResponseBody, kw_only=True):
    """The outputs that the request asked for."""

    model_name: str
    model_version: str
    id: str | msgspec.UnsetType = msgspec.UNSET
    outputs: list[V2OutputTensor]


class V2IndexEntry(ResponseBody):
    """A model of the repository."""

    name: str
    version: Annotated[str, _meta("Empty where none is served.")]
    state: Literal["READY", "UNAVAILABLE"]
    reason: Annotated[str, _meta("Why it is not served, or the share of a candidate.")]
