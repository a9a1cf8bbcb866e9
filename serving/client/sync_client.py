"""The client for callers that wait: `AsyncClient`, run on a loop in the background."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.client.async_client import AsyncClient, Latents
from serving.client.background import Background
from serving.client.jobs import Jobs
from serving.client.real_images import RealImages
from serving.client.responses import Answer, Model, picture


class Client(RealImages):
    """Calls the server and waits for its responses. Use it as a context manager, or close it.

    Threads may share one. What Pillow decodes, it decodes in the calling thread.
    """

    _client: AsyncClient

    def __init__(self, url: str, **options: Any) -> None:
        """Takes the arguments of `AsyncClient` and raises its errors."""
        self._client = AsyncClient(url, **options)
        self._background = Background(self._client.close)
        self.url = self._client.url
        self.jobs = Jobs(self._client.jobs, self._background)
        """Long jobs."""

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
        directions: Mapping[str, float] | None = None,
        styles: Mapping[str, Any] | None = None,
        units_off: Sequence[int] | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Answer:
        """Makes any number of images and says which model made them, as `AsyncClient.answer`."""
        return self._background.run(
            self._client.answer,
            seeds,
            latents=latents,
            labels=labels,
            truncation=truncation,
            directions=directions,
            styles=styles,
            units_off=units_off,
            model=model,
            version=version,
        )

    def generate_array(
        self, seeds: Sequence[int] | int | None = None, **options: Any
    ) -> npt.NDArray[np.uint8]:
        """Makes images [N, H, W, C] uint8; options are those of `answer`."""
        return self.answer(seeds, **options).images

    def generate(
        self, seeds: Sequence[int] | int | None = None, **options: Any
    ) -> list[Image.Image]:
        """Makes images for Pillow; options are those of `answer`."""
        return self.answer(seeds, **options).pictures()

    def grid(self, seeds: Sequence[int], **options: Any) -> Image.Image:
        """Makes one image with a tile for each seed; options are fields of POST /v1/generate."""
        return picture(self._background.run(self._client.grid_file, seeds, **options))

    def grid_file(self, seeds: Sequence[int], **options: Any) -> bytes:
        """Makes the image of `grid` as a PNG file, as the server has written it."""
        return self._background.run(self._client.grid_file, seeds, **options)

    def encoded(self, seed: int, *, format: str = "png", **options: Any) -> bytes:
        """Makes one image as a file: png, jpeg or webp."""
        return self._background.run(self._client.encoded, seed, format=format, **options)

    def interpolate(self, seeds: Sequence[int], *, format: str = "webp", **options: Any) -> bytes:
        """Makes the walk through the seeds as a file, with the options of the asynchronous one."""
        return self._background.run(self._client.interpolate, seeds, format=format, **options)

    def models(self) -> list[Model]:
        """Lists every model that is served."""
        return self._background.run(self._client.models)

    def model(self, name: str, *, version: int | None = None) -> Model:
        """Describes one model."""
        return self._background.run(self._client.model, name, version=version)

    def ready(self) -> bool:
        """Asks once whether images can be made now."""
        return self._background.run(self._client.ready)
