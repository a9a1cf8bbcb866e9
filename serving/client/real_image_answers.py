"""What the clients give for real images, and the JSON that it is read from."""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.client.errors import ForeignAnswerError
from serving.client.responses import Response, picture, read

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Inverted:
    """An image's latent."""

    latent: Floats
    """[z_dim]."""
    label: int | None
    label_scores: Floats | None
    """[labels], where the encoder finds the class."""
    error: float | None
    """Mean squared difference from the reconstruction, in parts of the range squared."""
    reconstruction: Image.Image | None


@dataclass(frozen=True)
class Restored:
    """Answers to an image: edited, filled or enlarged."""

    images: list[Image.Image]
    files: list[bytes]
    """The same as PNG, with what the server says of them."""
    errors: list[float]
    """Of each: mean squared difference of the model's own image from what is known."""
    label: int | None
    """Class of the first."""
    labels: list[int | None]
    """Class of each."""
    note: str
    """What must not be forgotten."""
    spread: float | None
    """How far several answers differ, in steps of 1/255; None of one."""
    spread_map: Image.Image | None
    model: str
    version: int
    digest: str


@dataclass(frozen=True)
class Score:
    """How unusual an image is."""

    score: float
    p: float | None
    """Conformal: small is unusual; None where the model has no calibration, or a class was given
    that its encoder would find."""
    label: int | None
    map: Floats | None
    """[H, W], squared difference of each pixel, 0 .. 4, where maps were asked for."""
    reconstruction: Image.Image | None


class Latent(msgspec.Struct, frozen=True):
    """What the server says of one image."""

    latent: list[float]
    label: int | None
    label_scores: list[float] | None
    error: float | None
    reconstruction: bytes | None


class Latents(msgspec.Struct, frozen=True):
    """The body of /v1/encode."""

    images: list[Latent]


class AnswerEntry(msgspec.Struct, frozen=True):
    """One answer."""

    data: bytes
    label: int | None
    error: float


class Answers(msgspec.Struct, frozen=True):
    """The body of /v1/edit, /v1/inpaint and /v1/upscale."""

    model: str
    version: int
    digest: str
    note: str
    images: list[AnswerEntry]
    spread: float | None
    spread_map: bytes | None


class Scored(msgspec.Struct, frozen=True):
    """What the server says of one image."""

    score: float
    p: float | None
    label: int | None
    map: bytes | None
    map_max: float | None
    reconstruction: bytes | None


class Scores(msgspec.Struct, frozen=True):
    """The body of /v1/score."""

    images: list[Scored]


def read_images(response: Response, kind: type[Any], num: int | None) -> Any:
    """The answer, with as many images as were sent, or at least one.

    Raises:
        ForeignAnswerError: it is another one.
    """
    found = read(response, kind)
    if len(found.images) != num if num is not None else not found.images:
        raise ForeignAnswerError(
            f"the response has {len(found.images)} images, expected {num or 'at least 1'}; check "
            "that the URL is the server's, and what proxies do on the way",
            status=response.status,
        )
    return found


def picture_of(data: bytes | None) -> Image.Image | None:
    """An image for Pillow, where there is one."""
    return None if data is None else picture(data)


def floats_of(values: list[float] | None) -> Floats | None:
    """An array of numbers, where there are some."""
    return None if values is None else np.array(values, np.float32)


def map_of(each: Scored) -> Floats | None:
    """The map of a score in its own units, where there is one."""
    if each.map is None or each.map_max is None:
        return None
    return np.asarray(picture(each.map), np.float32) * np.float32(each.map_max / 255)
