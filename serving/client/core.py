"""What a client does, without doing it: which requests, what of the answers, when again.

Each operation is a generator that yields `Send` and `Pause` and is given `Reply` or the transport's
exception; the clients only carry them out, one waiting, one awaiting. So both do the same.
"""

import datetime
import io
import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.client.errors import ClientError, ForeignAnswerError, UnreachableError, error_of
from serving.client.retries import Retries, retry_after

NPY = "application/x-npy"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Send:
    """Send this request."""

    method: str
    path: str
    json: dict[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """An answer; names of headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Step = Send | Pause
Outcome = Reply | Exception | None
Flow = Generator[Step, Outcome, Result]


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

    height: int
    width: int
    channels: int


class Limits(msgspec.Struct, frozen=True):
    """What one request may ask for."""

    max_seeds: int
    max_image_pixels: int
    max_frames: int
    request_timeout_ms: int


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


class _Models(msgspec.Struct):
    models: list[Model]


class Core:
    """The operations."""

    def __init__(
        self, *, api_key: str | None, timeout_s: float, retries: Retries, model: str | None
    ) -> None:
        """timeout_s: of one operation's request with all its attempts."""
        self.timeout_s = timeout_s
        self._retries = retries
        self._model = model
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._limits: dict[str, Model] = {}

    def send(self, send: Send) -> Flow[Reply]:
        """One request, as often as it takes."""
        deadline = time.monotonic() + self.timeout_s
        attempt = 0
        while True:
            attempt += 1
            left_s = max(0.001, deadline - time.monotonic())
            headers = {**self._headers, **self._timeout(left_s), **send.headers}
            outcome = yield Send(send.method, send.path, send.json, headers)
            status, wait_s = None, None
            if isinstance(outcome, Reply):
                if outcome.status < 300:
                    return outcome
                now = datetime.datetime.now(datetime.UTC)
                status = outcome.status
                wait_s = retry_after(outcome.headers.get("retry-after"), now)
            pause_s = self._retries.pause(
                attempt,
                status,
                wait_s,
                left_s=deadline - time.monotonic(),
                draw=random.random(),
            )
            if pause_s is None:
                raise _error(outcome, wait_s, attempt)
            yield Pause(pause_s)

    def models(self) -> Flow[list[Model]]:
        """Every model that is served."""
        reply = yield from self.send(Send("GET", "/v1/models"))
        models = _read(reply, _Models).models
        self._limits = {model.name: model for model in models}
        return models

    def model(self, name: str, version: int | None) -> Flow[Model]:
        """One model."""
        query = "" if version is None else f"?version={version}"
        reply = yield from self.send(Send("GET", f"/v1/models/{name}{query}"))
        return _read(reply, Model)

    def ready(self) -> Flow[bool]:
        """Can images be made now? Asks once."""
        outcome = yield Send("GET", "/readyz", headers=self._headers)
        if isinstance(outcome, Reply):
            return outcome.status == 200
        raise _error(outcome, None, 1)

    def answer(
        self, rows: dict[str, Any], labels: Sequence[int] | int | None, more: dict[str, Any]
    ) -> Flow[Answer]:
        """Images of any number of rows: as many requests as the server's limits make necessary.

        Whichever version makes the first part makes the others.
        """
        field, values = _rows_of(rows)
        step = yield from self._most(more.get("model"))
        parts = []
        for start in range(0, max(1, len(values)), step):
            part = {field: values[start : start + step], "format": "npy", **self._body(more)}
            if labels is not None:
                whole = isinstance(labels, int)
                part["labels"] = labels if whole else list(labels[start : start + step])  # type: ignore[index]
            reply = yield from self.send(Send("POST", "/v1/generate", part))
            parts.append(reply)
            if len(parts) == 1 and start + step < len(values):
                made_by = reply.headers
                version = made_by.get("x-model-version", "")
                number = int(version) if version.isdigit() else None
                more = {**more, "model": made_by.get("x-model"), "version": number}
        images = np.concatenate([_array(reply) for reply in parts])
        headers = parts[0].headers
        return Answer(
            images=images,
            model=headers["x-model"],
            version=int(headers["x-model-version"]),
            digest=headers["x-model-digest"],
        )

    def file(self, path: str, body: dict[str, Any]) -> Flow[bytes]:
        """What a POST answers, as it is."""
        reply = yield from self.send(Send("POST", path, self._body(body)))
        return reply.body

    def _body(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A request's fields, without those that were left out."""
        body = {"model": self._model, **{k: v for k, v in fields.items() if v is not None}}
        return {name: value for name, value in body.items() if value is not None}

    def _most(self, name: str | None) -> Flow[int]:
        """Rows that one request may have."""
        name = name or self._model
        if not self._limits or (name is not None and name not in self._limits):
            yield from self.models()
        models = list(self._limits.values())
        known = self._limits.get(name) if name else models[0] if len(models) == 1 else None
        if known is None:
            return 1 << 30  # the server will say what is wrong
        limits, image = known.limits, known.image
        return max(
            1, min(limits.max_seeds, limits.max_image_pixels // (image.height * image.width))
        )

    def _timeout(self, left_s: float) -> dict[str, str]:
        """Tells the server when nobody waits any more, as far as it lets itself be told."""
        if not self._limits:
            return {}
        most = min(model.limits.request_timeout_ms for model in self._limits.values())
        return {"x-request-timeout-ms": str(max(1, min(round(left_s * 1e3), most)))}


def _rows_of(rows: dict[str, Any]) -> tuple[str, list[Any]]:
    given = {name: values for name, values in rows.items() if values is not None}
    if len(given) != 1:
        raise ClientError(f"{'both' if given else 'neither'} of seeds and latents is given")
    ((field, values),) = given.items()
    if isinstance(values, np.ndarray):
        return field, values.tolist()
    if isinstance(values, int):
        return field, [values]
    return field, list(values)


def _array(reply: Reply) -> npt.NDArray[np.uint8]:
    if reply.headers.get("content-type") != NPY:
        raise ForeignAnswerError(
            f"the answer is {reply.headers.get('content-type')!r}, not {NPY}; is this the server?",
            status=reply.status,
        )
    images: npt.NDArray[np.uint8] = np.load(io.BytesIO(reply.body), allow_pickle=False)
    return images


def _read(reply: Reply, kind: type[Result]) -> Result:
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ForeignAnswerError(
            f"the answer can't be read: {error}; is this the server?", status=reply.status
        ) from error


def _error(outcome: Outcome, retry_after_s: float | None, attempts: int) -> ClientError:
    if isinstance(outcome, Reply):
        return error_of(outcome.status, outcome.body, retry_after_s)
    times = "" if attempts == 1 else f", {attempts} times"
    return UnreachableError(f"nobody answered{times}: {outcome}; is the server up, the URL right?")
