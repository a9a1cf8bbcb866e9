"""Requests for images of seeds or latents: their JSON, and how it is checked.

`GenerateRequest` is the JSON, typed and bounded. `Order` is a request that was checked against the
model that it names, ready for the batcher. Every refusal names the field, the value, what is
allowed and the remedy.
"""

import functools
import itertools
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from models.bundle.directions import Applied, as_text
from models.image_metadata import MAX_LIST_BYTES, Origin, origin
from models.seed_list import written_seeds
from serving.dispatch.catalogue import Catalogue, Served
from serving.encoding.bodies import JSON, Alone, Array, Encoding, FileEncoding, Listed, Tiled
from serving.encoding.cache import ImageKey
from serving.encoding.formats import FORMATS, NPY_MEDIA_TYPE
from serving.errors import InvalidRequestProblem, quoted
from serving.http.json_body import SMALL_BYTES, decode, in_words
from serving.http.negotiation import choose
from serving.requests.directions import Amounts, applied, directions_of
from serving.requests.rules import (
    as_latents,
    as_seeds,
    check_alpha,
    check_labels,
    check_pixels,
    check_seeds,
    check_sides,
    draw_seeds,
    either,
    most_values,
)
from serving.requests.styles import Choice, StylesRequest, choice
from serving.requests.units import Off, UnitsOff, switched_off
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
    """Seeds, a count of seeds to draw, or latents; one image each."""

    model: Annotated[
        str | None,
        msgspec.Meta(description="Name of the model; may be absent if only one is served."),
    ] = None
    version: Version = None
    seeds: Annotated[
        list[int | str] | None,
        msgspec.Meta(
            description="Integers in 0 .. 2**64 - 1; the same give the same. As strings of digits "
            "where a language rounds numbers above 2**53, as JavaScript does."
        ),
    ] = None
    count: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        msgspec.Meta(
            description="Instead of seeds: how many images of seeds that the server draws. They "
            "follow each other; the header X-Seeds has the first and the last."
        ),
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
    directions: Amounts = None
    styles: Annotated[
        StylesRequest | None,
        msgspec.Meta(description="Of style models: styles from another seed, psi of each."),
    ] = None
    units_off: UnitsOff = None
    format: Annotated[
        Literal["png", "jpeg", "webp", "npy"] | None,
        msgspec.Meta(description="Of each image, or npy for all as an array; Accept if absent."),
    ] = None
    layout: Annotated[
        Literal["list", "grid"], msgspec.Meta(description="grid: all images as tiles of one.")
    ] = "list"


@dataclass(frozen=True)
class Order:
    """A checked request: which images of which version, and how they are encoded."""

    served: Served
    seeds: list[int] | None
    z: npt.NDArray[np.float32] | None
    labels: list[int] | None
    psi: float
    encoding: Encoding
    written_seeds: list[int | str] | None = None
    """The seeds as the client wrote them: numbers or strings; None if they are all numbers."""
    is_drawn: bool = False
    """Whether the server drew the seeds."""
    directions: tuple[Applied, ...] = ()
    """What all images are moved along."""
    styles: Choice | None = None
    """Where they are made of styles, by the graph in two parts."""
    off: Off | None = None
    """Units that are off, by the graph with masks."""

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Headers that tell which model made the images, and of which seeds if it drew them."""
        if not self.is_drawn or self.seeds is None:
            return self.served.headers
        return (*self.served.headers, (b"x-seeds", b"%d-%d" % (self.seeds[0], self.seeds[-1])))

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.served.key[0]

    @property
    def version(self) -> int:
        """Version of the model."""
        return self.served.key[1]

    @property
    def digest(self) -> str:
        """Digest of the model."""
        return self.served.bundle.digest

    def provenance(self, row: int) -> dict[str, str]:
        """Says how one image was made, for its file."""
        return self._origin.words(*self._own(row))

    def told(self, data: bytes, kind: str, row: int) -> bytes:
        """Returns an image's file of some format with the words that `provenance` has."""
        return self._origin.told(data, kind, *self._own(row))

    def _own(self, row: int) -> tuple[int | None, int | None]:
        """Seed and label of an image."""
        return (
            None if self.seeds is None else self.seeds[row],
            None if self.labels is None else self.labels[row],
        )

    @functools.cached_property
    def _origin(self) -> Origin:
        return origin(
            *self.served.key,
            self.digest,
            self.psi,
            as_text(self.directions) if self.directions else "",
            "" if self.styles is None else self.styles.words,
            "" if self.off is None else self.off.text.removeprefix("off="),
        )

    def provenance_of_all(self) -> dict[str, str]:
        """Says how all images were made, for one file that shows them."""
        told: dict[str, str] = {}
        if self.seeds is not None:
            told["seeds"] = written_seeds(self.seeds)
        labels = self.labels or []
        if len(set(labels)) == 1:
            told["label"] = str(labels[0])
        elif labels:
            told["labels"] = ",".join(map(str, labels))
        told = {name: text for name, text in told.items() if len(text) <= MAX_LIST_BYTES}
        return told | self._origin.words()

    @functools.cached_property
    def image_keys(self) -> tuple[ImageKey, ...]:
        """Everything that the bytes of each image's file depend on; () if there are no such files.

        There are none of latents, and none where all images are encoded together.
        """
        if self.seeds is None or not isinstance(self.encoding, FileEncoding):
            return ()
        digest, kind = self.digest, self.encoding.format.name
        moved = as_text(self.directions)
        if self.styles is not None:
            moved += f";{self.styles.key}"
        if self.off is not None:
            moved += f";{self.off.text}"
        labels = self.labels or itertools.repeat(None)
        return tuple(
            (digest, seed, label, self.psi, moved, kind)
            for seed, label in zip(self.seeds, labels, strict=False)
        )

    @property
    def shift(self) -> npt.NDArray[np.float32] | None:
        """What the directions add to the latents, [N, z_dim]; None where they add nothing."""
        if not self.directions:
            return None
        return directions_of(self.served).shift(self.directions, self.num_rows, self.labels)

    @property
    def num_rows(self) -> int:
        """Number of images that are asked for."""
        rows = self.seeds if self.seeds is not None else self.z
        assert rows is not None
        return len(rows)

    @property
    def num_bytes(self) -> int:
        """Memory that making and encoding the images takes at most."""
        image = self.served.manifest.image
        pixels = image.height * image.width * image.channels
        return self.num_rows * pixels * self.encoding.copies


