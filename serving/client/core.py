"""What a client does, without doing it: which requests, what of the answers, when again.

Each operation is a generator that yields `Send` and `Pause` and is given `Reply` or the transport's
exception; the clients only carry them out, one waiting, one awaiting. So both do the same.
"""

import datetime
import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import quote

from serving.client.answers import Answer, Model, Models, Reply, answer_of, file_of, made_by, read
from serving.client.bodies import encoded, listed, rows_of
from serving.client.errors import ClientError, InvalidRequestError, UnreachableError, error_of
from serving.client.retries import Retries, retry_after

Result = TypeVar("Result")


@dataclass(frozen=True)
class Send:
    """Send this request, and have the whole answer in timeout_s."""

    method: str
    path: str
    content: bytes | None = None
    """JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 0.0


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


Step = Send | Pause
Outcome = Reply | Exception | None
Flow = Generator[Step, Outcome, Result]


class Core:
    """The operations."""

    def __init__(
        self, *, api_key: str | None, timeout_s: float, retries: Retries, model: str | None
    ) -> None:
        """timeout_s: of one operation's request with all its attempts."""
        self._timeout_s = timeout_s
        self._retries = retries
        self._model = model
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._models: dict[str, Model] = {}

    def send(self, send: Send, deadline: float | None = None) -> Flow[Reply]:
        """One request, as often as it takes; with all its attempts it ends at the deadline."""
        deadline = self._deadline() if deadline is None else deadline
        attempt = 0
        while True:
            attempt += 1
            left_s = max(0.0, deadline - time.monotonic())
            headers = {**self._headers, **self._timeout(left_s), **send.headers}
            outcome = yield replace(send, headers=headers, timeout_s=left_s)
            status, wait_s = None, None
            if isinstance(outcome, Reply):
                if outcome.status < 300:
                    return outcome
                now = datetime.datetime.now(datetime.UTC)
                status = outcome.status
                wait_s = retry_after(outcome.headers.get("retry-after"), now)
            elif isinstance(outcome, ClientError):
                raise outcome
            pause_s = self._retries.pause(
                attempt,
                status,
                wait_s,
                left_s=deadline - time.monotonic(),
                draw=random.random(),
            )
            if pause_s is None:
                if status == 400:
                    self._models = {}  # limits may have changed
                raise _error(outcome, wait_s, attempt)
            yield Pause(pause_s)

    def models(self, deadline: float | None = None) -> Flow[list[Model]]:
        """Every model that is served."""
        reply = yield from self.send(Send("GET", "/v1/models"), deadline)
        models = read(reply, Models).models
        self._models = {model.name: model for model in models}
        return models

    def model(self, name: str, version: int | None) -> Flow[Model]:
        """One model."""
        query = "" if version is None else f"?version={quote(str(version), safe='')}"
        reply = yield from self.send(Send("GET", f"/v1/models/{quote(name, safe='')}{query}"))
        return read(reply, Model)

    def ready(self) -> Flow[bool]:
        """Can images be made now? Asks once."""
        outcome = yield Send("GET", "/readyz", headers=self._headers, timeout_s=self._timeout_s)
        if isinstance(outcome, Reply):
            return outcome.status == 200
        raise outcome if isinstance(outcome, ClientError) else _error(outcome, None, 1)

    def answer(
        self, rows: dict[str, Any], labels: Sequence[int] | int | None, more: dict[str, Any]
    ) -> Flow[Answer]:
        """Images of any number of rows: as many requests as the server's limits make necessary.

        Whichever version makes the first part makes the others. Each has a deadline of its own.
        """
        field, values = rows_of(rows)
        classes = None if labels is None else listed("labels", labels)
        deadline: float | None = self._deadline()
        step = yield from self._most(more.get("model"), deadline)
        if isinstance(classes, list) and len(values) > step and len(classes) != len(values):
            raise InvalidRequestError(
                f"labels has {len(classes)} entries for {len(values)} images; "
                "give one for each, or one for all"
            )
        replies: list[Reply] = []
        nums_rows = []
        for start in range(0, max(1, len(values)), step):
            labels = classes[start : start + step] if isinstance(classes, list) else classes
            part = {field: values[start : start + step], "labels": labels, "format": "npy", **more}
            reply = yield from self._post("/v1/generate", self._body(part), deadline)
            deadline = None
            if not replies and start + step < len(values):
                model, version, _ = made_by(reply)
                more = {**more, "model": model, "version": version}
            replies.append(reply)
            nums_rows.append(len(part[field]))
        return answer_of(replies, nums_rows)

    def file(self, path: str, fields: dict[str, Any]) -> Flow[bytes]:
        """The file that a POST answers, as it is."""
        body = self._body(fields)
        deadline = self._deadline()
        if not self._models:
            yield from self.models(deadline)  # so that the server can be told the deadline
        return file_of((yield from self._post(path, body, deadline)))

    def _post(self, path: str, body: bytes, deadline: float | None) -> Flow[Reply]:
        headers = {"content-type": "application/json"}
        return (yield from self.send(Send("POST", path, body, headers), deadline))

    def _body(self, fields: dict[str, Any]) -> bytes:
        """A request's fields, without those that were left out."""
        given = {"model": self._model, **{k: v for k, v in fields.items() if v is not None}}
        return encoded({name: value for name, value in given.items() if value is not None})

    def _most(self, name: str | None, deadline: float | None) -> Flow[int]:
        """Rows that one request may have."""
        name = name or self._model
        if not self._models or (name is not None and name not in self._models):
            yield from self.models(deadline)
        models = list(self._models.values())
        known = self._models.get(name) if name else models[0] if len(models) == 1 else None
        if known is None:
            return 1 << 30  # the server will say what is wrong
        limits, image = known.limits, known.image
        return max(
            1, min(limits.max_seeds, limits.max_image_pixels // (image.height * image.width))
        )

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout_s

    def _timeout(self, left_s: float) -> dict[str, str]:
        """Tells the server when nobody waits any more, as far as it lets itself be told.

        A little less than what is left, so that its own words still come in time.
        """
        if not self._models:
            return {}
        most = min(model.limits.request_timeout_ms for model in self._models.values())
        told_ms = round((left_s - min(0.5, left_s / 10)) * 1e3)
        return {"x-request-timeout-ms": str(max(1, min(told_ms, most)))}


def _error(outcome: Outcome, retry_after_s: float | None, attempts: int) -> ClientError:
    if isinstance(outcome, Reply):
        return error_of(outcome.status, outcome.body, retry_after_s)
    times = "" if attempts == 1 else f", {attempts} times"
    why = str(outcome) or type(outcome).__name__
    return UnreachableError(f"nobody answered{times}: {why}; is the server up, the URL right?")
