"""What a client may send: typed, bounded, checked against the model that it names.

`GenerateRequest` is the JSON; `Order` is the same after every rule was applied, ready for the
batcher. Every refusal names the field, the value, what is allowed and the remedy.
"""

import functools
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from serving.cache import ImageKey
from serving.catalogue import Catalogue, Served
from serving.checks import (
    as_latents,
    check_labels,
    check_pixels,
    check_seeds,
    check_sides,
    either,
)
from serving.decoding import decode, in_words
from serving.encodings import JSON, Alone, Array, Encoding, Listed, OfFiles, Tiled
from serving.errors import InvalidRequestProblem
from serving.images import FORMATS, NPY_MEDIA_TYPE
from serving.negotiation import choose
from serving.settings import Settings

MAX_TRUNCATION = 2.0
MAX_VERSION = 2**31 - 1

Version = Annotated[
    Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)] | None,
    msgspec.Meta(
        description="A version of the model; CURRENT if absent, or what is on trial beside it."
    ),
]
Truncation = Annotated[
    float,
    msgspec.Meta(
        ge=0.0,
        le=MAX_TRUNCATION,
        description="psi: below 1 images are more typical and less varied; 1 changes nothing.",
    ),
]


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either seeds or latents, one image each."""

    model: Annotated[
        str | None,
        msgspec.Meta(description="Name of the model; may be absent if only one is served."),
    ] = None
    version: Version = None
    seeds: Annotated[
        list[int] | None,
        msgspec.Meta(description="Integers in 0 .. 2**64 - 1; the same give the same."),
    ] = None
    latents: Annotated[
        list[list[float]] | None,
        msgspec.Meta(description="z itself: rows of z_dim finite numbers."),
    ] = None
    labels: Annotated[
        list[int] | int | None,
        msgspec.Meta(
            description="Class of each image, or one for all; conditional models need it."
        ),
    ] = None
    truncation: Truncation = 1.0
    format: Annotated[
        Literal["png", "jpeg", "webp", "npy"] | None,
        msgspec.Meta(description="Of each image, or npy for all as an array; Accept if absent."),
    ] = None
    layout: Annotated[
        Literal["list", "grid"], msgspec.Meta(description="grid: all images as tiles of one.")
    ] = "list"


@dataclass(frozen=True, slots=True)
class Order:
    """A request that can be carried out; implements `serving.encodings.Subject`."""

    served: Served
    seeds: list[int] | None
    z: npt.NDArray[np.float32] | None
    labels: list[int] | None
    psi: float
    encoding: Encoding

    @property
    def name(self) -> str:
        """Of the model."""
        return self.served.key[0]

    @property
    def version(self) -> int:
        """Of the model."""
        return self.served.key[1]

    @property
    def digest(self) -> str:
        """Of the model."""
        return self.served.bundle.digest

    def image_key(self, index: int) -> ImageKey | None:
        """What the bytes of one image's file depend on; None where it is no file of a seed."""
        if self.seeds is None or not isinstance(self.encoding, OfFiles):
            return None
        label = None if self.labels is None else self.labels[index]
        seed, kind = self.seeds[index], self.encoding.format.name
        return self.served.bundle.digest, seed, label, self.psi, kind

    @property
    def num_rows(self) -> int:
        """Images that are asked for."""
        rows = self.seeds if self.seeds is not None else self.z
        assert rows is not None
        return len(rows)


_decoder = msgspec.json.Decoder(GenerateRequest)


def decode_request(body: bytes | bytearray) -> GenerateRequest:
    """Reads the body of a generate request.

    Raises:
        NotJsonProblem: it isn't JSON.
        InvalidRequestProblem: a field is unknown, or has the wrong type or range.
    """
    return decode(_decoder, body)


def validated(fields: dict[str, Any]) -> GenerateRequest:
    """A generate request from plain values, under the same rules as JSON.

    Raises:
        InvalidRequestProblem: a field has the wrong type or range.
    """
    try:
        return msgspec.convert(fields, GenerateRequest)
    except msgspec.ValidationError as error:
        raise InvalidRequestProblem(in_words(str(error), GenerateRequest, fields)) from None


def order(
    request: GenerateRequest,
    catalogue: Catalogue,
    settings: Settings,
    accept: bytes | None = None,
    *,
    label_field: str = "labels",
) -> Order:
    """Checks a request against the model that it names, and decides how it is answered.

    label_field: what the client calls them.

    Raises:
        Problem: of the kind that fits.
    """
    field, rows = either(request.seeds, request.latents)
    served = catalogue.resolve(request.model, request.version, request.seeds)
    if not 1 <= len(rows) <= settings.max_seeds:
        raise InvalidRequestProblem(
            f"{field} has {len(rows)} entries, allowed are 1 .. {settings.max_seeds}; "
            "split the request"
        )
    if request.seeds is not None:
        check_seeds(request.seeds)
    check_pixels(len(rows), served, settings)
    if request.format == "npy" and request.layout == "grid":
        raise InvalidRequestProblem(
            "format is 'npy' and layout 'grid': an array holds the images one by one; leave out "
            "layout, or ask for png, jpeg or webp"
        )
    z_dim = served.manifest.z_dim
    offers = _offers(request.format, request.layout == "grid", len(rows) == 1)
    encoding = offers[choose(accept, tuple(offers))]
    if isinstance(encoding, Tiled):
        check_sides(encoding, len(rows), served)
    return Order(
        served=served,
        seeds=request.seeds,
        z=None if request.latents is None else as_latents(request.latents, z_dim),
        labels=check_labels(request.labels, len(rows), served, field=label_field),
        psi=request.truncation,
        encoding=encoding,
    )


@functools.cache
def _offers(asked: str | None, grid: bool, one: bool) -> dict[str, Encoding]:
    """How a request can be answered, by media type, the usual way first."""
    if asked == "npy":
        return {NPY_MEDIA_TYPE: Array()}
    formats = [FORMATS[asked]] if asked else list(FORMATS.values())
    if grid:
        return {entry.media_type: Tiled(entry) for entry in formats}
    offers: dict[str, Encoding] = {}
    if one:
        offers |= {entry.media_type: Alone(entry) for entry in formats}
    offers[JSON] = Listed(formats[0])
    if not asked:
        offers[NPY_MEDIA_TYPE] = Array()
    return offers
