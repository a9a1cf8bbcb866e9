"""A shortcut for the usual request: POST /v1/generate.

The router needs an ASGI scope, a task and an event for every request, and a second task to watch
the client. That is more work than making a small image. The shortcut goes by callbacks, from the
body's bytes to a ticket and from the images to the answer. Everything else takes the router's path.
Both paths have the same reader of HTTP and the same `Service.start`, and
tests/serving/api/test_fast_path.py compares their answers.

It stays because it pays: the same server answers 1.6 times as many requests a second with it at 8
and at 64 connections, and takes half the CPU time for each at 64 (medians on a busy machine of two
cores; `python benchmarks/serving/fast_path.py`). Below 1.5 times it would not be worth its code.
"""

from serving.api.connection import ServerConnection
from serving.connection.exchange import Exchange
from serving.connection.request_head import Head
from serving.errors import ClientGoneError, Problem
from serving.http.context import RequestContext
from serving.http.memory import Hold
from serving.http.messages import Response, too_large
from serving.keys.key import GENERATE
from serving.observability.requests import log_failure
from serving.process.generation import Generation, Outcome

_ROUTES = frozenset(("/v1/generate", "/predict"))


class FastPathConnection(ServerConnection):
    """The server's connection with the shortcut."""

    def begin(self, head: Head) -> Exchange:
        """Takes the shortcut, unless the router must say why the request can't be answered."""
        line, service = head.line, self.gateway.service
        if line.path not in _ROUTES or line.method != "POST":
            return super().begin(head)
        if head.length > service.settings.max_body_bytes or b"content-encoding" in head.fields:
            return super().begin(head)
        key = None
        if service.access.keys_required:
            key = service.access.find(head.fields.get)
            if key is None or GENERATE not in key.scopes:
                return super().begin(head)
        context = service.recorder.begin(line.path, "POST", head.fields.get)
        context.key, context.makes_images = key, True
        context.peer, context.target = self.peer, line.raw_path
        return GenerateExchange(self, head, context)


class GenerateExchange(Exchange):
    """A generate request, from its body to its images."""

    def __init__(self, connection: ServerConnection, head: Head, context: RequestContext) -> None:
        """The body is to come."""
        super().__init__(head, Hold(connection.connections.memory))
        context.hold = self.hold
        self._connection = connection
        self._gateway = connection.gateway
        self._context = context
        self._body: list[bytes] = []
        self._num_bytes = 0
        self._generation: Generation | None = None  # it waits for images
        if head.expects_continue:
            connection.send_continue()

    def add_body(self, data: bytes) -> None:
        """Keeps some of the body, up to what is allowed."""
        self._body.append(data)
        self._num_bytes += len(data)
        max_bytes = self._gateway.service.settings.max_body_bytes
        if self._num_bytes > max_bytes:  # in chunks: a length was looked at before
            self.fail(too_large(self._num_bytes, max_bytes))

    def end_body(self) -> None:
        """Starts to make the images, or answers from the cache."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        context, service = self._context, self._gateway.service
        try:
            order, scheduling = self._gateway.v1.read_order(body, context.header)
            generation = service.start(order, scheduling, context, self._answer)
        except Exception as error:
            self._answer(error)
        else:
            if not generation.ended:
                self._generation = generation

    def fail(self, problem: Problem) -> None:
        """Answers with the problem."""
        self._body.clear()
        self._answer(problem)

    def cancel(self) -> None:
        """Gives up what was under way: nobody waits for the answer any more."""
        if self._generation is not None:
            self._generation.leave()
        else:
            self._answer(ClientGoneError())

    def _answer(self, outcome: Outcome) -> None:
        self._generation = None
        recorder = self._gateway.service.recorder
        if isinstance(outcome, ClientGoneError):
            recorder.end(self._context, None)
            return
        response = _response(self._context, outcome)
        headers = response.head(recorder.headers(self._context, response))
        sent = self._connection.answer(response.status, headers, response.body)
        recorder.end(self._context, response if sent else None)


def _response(context: RequestContext, outcome: Outcome) -> Response:
    if isinstance(outcome, Response):
        return outcome
    if isinstance(outcome, Problem):
        return Response.problem(outcome)
    log_failure(context, outcome)
    return Response.failure()
