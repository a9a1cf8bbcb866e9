"""Reads responses: images, files and models.

The sender may be another program, or a proxy that changes what passes through it. Whatever its
bytes do to a parser, the caller gets a `ForeignAnswerError`. The types name only the fields that
the client uses: it must also read the responses of older and newer servers.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.client.errors import ForeignAnswerError

NPY = "application/x-npy"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_REMEDY = "check that the URL is the server's, and what proxies do on the way"

Result = TypeVar("Result")
Positive = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True)
class Response:
    """A complete response; `headers` finds names in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """Images, and the model version that made them."""

    images: npt.NDArray[np.uint8]
    """[N, H, W, C] uint8, C in 1, 3, 4."""
    model: str
    version: int
    digest: str

    def pictures(self) -> list[Image.Image]:
        """Converts each image for Pillow: mode L, RGB or RGBA."""
        return [Image.fromarray(i[:, :, 0] if i.shape[2] == 1 else i) for i in self.images]


class Size(msgspec.Struct, frozen=True):
    """The size of a model's images in pixels, and their channels."""

    height: Positive
    width: Positive
    channels: Positive


class Limits(msgspec.Struct, frozen=True):
    """The largest request that the server accepts."""

    max_seeds: Positive
    max_image_pixels: Positive
    max_frames: Positive
    request_timeout_ms: Positive


class Model(msgspec.Struct, frozen=True):
    """One model in the version that is served."""

    name: str
    version: int
    digest: str
    versions: list[int]
    z_dim: int
    image: Size
    labels: list[str] | None
    limits: Limits


class Models(msgspec.Struct):
    """The body of GET /v1/models."""

    models: list[Model]


def read(response: Response, kind: type[Result]) -> Result:
    """Decodes a response in JSON.

    Raises:
        ForeignAnswerError: it is not JSON of this kind.
    """
    try:
        return msgspec.json.decode(response.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _foreign(response, f"the response can't be read: {error}") from error


def file_of(response: Response) -> bytes:
    """Returns the body of a response that holds an image, an animation or an array.

    Raises:
        ForeignAnswerError: its Content-Type says that it holds something else.
    """
    media_type = response.headers.get("content-type", "")
    if not media_type.startswith("image/") and media_type != NPY:
        raise _foreign(response, f"the response is {media_type!r}, not an image")
    return response.body


def picture(body: bytes) -> Image.Image:
    """Decodes an image file for Pillow, to its end.

    Raises:
        ForeignAnswerError: it is damaged, or not an image.
    """
    try:
        image = Image.open(io.BytesIO(body))
        image.load()
    except Exception as error:  # Pillow's parsers raise errors of many kinds
        raise ForeignAnswerError(
            f"the response can't be read as an image: {error}; {_REMEDY}", status=200
        ) from error
    return image


def answer_of(responses: Sequence[Response], nums_rows: Sequence[int]) -> Answer:
    """Joins the images of all parts; each must hold as many rows as its request asked for.

    Raises:
        ForeignAnswerError: it doesn't, or its headers don't name the model.
    """
    parts = [_array(response, num) for response, num in zip(responses, nums_rows, strict=True)]
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise _foreign(responses[0], f"its parts hold images of several shapes {sorted(shapes)}")
    model, version, digest = made_by(responses[0])
    return Answer(images=np.concatenate(parts), model=model, version=version, digest=digest)


def made_by(response: Response) -> tuple[str, int, str]:
    """Reads name, version and digest of the model from the headers.

    Raises:
        ForeignAnswerError: they are missing or malformed.
    """
    names = ("x-model", "x-model-version", "x-model-digest")
    model, version, digest = (response.headers.get(name, "") for name in names)
    if not (model and digest and version.isascii() and version.isdigit() and len(version) < 20):
        raise _foreign(
            response,
            f"X-Model is {model!r}, X-Model-Version {version!r}, X-Model-Digest {digest!r}: "
            "these headers must name the model that made the images",
        )
    return model, int(version), digest


def check_images(response: Response, num_rows: int) -> None:
    """Checks that a response holds num_rows images, complete: one PNG file, or an array.

    It does not decode the file: a load test has no time for that.

    Raises:
        ForeignAnswerError: it doesn't.
    """
    if num_rows > 1:
        _array(response, num_rows)
        return
    body = file_of(response)
    if not (body.startswith(_PNG_START) and body.endswith(_PNG_END)):
        raise _foreign(response, f"the response is not a complete PNG file ({len(body)} bytes)")


def _array(response: Response, num_rows: int) -> npt.NDArray[np.uint8]:
    """[N, H, W, C] uint8, a view of the body: a header that claims a huge shape costs no memory."""
    media_type = response.headers.get("content-type")
    if media_type != NPY:
        raise _foreign(response, f"the response is {media_type!r}, not {NPY}")
    stream = io.BytesIO(response.body)
    try:
        np.lib.format.read_magic(stream)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        pixels = np.frombuffer(response.body, np.uint8, offset=stream.tell())
    except Exception as error:  # as do NumPy's
        raise _foreign(response, f"the response can't be read as {NPY}: {error}") from error
    whole = len(shape) == 4 and min(shape) > 0 and math.prod(shape) == len(pixels)
    if dtype != np.uint8 or not whole or shape[3] not in (1, 3, 4):
        raise _foreign(
            response,
            f"the response has {len(pixels)} bytes of {dtype} {shape}, not uint8 [N, H, W, C]",
        )
    if shape[0] != num_rows:
        raise _foreign(
            response, f"the response has {shape[0]} images, the request asked for {num_rows}"
        )
    return pixels.reshape(shape, order="F" if fortran else "C")


def _foreign(response: Response, what: str) -> ForeignAnswerError:
    return ForeignAnswerError(f"{what}; {_REMEDY}", status=response.status)
