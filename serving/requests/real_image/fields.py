"""The fields of requests that bring a real image, in JSON or in parts.

In JSON files are base64; in multipart/form-data they are files, and the other fields are text: a
word, or what JSON has in the same place.
"""

from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import msgspec

from serving.errors import InvalidRequestProblem, quoted
from serving.http.json_body import SMALL_BYTES, check_values, decode, in_words
from serving.http.multipart import is_multipart, parts_of
from serving.requests.directions import Amounts
from serving.requests.generate import Version
from serving.requests.styles import StylesRequest

_FILE = (
    "An image file: PNG, JPEG, WebP or npy (uint8 or uint16, [H, W] or [H, W, C]); in JSON as "
    "base64."
)

File = Annotated[bytes, msgspec.Meta(description=_FILE)]
Files = Annotated[
    list[Annotated[bytes, msgspec.Meta(description=_FILE)]],
    msgspec.Meta(description="Image files; each is a row of the answer."),
]
Fit = Annotated[
    Literal["exact", "crop", "stretch"],
    msgspec.Meta(
        description="What becomes of an image of another size than the model's: exact refuses it, "
        "crop scales its middle, stretch scales all of it."
    ),
]
Label = Annotated[
    int | None,
    msgspec.Meta(description="Its class. Conditional models need it, unless they find it."),
]
Labels = Annotated[
    list[int] | int | None,
    msgspec.Meta(
        description="Class of each image, or one for all. Conditional models need it, unless they "
        "find it."
    ),
]
AnswerLabels = Annotated[
    list[int] | int | None,
    msgspec.Meta(
        description="Its class, or one for each seed. Conditional models need it, unless they find "
        "it: then all answers are of the one class that fits them best."
    ),
]
Seeds = Annotated[
    list[int | str] | None,
    msgspec.Meta(
        description="One answer each, the same for the same seed; the single best one if absent."
    ),
]
ImageFormat = Annotated[
    Literal["png", "jpeg", "webp", "npy"] | None,
    msgspec.Meta(
        description="One answer is an image file, several are JSON with base64; npy: all as an "
        "array [N, H, W, C]. Accept if absent; application/json tells figures of one answer, too."
    ),
]
ExactFormat = Annotated[
    Literal["png", "webp", "npy"] | None,
    msgspec.Meta(
        description="As elsewhere; without jpeg, which would change bytes outside the mask."
    ),
]
Model = Annotated[
    str | None,
    msgspec.Meta(description="Name of the model; may be absent if only one is served."),
]


class RealImageRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all of them have."""

    model: Model = None
    version: Version = None


class EncodeRequest(RealImageRequest, frozen=True, kw_only=True):
    """Images whose latents are wanted."""

    images: Files
    labels: Labels = None
    fit: Fit = "exact"
    reconstruct: Annotated[
        bool,
        msgspec.Meta(description="Add what the model makes of the latent, and how close it is."),
    ] = False
    format: Annotated[
        Literal["npy"] | None,
        msgspec.Meta(description="npy: the latents as a float32 array [N, z_dim]; JSON if absent."),
    ] = None


class EditRequest(RealImageRequest, frozen=True, kw_only=True):
    """An image, and what is to change in it."""

    image: File
    label: Label = None
    fit: Fit = "exact"
    directions: Amounts = None
    styles: Annotated[
        StylesRequest | None,
        msgspec.Meta(description="Of style models: styles from another seed, psi of each."),
    ] = None
    format: ImageFormat = None


class InpaintRequest(RealImageRequest, frozen=True, kw_only=True):
    """An image with a part that is to be filled."""

    image: File
    mask: Annotated[
        bytes | None,
        msgspec.Meta(
            description="An image file of the image's size, without transparency: white is to be "
            "filled, black stays. If absent, what is transparent in the image is to be filled."
        ),
    ] = None
    label: AnswerLabels = None
    fit: Fit = "exact"
    seeds: Seeds = None
    format: ExactFormat = None


class UpscaleRequest(RealImageRequest, frozen=True, kw_only=True):
    """A small image."""

    image: Annotated[
        bytes,
        msgspec.Meta(
            description=f"{_FILE} Its sides are a whole part of the model's: 14x14 or 7x7 of 28x28."
        ),
    ]
    label: AnswerLabels = None
    seeds: Seeds = None
    format: ImageFormat = None


class ScoreRequest(RealImageRequest, frozen=True, kw_only=True):
    """Images of which is asked how unusual they are."""

    images: Files
    labels: Labels = None
    fit: Fit = "exact"
    maps: Annotated[
        bool,
        msgspec.Meta(description="Add where each differs, and what the model makes of it."),
    ] = False


Asked = TypeVar("Asked", bound=RealImageRequest)

_FILE_EXAMPLE = '"<base64 of a file>"'
_EXAMPLES: dict[type[RealImageRequest], str] = {
    EncodeRequest: f'{{"images": [{_FILE_EXAMPLE}]}}',
    EditRequest: f'{{"image": {_FILE_EXAMPLE}, "directions": {{"0": 1.5}}}}',
    InpaintRequest: f'{{"image": {_FILE_EXAMPLE}, "mask": {_FILE_EXAMPLE}}}',
    UpscaleRequest: f'{{"image": {_FILE_EXAMPLE}}}',
    ScoreRequest: f'{{"images": [{_FILE_EXAMPLE}]}}',
}
_decoders: dict[type[RealImageRequest], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in _EXAMPLES
}


def read_fields(kind: type[Asked], body: bytes | bytearray, content_type: bytes | None) -> Asked:
    """Reads the body of a request, JSON or multipart.

    Raises:
        NotJsonProblem: it is neither.
        InvalidRequestProblem: a field is unknown, missing, or has the wrong type or range.
    """
    if not is_multipart(content_type):
        return decode(_decoders[kind], body, example=_EXAMPLES[kind])  # type: ignore[no-any-return]
    fields = _fields(kind, body, content_type)
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequestProblem(in_words(str(error), kind, fields)) from None


def _fields(
    kind: type[RealImageRequest], body: bytes | bytearray, content_type: bytes | None
) -> dict[str, Any]:
    """The parts by name; several of one name as a list."""
    known = get_type_hints(kind)
    fields: dict[str, Any] = {}
    for part in parts_of(body, content_type):
        if part.name == "images":
            fields.setdefault("images", []).append(part.data)
            continue
        if part.name in fields:
            raise InvalidRequestProblem(f"{part.name} is given twice; give it once")
        is_bytes = part.name in ("image", "mask")
        if part.is_file and part.name in known and not is_bytes:
            raise InvalidRequestProblem(f"{part.name} is a file, must be text; give it as a field")
        fields[part.name] = part.data if is_bytes or part.is_file else _value(part.name, part.data)
    return fields


def _value(name: str, data: bytes) -> Any:
    """A field's text: a word, or JSON."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidRequestProblem(f"{name} is {quoted(data)}, must be UTF-8") from None
    if name in ("model", "fit", "format"):
        return text
    try:
        if len(data) > SMALL_BYTES:
            check_values(data)
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
