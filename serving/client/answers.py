"""What is answered, and how it is read: images, files, models, problems.

What answers may be another program, or a proxy that changes things on the way. Whatever its bytes
do to a parser is a `ForeignAnswerError`.
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
_REMEDY = "is this the server, or a proxy before it?"

Result = TypeVar("Result")
Positive = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True)
class Reply:
    """An answer; names of headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """Images, and what made them."""

    images: npt.NDArray[np.uint8]
    """[N, H, W, C] uint8, C in 1, 3."""
    model: str
    version: int
    digest: str

    def pictures(self) -> list[Image.Image]:
        """Each image for Pillow, mode L or RGB."""
        return [Image.fromarray(i[:, :, 0] if i.shape[2] == 1 else i) for i in self.images]


class Size(msgspec.Struct, frozen=True):
    """Of a model's images, in pixels."""

    height: Positive
    width: Positive
    channels: Positive


class Limits(msgspec.Struct, frozen=True):
    """What one request may ask for."""

    max_seeds: Positive
    max_image_pixels: Positive
    max_frames: Positive
    request_timeout_ms: Positive


class Model(msgspec.Struct, frozen=True):
    """What the server says of a model."""

    name: str
    version: int
    digest: str
    versions: list[int]
    z_dim: int
    image: Size
    labels: list[str] | None
    limits: Limits


class Models(msgspec.Struct):
    """What GET /v1/models answers."""

    models: list[Model]


def read(reply: Reply, kind: type[Result]) -> Result:
    """An answer in JSON."""
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _foreign(reply, f"the answer can't be read: {error}") from error


def file_of(reply: Reply) -> bytes:
    """A file of an image, an animation or an array, as it is."""
    media_type = reply.headers.get("content-type", "")
    if not media_type.startswith("image/") and media_type != NPY:
        raise _foreign(reply, f"the answer is {media_type!r}, no image")
    return reply.body


def picture(body: bytes) -> Image.Image:
    """A file for Pillow, read to its end."""
    try:
        image = Image.open(io.BytesIO(body))
        image.load()
    except Exception as error:  # Pillow's parsers raise of many kinds
        raise ForeignAnswerError(
            f"the answer can't be read as an image: {error}; {_REMEDY}", status=200
        ) from error
    return image


def answer_of(replies: Sequence[Reply], nums_rows: Sequence[int]) -> Answer:
    """The images of all parts of an answer, each of as many rows as were asked for in it."""
    parts = [_array(reply, num) for reply, num in zip(replies, nums_rows, strict=True)]
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise _foreign(replies[0], f"images of one answer have several shapes {sorted(shapes)}")
    model, version, digest = made_by(replies[0])
    return Answer(images=np.concatenate(parts), model=model, version=version, digest=digest)


def made_by(reply: Reply) -> tuple[str, int, str]:
    """Name, version and digest of the model, as the headers say."""
    names = ("x-model", "x-model-version", "x-model-digest")
    model, version, digest = (reply.headers.get(name, "") for name in names)
    if not (model and digest and version.isascii() and version.isdigit() and len(version) < 20):
        raise _foreign(
            reply,
            f"X-Model is {model!r}, X-Model-Version {version!r}, X-Model-Digest {digest!r}: "
            "not what made the images",
        )
    return model, int(version), digest


def _array(reply: Reply, num_rows: int) -> npt.NDArray[np.uint8]:
    """[N, H, W, C] uint8, a view of the answer: what its header says takes no memory."""
    media_type = reply.headers.get("content-type")
    if media_type != NPY:
        raise _foreign(reply, f"the answer is {media_type!r}, not {NPY}")
    stream = io.BytesIO(reply.body)
    try:
        np.lib.format.read_magic(stream)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        pixels = np.frombuffer(reply.body, np.uint8, offset=stream.tell())
    except Exception as error:  # so does NumPy's
        raise _foreign(reply, f"the answer can't be read as {NPY}: {error}") from error
    whole = len(shape) == 4 and min(shape) > 0 and math.prod(shape) == len(pixels)
    if dtype != np.uint8 or not whole or shape[3] not in (1, 3):
        raise _foreign(
            reply, f"the answer is {len(pixels)} bytes for {dtype} {shape}, no uint8 [N, H, W, C]"
        )
    if shape[0] != num_rows:
        raise _foreign(reply, f"the answer has {shape[0]} images, asked for were {num_rows}")
    return pixels.reshape(shape, order="F" if fortran else "C")


def _foreign(reply: Reply, what: str) -> ForeignAnswerError:
    return ForeignAnswerError(f"{what}; {_REMEDY}", status=reply.status)
