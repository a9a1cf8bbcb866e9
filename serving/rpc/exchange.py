"""One call, from the fields of its request to its outcome."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from serving.http2.stream import Stream
from serving.keys.key import Key
from serving.rpc.messages import HEAD, OK, RpcError, Status, Unpacker, packed, timeout_ms
from serving.rpc.wire import SMALL_BYTES

logger = logging.getLogger(__name__)

_SMALL_BYTES = 64 << 10  # bodies up to it are not counted, as over HTTP
_LEAST_BYTES = 64  # that a message takes in memory, though it be empty


class Call:
    """What a handler is told of a call, beside its messages."""

    def __init__(self, stream: Stream) -> None:
        """stream: of its request."""
        self.stream = stream
        self.fields = stream.fields
        self.peer = stream.peer
        self._began = time.monotonic()
        self._values: dict[bytes, bytes] = dict(reversed(self.fields))
        self._timeout_ms = timeout_ms(self._values.get)
        self.key: Key | None = None
        """That it came with, once it is let in."""

    def header(self, name: bytes) -> bytes | None:
        """The value of a field by its name; the first where there are several."""
        return self._values.get(name)

    def left_ms(self) -> float:
        """The time that the client still allows; inf where it sets no deadline."""
        if self._timeout_ms is None:
            return math.inf
        return self._timeout_ms - (time.monotonic() - self._began) * 1e3


def _nothing(message: bytes) -> int:
    return 0


@dataclass(frozen=True)
class Method:
    """One of a service."""

    handler: Callable[[Any, Call], Any]
    """A coroutine, of a message or an iterator of messages; or an iterator of answers."""
    parse: Callable[[bytes], Any]
    measure: Callable[[bytes], int] = _nothing
    """The memory that parsing a message takes; RpcError where it shall not be parsed."""
    admit: Callable[[Call], None] | None = None
    """RpcError for a call that isn't let in, whatever its messages are."""
    takes_many: bool = False
    gives_many: bool = False
    shortcut: "Callable[[Any, Exchange], bool] | None" = None
    """Answers by callbacks, where it can: True. Costs less than a coroutine."""


class Exchange:
    """Gathers messages, has them answered, writes the outcome."""

    def __init__(
        self, stream: Stream, method: Method, tasks: set["asyncio.Task[None]"], max_bytes: int
    ) -> None:
        """Waits for the first message.

        Args:
            stream: of the request.
            method: that it asks for.
            tasks: where those that run are kept.
            max_bytes: of a message.
        """
        self.call = Call(stream)
        self.stream = stream
        self.on_cancel: Callable[[], None] | None = None
        """Of a shortcut: the client gives the call up."""
        self._method = method
        self._tasks = tasks
        self._unpacker = Unpacker(self.call.header(b"grpc-encoding"), max_bytes)
        self._messages: deque[bytes] = deque()
        self._num_bytes = 0  # of them, in memory
        self._num_unused = 0  # of the body, for which the client may not send more yet
        self._changed = asyncio.Event() if method.takes_many else None
        self._has_all = False
        self._has_head = False  # of the answer, sent
        self._failure: RpcError | None = None
        self._task: asyncio.Task[None] | None = None
        if method.takes_many:
            stream.due = math.inf
            self._start(self._run(self._coming()))

    # The stream's side.

    def add_data(self, data: bytes) -> None:
        """Takes a part of the body."""
        if self._failure is not None:
            return
        try:
            found = self._unpacker.add(data)
            self._messages += found
            self._num_bytes += sum(max(len(each), _LEAST_BYTES) for each in found)
            self._count()
        except RpcError as error:
            self._fail(error)
            return
        if self._changed is None:
            self.stream.take(len(data))
            if len(self._messages) > 1:
                self._fail(RpcError(Status.UNIMPLEMENTED, "one message is expected"))
        elif found:  # it lasts: what isn't used yet shall not grow
            self._num_unused += len(data)
            self._changed.set()
        else:
            self.stream.take(len(data))

    def end_data(self) -> None:
        """All messages have come."""
        self._has_all = True
        if self._changed is not None:
            self._changed.set()
        elif self._failure is None:
            self._begin()

    def cancel(self) -> None:
        """The client gives the call up."""
        if self.on_cancel is not None:
            self.on_cancel()
        if self._task is not None:
            self._task.cancel()

    # The side of who answers.

    def answer(self, message: bytes) -> None:
        """Ends the call with a message."""
        self.stream.answer(HEAD, packed(message), OK)

    def fail(self, error: RpcError) -> None:
        """Ends the call without one, or after those that were sent."""
        self.stream.end(error.block() if self._has_head else HEAD + error.block())

    def _begin(self) -> None:
        if not self._messages:
            self._fail(RpcError(Status.INTERNAL, "the message is missing, or cut off"))
            return
        method = self._method
        try:
            if method.admit is not None:
                method.admit(self.call)
            request = self._parsed(self._messages.pop())
        except RpcError as error:
            self._fail(error)
            return
        if method.shortcut is None or not method.shortcut(request, self):
            self._start(self._run(request))

    def _count(self) -> None:
        """Counts what is held of the body, where that is much."""
        self._hold(self._unpacker.num_bytes + self._num_bytes)

    def _hold(self, held: int) -> None:
        hold = self.stream.hold
        more = held - hold.num_bytes
        if held > _SMALL_BYTES and more > 0 and not hold.try_add(more):
            raise RpcError(
                Status.RESOURCE_EXHAUSTED,
                "the bytes that may be held for clients are used up; try again in a moment",
                ((b"retry-after", b"1"),),
            )

    def _fail(self, error: RpcError) -> None:
        """Ends the call because of what has come of its request."""
        self._failure = error
        self._messages.clear()
        self._num_bytes = 0
        if self._task is not None:
            self._task.cancel()
        self.fail(error)

    def _parsed(self, message: bytes) -> Any:
        if len(message) > SMALL_BYTES:
            self._hold(self._num_bytes + self._method.measure(message))
        try:
            return self._method.parse(message)
        except DecodeError as error:
            raise RpcError(
                Status.INVALID_ARGUMENT, f"the message can't be decoded: {error}"
            ) from None

    def _start(self, work: Any) -> None:
        task = self._task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _coming(self) -> AsyncIterator[Any]:
        """The messages, as they come."""
        assert self._changed is not None
        if self._method.admit is not None:
            self._method.admit(self.call)
        while True:
            while self._messages:
                message = self._messages.popleft()
                self._num_bytes -= max(len(message), _LEAST_BYTES)
                if not self._messages:
                    self.stream.take(self._num_unused)
                    self._num_unused = 0
                yield self._parsed(message)
            if self._has_all:
                return
            self._changed.clear()
            await self._changed.wait()

    def _send_head(self) -> None:
        if not self._has_head:
            self._has_head = True
            self.stream.send_head(HEAD)

    async def _run(self, request: Any) -> None:
        try:
            found = self._method.handler(request, self.call)
            if not self._method.gives_many:
                answer: Awaitable[Any] = found
                self.answer((await answer).SerializeToString())
                return
            async for message in found:
                self._send_head()
                self.stream.send(packed(message.SerializeToString()))
                await self.stream.taken()
            self._send_head()
            self.stream.end(OK)
        except RpcError as error:
            self.fail(error)
        except asyncio.CancelledError:
            self.fail(RpcError(Status.CANCELLED, "the server stops"))
            raise
        except Exception:
            logger.exception("a call over gRPC failed")
            words = "an unexpected error; it was logged, please report it"
            self.fail(RpcError(Status.INTERNAL, words))
