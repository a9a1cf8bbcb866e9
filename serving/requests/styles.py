"""The styles that a request mixes: their JSON, how it is checked, and how it is one text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from models.bundle.directions import IN_W, Applied, DirectionError
from models.bundle.styles import StyleInfo
from models.errors import BundleError
from models.image_metadata import written_styles
from models.latents import latents
from serving.dispatch.catalogue import Served
from serving.dispatch.tickets import Styled
from serving.errors import InvalidRequestProblem, UnavailableProblem, quoted
from serving.requests.directions import directions_of
from serving.requests.rules import as_seeds, check_seeds

FROM, LAYERS, TRUNCATION = "styles.from", "styles.layers", "styles.truncation"
FIELDS = (FROM, LAYERS, TRUNCATION)
"""The parts of `styles` where a request is plain text: an image's URL, parameters of v2."""
_MAX_TRUNCATION = 2.0
_LAYERS = re.compile(r"[0-9]{1,4}(,[0-9]{1,4})*")


class StylesRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Some styles from another seed, and a truncation for each."""

    from_: Annotated[
        int | str | None,
        msgspec.Meta(description="The seed that the layers' styles come from, with layers."),
    ] = msgspec.field(default=None, name="from")
    layers: Annotated[
        list[int] | None,
        msgspec.Meta(description="Numbers of styles, the coarsest is 0; they come from `from`."),
    ] = None
    truncation: Annotated[
        list[float] | None,
        msgspec.Meta(description="psi of each style, in place of one truncation for all."),
    ] = None


@dataclass(frozen=True)
class Choice:
    """A checked choice of styles."""

    styled: Styled
    text: str
    """The same choice is the same text."""
    words: str
    """The request's field as JSON, alike for the same choice; empty where it had none."""

    @property
    def key(self) -> str:
        """What the bytes of an image's file depend on: the pixels, and its words."""
        return f"{self.text};{self.words}"


def styles_from_text(given: Mapping[str, str]) -> StylesRequest | None:
    """Reads `FIELDS` as text: a seed, numbers of styles with commas, a psi for each with commas.

    None where none of them is given.

    Raises:
        InvalidRequestProblem: one can't be read.
    """
    if not given.keys() & set(FIELDS):
        return None
    layers, psi = given.get(LAYERS), given.get(TRUNCATION)
    if layers is not None and not _LAYERS.fullmatch(layers):
        raise InvalidRequestProblem(
            f"{LAYERS} is {quoted(layers)}, must be numbers of styles with commas, such as 4,5,6"
        )
    try:
        truncation = None if psi is None else [float(part) for part in psi.split(",")]
    except ValueError:
        raise InvalidRequestProblem(
            f"{TRUNCATION} is {quoted(psi)}, must be numbers with commas, one for each style, "
            "such as 0.5,0.7,1"
        ) from None
    return StylesRequest(
        from_=given.get(FROM),
        layers=None if layers is None else [int(part) for part in layers.split(",")],
        truncation=truncation,
    )


def styles_of(served: Served) -> StyleInfo:
    """What a version says of its styles.

    Raises:
        InvalidRequestProblem: its graph isn't in two parts.
        UnavailableProblem: the file can't be read at the moment, or was altered.
    """
    name, version = served.key
    try:
        found = served.styles
    except BundleError:
        raise UnavailableProblem(
            f"the styles of model {name!r} (version {version}) can't be read; the file was "
            "altered, or its storage is away: ask again, or ask who runs this server"
        ) from None
    if found is None:
        raise InvalidRequestProblem(
            f"styles: model {name!r} (version {version}) has none; leave them out, or ask for a "
            "model of the family 'style' that this release has exported"
        )
    return found


def choice(
    request: StylesRequest | None, psi: float, directions: tuple[Applied, ...], served: Served
) -> Choice | None:
    """Decides which styles a request's images have; None where the whole graph makes them.

    Args:
        request: what the client sent.
        psi: truncation of the styles that have none of their own.
        directions: of the request; those of w are applied here.
        served: the version.

    Raises:
        InvalidRequestProblem: the model has no styles, or not these.
        UnavailableProblem: they can't be read.
    """
    in_w = [each for each in directions if each.set in IN_W]
    if request is None and not in_w:
        return None
    info = styles_of(served)
    has_words = request is not None
    request = request or StylesRequest()
    values = _truncation(request, psi, info)
    take = _layers(request, info)
    other, first = None, None
    text = f"psi={','.join(map(repr, values.tolist()))}"
    if take is not None:
        assert request.from_ is not None
        seeds = as_seeds([request.from_], field="styles.from")
        check_seeds(seeds, field="styles.from")
        first = seeds[0]
        other = latents(np.array(seeds, np.uint64), served.manifest.z_dim)[0]
        text += f";from={first};layers={','.join(map(str, np.flatnonzero(take)))}"
    shift = None
    if in_w:
        try:
            shift = directions_of(served).shift_of_styles(in_w, info.num_styles)
        except DirectionError as error:
            raise InvalidRequestProblem(str(error)) from None
    words = written_styles(first, request.layers, request.truncation) if has_words else ""
    return Choice(Styled(values, other, take, shift), text, words)


def _truncation(request: StylesRequest, psi: float, info: StyleInfo) -> npt.NDArray[np.float32]:
    given = request.truncation
    if given is None:
        return np.full(info.num_styles, psi, np.float32)
    if len(given) != info.num_styles:
        raise InvalidRequestProblem(
            f"styles.truncation has {len(given)} numbers, this model has {info.num_styles} styles; "
            "give one for each"
        )
    for index, value in enumerate(given):
        if not 0 <= value <= _MAX_TRUNCATION:
            raise InvalidRequestProblem(
                f"styles.truncation[{index}] is {value:g}, allowed are 0 .. {_MAX_TRUNCATION:g}"
            )
    return np.array(given, np.float32)


def _layers(request: StylesRequest, info: StyleInfo) -> npt.NDArray[np.float32] | None:
    given = request.layers
    if (given is None) != (request.from_ is None):
        there, missing = ("from", "layers") if given is None else ("layers", "from")
        raise InvalidRequestProblem(
            f"styles.{there} is given without styles.{missing}; give both, or neither"
        )
    if given is None:
        return None
    if len(given) > info.num_styles:  # they stand in every image's file
        raise InvalidRequestProblem(
            f"styles.layers has {len(given)} entries, this model has {info.num_styles} styles; "
            "name each once"
        )
    for index, layer in enumerate(given):
        if not 0 <= layer < info.num_styles:
            raise InvalidRequestProblem(
                f"styles.layers[{index}] is {quoted(layer)}, allowed are 0 .. {info.num_styles - 1}"
            )
    take = np.zeros(info.num_styles, np.float32)
    take[given] = 1
    return take
