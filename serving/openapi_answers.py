"""What the server answers as JSON, as types: for openapi.json, whose schemas are made of these.

The handlers write plain dictionaries; a test holds real answers against these types. A field that
is there but isn't named here fails it, and so does one that is named but isn't there.
"""

from typing import Annotated, Any, Literal

import msgspec

from models.manifest import Dataset, ImageSpec, Metric


def _said(text: str, **schema: Any) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra_json_schema=schema or None)


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    """Base: every field is named, and there unless it has a default."""


class ProblemDocument(Answer):
    """RFC 9457, application/problem+json."""

    type: Annotated[str, _said("Stable: programs compare it.", format="uri")]
    title: str
    status: int
    detail: Annotated[str, _said("Field, value, what is allowed, the remedy.")]


class Candidate(Answer):
    """A version on trial beside CURRENT."""

    version: int | None
    share_percent: Annotated[float, _said("Of the seeds, these and no others.")]
    digest: str | None
    refused: Annotated[str | None, _said("Why it takes no part, if it doesn't.")]


class Limits(Answer):
    """What this server takes at once."""

    max_seeds: int
    max_frames: int
    max_image_pixels: Annotated[int, _said("Of all images or frames of a request.")]
    max_body_bytes: int
    request_timeout_ms: int


class Model(Answer):
    """A model and the version that is described."""

    name: str
    version: int
    digest: Annotated[str, _said("SHA-256 over the bundle: what the images depend on.")]
    versions: Annotated[list[int], _said("All that can be asked for.")]
    candidate: Candidate | None
    z_dim: int
    image: ImageSpec
    labels: Annotated[list[str] | None, _said("Names of the classes; null if unconditional.")]
    recipe: str
    dataset: Dataset
    metrics: list[Metric]
    created: str
    limits: Limits


class Models(Answer):
    """Every model that is served."""

    models: list[Model]


class V2Error(Answer):
    """An error as the v2 protocol words it."""

    error: Annotated[str, _said("Field, value, what is allowed, the remedy.")]


class V2Server(Answer):
    """Who answers."""

    name: str
    version: str
    extensions: list[str]


class V2Tensor(Answer):
    """An input or output; -1 is a side of any length."""

    name: str
    datatype: str
    shape: list[int]


class V2Model(Answer):
    """A model's inputs, of which either SEED or z, and outputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[V2Tensor]
    outputs: list[V2Tensor]


class V2ConfigTensor(Answer):
    """An input or output in Triton's words."""

    name: str
    data_type: str
    dims: list[int]
    optional: bool = False


class V2Specific(Answer):
    """Versions that answer where none is named."""

    versions: list[int]


class V2VersionPolicy(Answer):
    """Which versions are served."""

    specific: V2Specific


class V2Config(Answer):
    """A model's configuration in Triton's words."""

    name: str
    platform: str
    backend: str
    max_batch_size: Annotated[int, _said("0: N is a side of the tensors themselves.")]
    version_policy: V2VersionPolicy
    input: list[V2ConfigTensor]
    output: list[V2ConfigTensor]


class V2Duration(Answer):
    """How often, and for how long altogether."""

    count: int
    ns: int


class V2Times(Answer):
    """Where the time went."""

    queue: V2Duration
    compute_infer: V2Duration


class V2ModelStats(Answer):
    """What a version did since the server started."""

    name: str
    version: str
    inference_count: Annotated[int, _said("Images.")]
    execution_count: Annotated[int, _said("Runs of the model.")]
    inference_stats: V2Times


class V2Stats(Answer):
    """What each version did."""

    model_stats: list[V2ModelStats]


class V2OutputTensor(Answer):
    """An output; without data it follows the JSON as parameters.binary_data_size bytes."""

    name: str
    datatype: str
    shape: list[int]
    data: list[int] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


class V2Inference(Answer):
    """The outputs that were asked for."""

    model_name: str
    model_version: str
    outputs: list[V2OutputTensor]
    id: str | msgspec.UnsetType = msgspec.UNSET


class V2IndexEntry(Answer):
    """A model of the repository."""

    name: str
    version: Annotated[str, _said("Empty where none is served.")]
    state: Literal["READY", "UNAVAILABLE"]
    reason: Annotated[str, _said("Why it is not served, or what its part is.")]


ANSWERS: tuple[type[Answer], ...] = (
    ProblemDocument,
    Models,
    V2Error,
    V2Server,
    V2Model,
    V2Config,
    V2Stats,
    V2Inference,
    V2IndexEntry,
)
"""Those that stand for a whole answer, or an entry of one."""
