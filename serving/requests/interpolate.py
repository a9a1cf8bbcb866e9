"""Requests for a walk from one latent to another: their JSON, and how it is checked."""

from typing import Annotated, Literal

import msgspec
import numpy as np

from models.animation import evenly
from models.latents import latents, walk
from serving.dispatch.catalogue import Catalogue
from serving.encoding.bodies import Animated, Encoding, Tiled
from serving.encoding.formats import ANIMATIONS, FORMATS
from serving.errors import InvalidRequestProblem, quoted
from serving.http.json_body import decode
from serving.http.negotiation import choose
from serving.requests.directions import Amounts, applied
from serving.requests.generate import Order, Truncation, Version
from serving.requests.rules import (
    as_latents,
    as_seeds,
    check_labels,
    check_pixels,
    check_seeds,
    check_sides,
    either,
    most_values,
)
from serving.requests.styles import StylesRequest, choice
from serving.requests.units import UnitsOff, switched_off
from serving.settings import Settings

_FPS = 20.0


class InterpolateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Waypoints, by seeds or latents, and how to walk between them."""

    model: Annotated[
        str | None,
        msgspec.Meta(description="Name of the model; may be absent if only one is served."),
    ] = None
    version: Version = None
    seeds: Annotated[
        list[int | str] | None,
        msgspec.Meta(description="Two or more waypoints, as seeds: numbers, or strings of digits."),
    ] = None
    latents: Annotated[
        list[list[float]] | None, msgspec.Meta(description="Two or more waypoints, as latents.")
    ] = None
    label: Annotated[
        int | None,
        msgspec.Meta(description="The class of every frame; conditional models need it."),
    ] = None
    truncation: Truncation = 1.0
    directions: Amounts = None
    styles: Annotated[
        StylesRequest | None,
        msgspec.Meta(description="Of style models: every frame has these styles, psi of each."),
    ] = None
    units_off: UnitsOff = None
    frames: Annotated[
        int, msgspec.Meta(ge=2, description="Of the whole walk, evenly spread over its segments.")
    ] = 60
    loop: Annotated[
        bool, msgspec.Meta(description="Go on from the last waypoint to the first.")
    ] = False
    fps: Annotated[
        Annotated[float, msgspec.Meta(ge=1, le=50)] | None,
        msgspec.Meta(description="Frames a second, 20 if absent."),
    ] = None
    durations_ms: Annotated[
        list[Annotated[int, msgspec.Meta(ge=20, le=60_000)]] | None,
        msgspec.Meta(
            description="For how long each frame is shown, in milliseconds, instead of fps; GIF "
            "has hundredths of a second."
        ),
    ] = None
    format: Annotated[
        Literal["webp", "gif", "strip"] | None,
        msgspec.Meta(description="strip: all frames side by side as a PNG; Accept if absent."),
    ] = None


_decoder = msgspec.json.Decoder(InterpolateRequest)


def decode_walk(
    body: bytes | bytearray, catalogue: Catalogue, settings: Settings
) -> InterpolateRequest:
    """Decodes the body of an interpolate request; catalogue and settings: what limits its lists.

    Raises:
        NotJsonProblem: the body isn't JSON.
        InvalidRequestProblem: a field is unknown, or has the wrong type or range.
    """
    most = most_values(catalogue, settings.max_frames)
    return decode(_decoder, body, example='{"seeds": [1, 2], "frames": 30}', most=most)


def walk_order(
    request: InterpolateRequest, catalogue: Catalogue, settings: Settings, accept: bytes | None
) -> Order:
    """Checks a walk against the model that it names, and decides how it is answered.

    Raises:
        InvalidRequestProblem: a field is wrong for this model, or beyond a limit.
        UnknownModelProblem: there is no such model or version.
        UnavailableProblem: the version can't be used.
        NotAcceptableProblem: Accept allows none of the possible media types.
    """
    field, rows = either(request.seeds, request.latents)
    num = len(rows)
    most = min(settings.max_frames, settings.max_seeds)
    if not 2 <= num <= most:
        raise InvalidRequestProblem(f"{field} has {num} waypoints, allowed are 2 .. {most}")
    if not num <= request.frames <= settings.max_frames:
        raise InvalidRequestProblem(
            f"frames is {quoted(request.frames)}, allowed are {num} (the waypoints) .. "
            f"{settings.max_frames}; split the walk"
        )
    seeds = None if request.seeds is None else as_seeds(request.seeds)
    served = catalogue.resolve(request.model, request.version, seeds)
    check_pixels(request.frames, served, settings)
    z_dim = served.manifest.z_dim
    if seeds is not None:
        check_seeds(seeds)
        waypoints = latents(np.array(seeds, np.uint64), z_dim)
    else:
        waypoints = as_latents(request.latents or [], z_dim)
    directions = applied(request.directions, served)
    styles = choice(request.styles, request.truncation, directions, served)
    offers = _offers(request)
    encoding = offers[choose(accept, tuple(offers))]
    if isinstance(encoding, Tiled):
        check_sides(encoding, request.frames, served)
    return Order(
        served=served,
        seeds=None,
        z=walk(waypoints, request.frames, loop=request.loop),
        labels=check_labels(request.label, request.frames, served, field="label"),
        psi=request.truncation,
        directions=directions,
        styles=styles,
        off=switched_off(request.units_off, served, is_styled=styles is not None),
        encoding=encoding,
    )


def _offers(request: InterpolateRequest) -> dict[str, Encoding]:
    durations_ms = _durations_ms(request)
    offers: dict[str, dict[str, Encoding]] = {
        name: {kind: Animated(kind, encode, durations_ms)}
        for name, (kind, encode) in ANIMATIONS.items()
    }
    png = FORMATS["png"]
    offers["strip"] = {png.media_type: Tiled(png, strip=True)}
    if request.format is not None:
        return offers[request.format]
    return {kind: encoding for entry in offers.values() for kind, encoding in entry.items()}


def _durations_ms(request: InterpolateRequest) -> list[int]:
    """For how long each frame is shown."""
    given = request.durations_ms
    if given is None:
        return evenly([1000 / (request.fps or _FPS)] * request.frames)
    if request.fps is not None:
        raise InvalidRequestProblem("fps and durations_ms are both given; give one of them")
    if request.format == "strip":
        raise InvalidRequestProblem(
            "durations_ms is given, but format is 'strip', which doesn't move; leave it out"
        )
    if len(given) != request.frames:
        raise InvalidRequestProblem(
            f"durations_ms has {len(given)} entries, frames is {request.frames}; give one for each"
        )
    return given
