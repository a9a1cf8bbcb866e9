"""The two clients: one waits, the other awaits; what they do is in `serving.client.core`."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.client.addresses import address_of
from serving.client.answers import Answer, Model, picture
from serving.client.background import Background
from serving.client.bodies import rows
from serving.client.core import Core, Flow, Result
from serving.client.errors import InvalidRequestError
from serving.client.retries import Retries
from serving.client.transport import Transport

Latents = npt.NDArray[np.floating[Any]] | Sequence[Sequence[float]]


class Operations:
    """What can be asked for, as flows; how they are carried out is the subclass's."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: Retries | None = None,
        model: str | None = None,
    ) -> None:
        """Connects nothing yet.

        Args:
            url: of the server, as http://127.0.0.1:8000.
            api_key: sent as a bearer token.
            timeout_s: of one request with all its attempts; the server is told, too.
            retries: how patient to be; `Retries(attempts=1)` never asks twice.
            model: to use where a call names none; needed only where several are served.

        Raises:
            InvalidRequestError: url, api_key or timeout_s can't be what is meant.
        """
        if not 0 < timeout_s < math.inf:
            raise InvalidRequestError(f"timeout_s is {timeout_s}, must be a number of seconds > 0")
        if api_key is not None:
            check_key(api_key)
        self.url = url.rstrip("/")
        self._transport = Transport(address_of(self.url))
        self._core = Core(
            api_key=api_key, timeout_s=timeout_s, retries=retries or Retries(), model=model
        )

    def _answer(
        self,
        seeds: Sequence[int] | int | None,
        labels: Sequence[int] | int | None,
        more: dict[str, Any],
    ) -> Flow[Answer]:
        return self._core.answer({"seeds": seeds, "latents": more.pop("latents")}, labels, more)

    def _grid(self, seeds: Sequence[int], options: dict[str, Any]) -> Flow[bytes]:
        body = {"seeds": rows("seeds", seeds), "layout": "grid", "format": "png", **options}
        return self._core.file("/v1/generate", body)

    def _encoded(self, seed: int, format: str, options: dict[str, Any]) -> Flow[bytes]:
        return self._core.file("/v1/generate", {"seeds": [seed], "format": format, **options})

    def _walk(self, seeds: Sequence[int], format: str, options: dict[str, Any]) -> Flow[bytes]:
        body = {"seeds": rows("seeds", seeds), "format": format, **options}
        return self._core.file("/v1/interpolate", body)


def check_key(key: str) -> None:
    """Raises InvalidRequestError where no header can carry an API key; doesn't show it."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidRequestError(
            "the API key must be visible ASCII characters, one or more, and nothing else"
        )


class Client(Operations):
    """Waits for its answers. Use it as a context manager, or close it."""

    def __init__(self, url: str, **options: Any) -> None:
        """See `Operations`."""
        super().__init__(url, **options)
        self._background = Background(self._transport.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._background.end()

    def answer(
        self,
        seeds: Sequence[int] | int | None = None,
        *,
        latents: Latents | None = None,
        labels: Sequence[int] | int | None = None,
        truncation: float = 1.0,
        model: str | None = None,
        version: int | None = None,
    ) -> Answer:
        """Images with what made them; any number of rows, in as many requests as it takes.

        Args:
            seeds: integers in 0 .. 2**64 - 1, one image each.
            latents: z itself [N, z_dim], instead of seeds.
            labels: a class for each, or one for all; for conditional models.
            truncation: psi, 0 .. 2.
            model: which; may be left out where one is served.
            version: which; CURRENT if left out.

        Raises:
            ClientError: of the kind that fits.
        """
        more = {"latents": latents, "truncation": truncation, "model": model, "version": version}
        return self._run(self._answer(seeds, labels, more))

    def generate_array(
        self, seeds: Sequence[int] | int | None = None, **options: Any
    ) -> npt.NDArray[np.uint8]:
        """The images [N, H, W, C] uint8; see `answer`."""
        return self.answer(seeds, **options).images

    def generate(
        self, seeds: Sequence[int] | int | None = None, **options: Any
    ) -> list[Image.Image]:
        """The images for Pillow; see `answer`."""
        return self.answer(seeds, **options).pictures()

    def grid(self, seeds: Sequence[int], **options: Any) -> Image.Image:
        """All images as tiles of one; options are fields of POST /v1/generate."""
        return picture(self._run(self._grid(seeds, options)))

    def encoded(self, seed: int, *, format: str = "png", **options: Any) -> bytes:
        """One image as a file: png, jpeg or webp."""
        return self._run(self._encoded(seed, format, options))

    def interpolate(self, seeds: Sequence[int], *, format: str = "webp", **options: Any) -> bytes:
        """The walk through the seeds as a file: webp, gif or strip.

        options are fields of POST /v1/interpolate: frames, loop, fps, label, truncation ...
        """
        return self._run(self._walk(seeds, format, options))

    def models(self) -> list[Model]:
        """Every model that is served."""
        return self._run(self._core.models())

    def model(self, name: str, *, version: int | None = None) -> Model:
        """One model."""
        return self._run(self._core.model(name, version))

    def ready(self) -> bool:
        """Can images be made now?"""
        return self._run(self._core.ready())

    def _run(self, flow: Flow[Result]) -> Result:
        return self._background.run(lambda: self._transport.run(flow))


class AsyncClient(Operations):
    """Awaits its answers. Use it as an asynchronous context manager, or close it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.close()

    async def answer(
        self,
        seeds: Sequence[int] | int | None = None,
        *,
        latents: Latents | None = None,
        labels: Sequence[int] | int | None = None,
        truncation: float = 1.0,
        model: str | None = None,
        version: int | None = None,
    ) -> Answer:
        """See `Client.answer`."""
        more = {"latents": latents, "truncation": truncation, "model": model, "version": version}
        return await self._run(self._answer(seeds, labels, more))

    async def generate_array(
        self, seeds: Sequence[int] | int | None = None, **options: Any
    ) -> npt.NDArray[np.uint8]:
        """See `Client.generate_array`."""
        return (await self.answer(seeds, **options)).images

    async def generate(
        self, seeds: Sequence[int] | int | None = None, **options: Any
    ) -> list[Image.Image]:
        """See `Client.generate`."""
        return (await self.answer(seeds, **options)).pictures()

    async def grid(self, seeds: Sequence[int], **options: Any) -> Image.Image:
        """See `Client.grid`."""
        return picture(await self._run(self._grid(seeds, options)))

    async def encoded(self, seed: int, *, format: str = "png", **options: Any) -> bytes:
        """See `Client.encoded`."""
        return await self._run(self._encoded(seed, format, options))

    async def interpolate(
        self, seeds: Sequence[int], *, format: str = "webp", **options: Any
    ) -> bytes:
        """See `Client.interpolate`."""
        return await self._run(self._walk(seeds, format, options))

    async def models(self) -> list[Model]:
        """See `Client.models`."""
        return await self._run(self._core.models())

    async def model(self, name: str, *, version: int | None = None) -> Model:
        """See `Client.model`."""
        return await self._run(self._core.model(name, version))

    async def ready(self) -> bool:
        """See `Client.ready`."""
        return await self._run(self._core.ready())

    async def _run(self, flow: Flow[Result]) -> Result:
        return await self._transport.run(flow)
