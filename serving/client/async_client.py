"""The asynchronous client: which requests an operation sends, and when it sends them again."""

import asyncio
import datetime
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.client.errors import InvalidRequestError, UnreachableError, error_of
from serving.client.jobs import AsyncJobs
from serving.client.real_images import AsyncRealImages
from serving.client.requests import encoded, listed, rows, rows_of
from serving.client.responses import (
    Answer,
    Model,
    Models,
    Response,
    answer_of,
    file_of,
    made_by,
    picture,
    read,
)
from serving.client.retries import Retries, retry_after
from serving.client.transport import NoResponseError, Transport, check_key

Latents = npt.NDArray[np.floating[Any]] | Sequence[Sequence[float]]

_JSON = {"content-type": "application/json"}


class AsyncClient(AsyncRealImages):
    """Has the methods of `Client` as coroutines. Use it as a context manager, or close it."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: Retries | None = None,
        model: str | None = None,
    ) -> None:
        """Opens no connection yet.

        Args:
            url: the server's, such as http://127.0.0.1:8000.
            api_key: sent as a bearer token.
            timeout_s: for one request with all its attempts; the server is told, too.
            retries: how often and how long to try again; `Retries(attempts=1)` never does.
            model: used where a call names none; needed only where several are served.

        Raises:
            InvalidRequestError: url, api_key or timeout_s is not valid.
        """
        if not 0 < timeout_s < math.inf:
            raise InvalidRequestError(f"timeout_s is {timeout_s}, must be a number of seconds > 0")
        if api_key is not None:
            check_key(api_key)
        self.url = url.rstrip("/")
        self._transport = Transport(self.url)
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._timeout_s = timeout_s
        self._retries = retries or Retries()
        self._model = model
        self._models: dict[str, Model] = {}
        self.jobs = AsyncJobs(self._send, self._save, self._body)
        """Long jobs."""

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
        directions: Mapping[str, float] | None = None,
        styles: Mapping[str, Any] | None = None,
        units_off: Sequence[int] | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Answer:
        """Makes any number of images, and says which model made them.

        It sends as many requests as the server's limits require; each has a deadline of its own.

        Args:
            seeds: integers in 0 .. 2**64 - 1, one image each.
            latents: z itself [N, z_dim], instead of seeds.
            labels: a class for each, or one for all; for conditional models.
            truncation: psi, 0 .. 2.
            directions: units of the model's directions by number or name, for all images.
            units_off: feature maps that are switched off, of models that have units.
            styles: of style models, as {"from": seed, "layers": [...], "truncation": [...]}.
            model: its name; may be left out where one is served.
            version: its number; CURRENT if left out.

        Raises:
            ClientError: of the kind that fits.
        """
        field, values = rows_of({"seeds": seeds, "latents": latents})
        classes = None if labels is None else listed("labels", labels)
        deadline: float | None = self._deadline()
        step = await self._max_rows(model, deadline)
        if isinstance(classes, list) and len(values) > step and len(classes) != len(values):
            raise InvalidRequestError(
                f"labels has {len(classes)} entries for {len(values)} images; "
                "give one for each, or one for all"
            )
        responses: list[Response] = []
        nums_rows: list[int] = []
        for start in range(0, max(1, len(values)), step):
            part = values[start : start + step]
            of_part = classes[start : start + step] if isinstance(classes, list) else classes
            fields = {field: part, "labels": of_part, "format": "npy", "truncation": truncation}
            body = self._body(
                {
                    **fields,
                    "directions": directions,
                    "styles": styles,
                    "units_off": None if units_off is None else list(units_off),
                    "model": model,
                    "version": version,
                }
            )
            responses.append(await self._send("POST", "/v1/generate", body, deadline))
            nums_rows.append(len(part))
            deadline = None  # the first part shared its time with the question for the limits
            if start == 0 and len(values) > step:
                # CURRENT may change between two parts; one version must make all images.
                model, version, _ = made_by(responses[0])
        return answer_of(responses, nums_rows)

    async def generate_array(
        self, seeds: Sequence[int] | int | None = None, **options: Any
    ) -> npt.NDArray[np.uint8]:
        """Makes images [N, H, W, C] uint8; options are those of `answer`."""
        return (await self.answer(seeds, **options)).images

    async def generate(
        self, seeds: Sequence[int] | int | None = None, **options: Any
    ) -> list[Image.Image]:
        """Makes images for Pillow; options are those of `answer`."""
        return (await self.answer(seeds, **options)).pictures()

    async def grid(self, seeds: Sequence[int], **options: Any) -> Image.Image:
        """Makes one image with a tile for each seed; options are fields of POST /v1/generate."""
        return picture(await self.grid_file(seeds, **options))

    async def grid_file(self, seeds: Sequence[int], **options: Any) -> bytes:
        """Makes the image of `grid` as a PNG file."""
        fields = {"seeds": rows("seeds", seeds), "layout": "grid", "format": "png", **options}
        return await self._file("/v1/generate", fields)

    async def encoded(self, seed: int, *, format: str = "png", **options: Any) -> bytes:
        """Makes one image as a file: png, jpeg or webp."""
        return await self._file("/v1/generate", {"seeds": [seed], "format": format, **options})

    async def interpolate(
        self, seeds: Sequence[int], *, format: str = "webp", **options: Any
    ) -> bytes:
        """Makes the walk through the seeds as a file: webp, gif or strip.

        options are fields of POST /v1/interpolate: frames, loop, fps, label, truncation ...
        """
        fields = {"seeds": rows("seeds", seeds), "format": format, **options}
        return await self._file("/v1/interpolate", fields)

    async def models(self) -> list[Model]:
        """Lists every model that is served."""
        return await self._list_models(self._deadline())

    async def model(self, name: str, *, version: int | None = None) -> Model:
        """Describes one model."""
        query = "" if version is None else f"?version={quote(str(version), safe='')}"
        return read(await self._send("GET", f"/v1/models/{quote(name, safe='')}{query}"), Model)

    async def ready(self) -> bool:
        """Asks once whether images can be made now."""
        try:
            response = await self._transport.send(
                "GET", "/readyz", content=None, headers=self._headers, timeout_s=self._timeout_s
            )
        except NoResponseError as error:
            raise _unreachable(error, 1) from error
        return response.status == 200

    async def _list_models(self, deadline: float | None) -> list[Model]:
        models = read(await self._send("GET", "/v1/models", deadline=deadline), Models).models
        self._models = {model.name: model for model in models}
        return models

    async def _file(self, path: str, fields: dict[str, Any]) -> bytes:
        body, deadline = self._body(fields), self._deadline()
        if not self._models:
            await self._list_models(deadline)  # they say which deadlines the server accepts
        return file_of(await self._send("POST", path, body, deadline))

    async def _ask_json(self, path: str, fields: dict[str, Any]) -> Response:
        body, deadline = self._body(fields), self._deadline()
        if not self._models:
            await self._list_models(deadline)  # they say which deadlines the server accepts
        return await self._send("POST", path, body, deadline, accept={"accept": "application/json"})

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        deadline: float | None = None,
        *,
        accept: Mapping[str, str] | None = None,
        again: bool = True,
    ) -> Response:
        """Sends a request until it succeeds or fails for good, at the latest until the deadline.

        Args:
            method: GET, POST ...
            path: of the route.
            body: as JSON.
            deadline: by time.monotonic; that of a new request if None.
            accept: the header, where one is needed.
            again: False where sending it twice would do it twice.

        Raises:
            ClientError: of the kind that fits the last attempt.
        """
        deadline = self._deadline() if deadline is None else deadline
        headers = (self._headers if body is None else self._headers | _JSON) | dict(accept or {})
        attempt = 0
        while True:
            attempt += 1
            left_s = max(0.0, deadline - time.monotonic())
            try:
                response = await self._transport.send(
                    method,
                    path,
                    content=body,
                    headers=headers | self._timeout_header(left_s),
                    timeout_s=left_s,
                )
                if response.status < 300:
                    return response
                now = datetime.datetime.now(datetime.UTC)
                wait_s = retry_after(response.headers.get("retry-after"), now)
                error = error_of(response.status, response.body, wait_s)
            except NoResponseError as reason:
                error = _unreachable(reason, attempt)
            left_s, draw = deadline - time.monotonic(), random.random()
            pause_s = self._retries.pause(
                attempt, error.status, error.retry_after_s, left_s=left_s, draw=draw
            )
            if pause_s is None or not again:
                if error.status == 400:
                    self._models = {}  # its limits may have changed; ask for them again
                raise error
            await asyncio.sleep(pause_s)

    async def _save(self, path: str, write: Callable[[bytes], Any]) -> None:
        """Writes what a path answers, in pieces.

        Raises:
            ClientError: of the kind that fits.
        """
        try:
            response = await self._transport.save(
                path, write, headers=self._headers, timeout_s=self._timeout_s
            )
        except NoResponseError as error:
            raise _unreachable(error, 1) from error
        if response.status >= 300:
            raise error_of(response.status, response.body, None)

    def _body(self, fields: dict[str, Any]) -> bytes:
        """The fields that are not None as JSON, with the client's model where they name none."""
        given = {"model": self._model, **{k: v for k, v in fields.items() if v is not None}}
        return encoded({name: value for name, value in given.items() if value is not None})

    async def _max_rows(self, name: str | None, deadline: float | None) -> int:
        """How many rows one request may have."""
        name = name or self._model
        if not self._models or (name is not None and name not in self._models):
            await self._list_models(deadline)
        models = list(self._models.values())
        known = self._models.get(name) if name else models[0] if len(models) == 1 else None
        if known is None:
            return 1 << 30  # the server will say what is wrong
        pixels = known.image.height * known.image.width
        return max(1, min(known.limits.max_seeds, known.limits.max_image_pixels // pixels))

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout_s

    def _timeout_header(self, left_s: float) -> dict[str, str]:
        """Tells the server when the client stops waiting, as far as the server's limit allows.

        A little less than what is left, so that the server's own 504 still arrives in time.
        """
        if not self._models:
            return {}
        most = min(model.limits.request_timeout_ms for model in self._models.values())
        timeout_ms = round((left_s - min(0.5, left_s / 10)) * 1e3)
        return {"x-request-timeout-ms": str(max(1, min(timeout_ms, most)))}


def _unreachable(error: NoResponseError, attempts: int) -> UnreachableError:
    tried = "" if attempts == 1 else f" after {attempts} attempts"
    return UnreachableError(
        f"no response from the server{tried}: {error}; check that it runs and that the URL is right"
    )