_decoder = msgspec.json.Decoder(GenerateRequest)


def decode_request(
    body: bytes | bytearray, catalogue: Catalogue, settings: Settings
) -> GenerateRequest:
    """Decodes the body of a generate request; catalogue and settings: what limits its lists.

    Raises:
        NotJsonProblem: the body isn't JSON.
        InvalidRequestProblem: a field is unknown, or has the wrong type or range.
    """
    if len(body) <= SMALL_BYTES:
        return decode(_decoder, body)
    return decode(_decoder, body, most=most_values(catalogue, settings.max_seeds))


def validated(fields: dict[str, Any]) -> GenerateRequest:
    """Makes a generate request of plain values, under the same rules as JSON.

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

    Args:
        request: what the client sent.
        catalogue: the versions that can be named.
        settings: the limits.
        accept: the header Accept.
        label_field: the client's name for the labels, for refusals.

    Raises:
        InvalidRequestProblem: a field is wrong for this model, or beyond a limit.
        UnknownModelProblem: there is no such model or version.
        UnavailableProblem: the version can't be used.
        NotAcceptableProblem: Accept allows none of the possible media types.
    """
    field, rows = given_rows(request, settings)
    if not 1 <= len(rows) <= settings.max_seeds:
        raise InvalidRequestProblem(
            f"{field} has {len(rows)} entries, allowed are 1 .. {settings.max_seeds}; "
            "split the request"
        )
    seeds = None if request.latents is not None else as_seeds(rows)
    served = catalogue.resolve(request.model, request.version, seeds)
    if seeds is not None:
        check_seeds(seeds)
    check_pixels(len(rows), served, settings)
    if request.format == "npy" and request.layout == "grid":
        raise InvalidRequestProblem(
            "format is 'npy' and layout 'grid': an array holds the images one by one; leave out "
            "layout, or ask for png, jpeg or webp"
        )
    check_alpha(request.format, served)
    z_dim, has_alpha = served.manifest.z_dim, served.manifest.image.has_alpha
    directions = applied(request.directions, served)
    styles = choice(request.styles, request.truncation, directions, served)
    offers = offers_of(request.format, request.layout == "grid", len(rows) == 1, has_alpha)
    encoding = offers[choose(accept, tuple(offers))]
    if isinstance(encoding, Tiled):
        check_sides(encoding, len(rows), served)
    return Order(
        served=served,
        seeds=seeds,
        z=None if request.latents is None else as_latents(request.latents, z_dim),
        labels=check_labels(request.labels, len(rows), served, field=label_field),
        psi=request.truncation,
        encoding=encoding,
        directions=directions,
        styles=styles,
        off=switched_off(request.units_off, served, is_styled=styles is not None),
        written_seeds=None if seeds is request.seeds else request.seeds,
        is_drawn=request.count is not None,
    )


def given_rows(request: GenerateRequest, settings: Settings) -> tuple[str, Any]:
    """Returns the name and the entries of the field that is given; seeds where it is a count.

    Raises:
        InvalidRequestProblem: none is given or several, or the count is too large.
    """
    if request.count is None:
        return either(request.seeds, request.latents, other=", or count")
    if request.seeds is not None or request.latents is not None:
        other = "latents" if request.seeds is None else "seeds"
        raise InvalidRequestProblem(f"both of count and {other} are given; give one of them")
    if request.count > settings.max_seeds:
        raise InvalidRequestProblem(
            f"count is {quoted(request.count)}, allowed are 1 .. {settings.max_seeds}; "
            "split the request"
        )
    return "count", draw_seeds(request.count)


@functools.cache
def offers_of(asked: str | None, grid: bool, one: bool, has_alpha: bool) -> dict[str, Encoding]:
    """Returns the possible encodings of a response by media type, the default first."""
    if asked == "npy":
        return {NPY_MEDIA_TYPE: Array()}
    formats = [FORMATS[asked]] if asked else list(FORMATS.values())
    formats = [entry for entry in formats if entry.has_alpha or not has_alpha]
    if grid:
        return {entry.media_type: Tiled(entry) for entry in formats}
    offers: dict[str, Encoding] = {}
    if one:
        offers |= {entry.media_type: Alone(entry) for entry in formats}
    offers[JSON] = Listed(formats[0])
    if not asked:
        offers[NPY_MEDIA_TYPE] = Array()
    return offers
