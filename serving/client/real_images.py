"""What the clients do with real images: files in any form become parts of a request.

An image is given as the bytes of a file, a path, an image of Pillow or an array (uint8 or uint16,
[H, W] or [H, W, C]). `AsyncClient` has the methods of `AsyncRealImages`, `Client` those of
`RealImages`, which wait.
"""

import base64
import io
import numbers
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.client.background import Background
from serving.client.errors import InvalidRequestError
from serving.client.real_image_answers import (
    Answers,
    Inverted,
    Latents,
    Restored,
    Score,
    Scores,
    floats_of,
    map_of,
    picture_of,
    read_images,
)
from serving.client.responses import Response, picture

Given = bytes | str | Path | Image.Image | npt.NDArray[Any]
"""An image: the bytes of a file, a path, an image of Pillow, an array."""


class AsyncRealImages:
    """The methods for real images of `AsyncClient`; each raises the ClientError that fits.

    Common arguments: model and version as everywhere; label or labels, the class, which
    conditional models need unless they find it; fit, what becomes of another size than the
    model's: exact (refused), crop, stretch.
    """

    async def _ask_json(self, path: str, fields: dict[str, Any]) -> Response:
        """POSTs fields, and accepts JSON alone."""
        raise NotImplementedError

    async def encode(
        self,
        images: Sequence[Given],
        *,
        labels: Sequence[int] | int | None = None,
        fit: str = "exact",
        reconstruct: bool = False,
        model: str | None = None,
        version: int | None = None,
    ) -> list[Inverted]:
        """Finds the latents of images; reconstruct: tells what the model makes of them, too."""
        fields = {
            "images": [_file(each) for each in images],
            "labels": _classes(labels, "labels"),
            "fit": fit,
            "reconstruct": reconstruct,
            "model": model,
            "version": version,
        }
        found = read_images(await self._ask_json("/v1/encode", fields), Latents, len(images))
        return [
            Inverted(
                latent=np.array(each.latent, np.float32),
                label=each.label,
                label_scores=floats_of(each.label_scores),
                error=each.error,
                reconstruction=picture_of(each.reconstruction),
            )
            for each in found.images
        ]

    async def edit(
        self,
        image: Given,
        *,
        directions: Mapping[str, float] | None = None,
        styles: Mapping[str, Any] | None = None,
        label: int | None = None,
        fit: str = "exact",
        model: str | None = None,
        version: int | None = None,
    ) -> Restored:
        """Changes an image along directions or styles; the rest of it stays."""
        given = {"directions": directions, "styles": styles, "fit": fit}
        return await self._restored("/v1/edit", image, label, model, version, given)

    async def inpaint(
        self,
        image: Given,
        mask: Given | None = None,
        *,
        seeds: Sequence[int] | None = None,
        label: int | Sequence[int] | None = None,
        fit: str = "exact",
        model: str | None = None,
        version: int | None = None,
    ) -> Restored:
        """Fills what is white in the mask or transparent in the image; an answer for each seed.

        label: of all answers, or one for each.
        """
        given = {
            "mask": None if mask is None else _file(mask),
            "seeds": None if seeds is None else list(seeds),
            "fit": fit,
        }
        return await self._restored("/v1/inpaint", image, label, model, version, given)

    async def upscale(
        self,
        image: Given,
        *,
        seeds: Sequence[int] | None = None,
        label: int | Sequence[int] | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Restored:
        """Enlarges a small image to the model's size; an answer for each seed.

        label: of all answers, or one for each.
        """
        given = {"seeds": None if seeds is None else list(seeds)}
        return await self._restored("/v1/upscale", image, label, model, version, given)

    async def score(
        self,
        images: Sequence[Given],
        *,
        labels: Sequence[int] | int | None = None,
        fit: str = "exact",
        maps: bool = False,
        model: str | None = None,
        version: int | None = None,
    ) -> list[Score]:
        """Says how unusual images are for a model; maps: where, too."""
        fields = {
            "images": [_file(each) for each in images],
            "labels": _classes(labels, "labels"),
            "fit": fit,
            "maps": maps,
            "model": model,
            "version": version,
        }
        found = read_images(await self._ask_json("/v1/score", fields), Scores, len(images))
        return [
            Score(each.score, each.p, each.label, map_of(each), picture_of(each.reconstruction))
            for each in found.images
        ]

    async def _restored(
        self,
        path: str,
        image: Given,
        label: int | Sequence[int] | None,
        model: str | None,
        version: int | None,
        given: dict[str, Any],
    ) -> Restored:
        fields = {
            "image": _file(image),
            "label": _classes(label, "label"),
            "model": model,
            "version": version,
        }
        found = read_images(await self._ask_json(path, fields | given), Answers, None)
        return Restored(
            images=[picture(each.data) for each in found.images],
            files=[each.data for each in found.images],
            errors=[each.error for each in found.images],
            label=found.images[0].label,
            labels=[each.label for each in found.images],
            note=found.note,
            spread=found.spread,
            spread_map=picture_of(found.spread_map),
            model=found.model,
            version=found.version,
            digest=found.digest,
        )


class RealImages:
    """The same methods for callers that wait; they take the same arguments."""

    _background: Background
    _client: AsyncRealImages

    def encode(self, images: Sequence[Given], **options: Any) -> list[Inverted]:
        """Finds the latents of images, as `AsyncClient.encode`."""
        return self._background.run(self._client.encode, images, **options)

    def edit(self, image: Given, **options: Any) -> Restored:
        """Changes an image along directions or styles, as `AsyncClient.edit`."""
        return self._background.run(self._client.edit, image, **options)

    def inpaint(self, image: Given, mask: Given | None = None, **options: Any) -> Restored:
        """Fills a part of an image, as `AsyncClient.inpaint`."""
        return self._background.run(self._client.inpaint, image, mask, **options)

    def upscale(self, image: Given, **options: Any) -> Restored:
        """Enlarges a small image, as `AsyncClient.upscale`."""
        return self._background.run(self._client.upscale, image, **options)

    def score(self, images: Sequence[Given], **options: Any) -> list[Score]:
        """Says how unusual images are, as `AsyncClient.score`."""
        return self._background.run(self._client.score, images, **options)


def _file(given: Given) -> str:
    """An image as base64 of a file.

    Raises:
        InvalidRequestError: it is none, or can't be read.
    """
    if isinstance(given, str | Path):
        try:
            data = Path(given).read_bytes()
        except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise InvalidRequestError(f"image is {str(given)!r}: {reason}") from None
    elif isinstance(given, Image.Image):
        data = _png(given)
    elif isinstance(given, np.ndarray):
        buffer = io.BytesIO()
        try:
            np.save(buffer, given, allow_pickle=False)
        except ValueError:
            raise InvalidRequestError(
                f"image is an array of {given.dtype}, must be uint8 or uint16, [H, W] or [H, W, C]"
            ) from None
        data = buffer.getvalue()
    elif isinstance(given, bytes | bytearray | memoryview):
        data = bytes(given)
    else:
        raise InvalidRequestError(
            f"image is a {type(given).__name__}, must be a path, the bytes of a file, an image of "
            "Pillow or an array"
        )
    return base64.b64encode(data).decode("ascii")


def _png(image: Image.Image) -> bytes:
    """The file of an image of Pillow.

    Raises:
        InvalidRequestError: PNG can't hold its pixels, or they can't be read.
    """
    buffer = io.BytesIO()
    try:
        image.save(buffer, "PNG")
    except Exception as error:  # Pillow's parsers, which read a file now, raise errors of any kind
        raise InvalidRequestError(
            f"image has mode {image.mode} and can't be written as PNG: {error}; convert it first, "
            "for example image.convert('RGB')"
        ) from None
    return buffer.getvalue()


def _classes(given: int | Iterable[int] | None, field: str) -> int | list[Any] | None:
    """One class or several, by whatever library the numbers are.

    Raises:
        InvalidRequestError: it is neither.
    """
    if given is None or isinstance(given, bool):
        return given
    if isinstance(given, numbers.Integral):
        return int(given)
    try:
        return list(given)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidRequestError(
            f"{field} is {given!r}, must be a whole number, or a list of them"
        ) from None
