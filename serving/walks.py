"""What a client may send to see the way from one latent to another: checked, made an order."""

from typing import Annotated, Literal

import msgspec
import numpy as np

from models.interpolation import walk
from models.latents import latents
from serving.catalogue import Catalogue
from serving.checks import (
    as_latents,
    check_labels,
    check_pixels,
    check_seeds,
    check_sides,
    either,
)
from serving.decoding import decode
from serving.encodings import Animated, Encoding, Tiled
from serving.errors import InvalidRequestProblem
from serving.images import ANIMATIONS, FORMATS
from serving.negotiation import choose
from serving.schemas import Order, Truncation, Version
from serving.settings import Settings
from serving.wording import shown


class InterpolateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Waypoints, by seeds or latents, and how to walk between them."""

    model: Annotated[
        str | None,
        msgspec.Meta(description="Name of the model; may be absent if only one is served."),
    ] = None
    version: Version = None
    seeds: Annotated[
        list[int] | None, msgspec.Meta(description="Two or more waypoints, as seeds.")
    ] = None
    latents: Annotated[
        list[list[float]] | None, msgspec.Meta(description="Two or more waypoints, as latents.")
    ] = None
    label: Annotated[
        int | None,
        msgspec.Meta(description="The class of every frame; conditional models need it."),
    ] = None
    truncation: Truncation = 1.0
    frames: Annotated[
        int, msgspec.Meta(ge=2, description="Of the whole walk, evenly spread over its segments.")
    ] = 60
    loop: Annotated[
        bool, msgspec.Meta(description="Go on from the last waypoint to the first.")
    ] = False
    fps: Annotated[float, msgspec.Meta(ge=1, le=50, description="Frames a second.")] = 20.0
    format: Annotated[
        Literal["webp", "gif", "strip"] | None,
        msgspec.Meta(description="strip: all frames side by side as a PNG; Accept if absent."),
    ] = None


_decoder = msgspec.json.Decoder(InterpolateRequest)


def decode_walk(body: bytes | bytearray) -> InterpolateRequest:
    """Reads the body of an interpolate request.

    Raises:
        NotJsonProblem: it isn't JSON.
        InvalidRequestProblem: a field is unknown, or has the wrong type or range.
    """
    return decode(_decoder, body, example='{"seeds": [1, 2], "frames": 30}')


def walk_order(
    request: InterpolateRequest, catalogue: Catalogue, settings: Settings, accept: bytes | None
) -> Order:
    """Checks a walk against the model that it names, and decides how it is answered.

    Raises:
        Problem: of the kind that fits.
    """
    field, rows = either(request.seeds, request.latents)
    num = len(rows)
    most = min(settings.max_frames, settings.max_seeds)
    if not 2 <= num <= most:
        raise InvalidRequestProblem(f"{field} has {num} waypoints, allowed are 2 .. {most}")
    if not num <= request.frames <= settings.max_frames:
        raise InvalidRequestProblem(
            f"frames is {shown(request.frames)}, allowed are {num} (the waypoints) .. "
            f"{settings.max_frames}; split the walk"
        )
    served = catalogue.resolve(request.model, request.version, request.seeds)
    check_pixels(request.frames, served, settings)
    z_dim = served.manifest.z_dim
    if request.seeds is not None:
        check_seeds(request.seeds)
        waypoints = latents(np.array(request.seeds, np.uint64), z_dim)
    else:
        waypoints = as_latents(request.latents or [], z_dim)
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
        encoding=encoding,
    )


def _offers(request: InterpolateRequest) -> dict[str, Encoding]:
    frame_ms = round(1000 / request.fps)
    offers: dict[str, dict[str, Encoding]] = {
        name: {kind: Animated(kind, encode, frame_ms)}
        for name, (kind, encode) in ANIMATIONS.items()
    }
    png = FORMATS["png"]
    offers["strip"] = {png.media_type: Tiled(png, strip=True)}
    if request.format is not None:
        return offers[request.format]
    return {kind: encoding for entry in offers.values() for kind, encoding in entry.items()}
