"""One request for images, from its admission to its response.

Every route that makes images uses this, and so does the fast path, so deadlines, encoding,
disconnects and failures are handled in one place. It works by callbacks: a task for each request
would cost more than a small image. `Service.make` waits for the outcome as a coroutine.
"""

import asyncio
from collections.abc import Callable

from models.bundle.generator import Images
from serving.dispatch.tickets import Ticket
from serving.errors import ClientGoneError, UnavailableProblem, VersionRefusedProblem
from serving.http.memory import Hold
from serving.http.messages import Response
from serving.process.response_encoder import ResponseEncoder
from serving.requests.deadlines import Scheduling
from serving.requests.generate import Order

Outcome = Response | Exception
"""A response; or a Problem, ClientGoneError, or any other exception, which is a defect."""


class Generation:
    """Waits for an order's images, encodes them, and tells the outcome exactly once."""

    def __init__(
        self,
        order: Order,
        on_end: Callable[[Outcome], None],
        *,
        encoder: ResponseEncoder,
        abandon: Callable[[Ticket, str, Exception], None],
        hold: Hold | None = None,
    ) -> None:
        """Does nothing yet.

        Args:
            order: the request.
            on_end: gets the outcome.
            encoder: makes the response.
            abandon: gives a ticket up, for a reason in one word, with an error.
            hold: the memory of the request.
        """
        self._order = order
        self._on_end = on_end
        self._encoder = encoder
        self._abandon = abandon
        self._hold = hold
        self._encoding: asyncio.Task[None] | None = None
        self._ticket: Ticket
        self._on_left: Callable[[Ticket], None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.ended = False

    def end(self, outcome: Outcome) -> None:
        """Tells the outcome, unless there is one already."""
        if self.ended:
            return
        self.ended = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._encoding is not None:
            self._encoding.cancel()
        if self._on_left is not None:
            self._on_left(self._ticket)
        self._on_end(outcome)

    def wait_for(
        self,
        ticket: Ticket,
        scheduling: Scheduling,
        on_left: Callable[[Ticket], None] | None = None,
    ) -> None:
        """Ends with the images of an admitted ticket, or at the deadline.

        on_left: called when this has ended, with the ticket.
        """
        self._ticket, self._on_left = ticket, on_left
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(scheduling.timeout_ms / 1e3, self.expire, scheduling)
        ticket.done.add_done_callback(self._on_images)

    def leave(self) -> None:
        """Ends with ClientGoneError: the client has closed the connection."""
        self._give_up("disconnect", ClientGoneError())

    def expire(self, scheduling: Scheduling) -> None:
        """Ends with DeadlineProblem, which says how long the images had."""
        self._give_up("deadline", scheduling.problem())

    def _give_up(self, reason: str, error: Exception) -> None:
        if not self.ended:
            self._abandon(self._ticket, reason, error)
            self.end(error)

    def _on_images(self, done: "asyncio.Future[Images]") -> None:
        if done.cancelled():
            self.end(UnavailableProblem("the server is shutting down; ask another one"))
            return
        # Asked for even if this has ended: asyncio logs exceptions that nobody has asked for.
        error = done.exception()
        if self.ended:
            return
        if error is not None:
            self.end(self._blamed(error))
        elif self._encoder.is_small(self._order, done.result()):
            self._encoder.encode_soon(self._order, self._ticket, done.result(), self)
        else:
            self._encoding = asyncio.get_running_loop().create_task(self._encode(done.result()))

    def _blamed(self, error: BaseException) -> Exception:
        """An error as the client gets it: a version that it named is its own choice."""
        if isinstance(error, UnavailableProblem) and error.by_version:
            return error if self._order.served.is_announced else VersionRefusedProblem(error.detail)
        return error if isinstance(error, Exception) else RuntimeError(repr(error))

    async def _encode(self, images: Images) -> None:
        outcome: Outcome
        try:
            outcome = await self._encoder.encode_in_thread(
                self._order, self._ticket, images, self._hold
            )
        except Exception as error:
            outcome = error
        self._encoding = None  # it is this task, which need not be cancelled
        self.end(outcome)
