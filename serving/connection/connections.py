"""The connections of one HTTP process: their deadlines, and what all of them together may hold.

One timer looks at all of them some times a second; a timer for each would cost every request two
calls. It ends who doesn't send what was begun, and who doesn't take what was answered. Where memory
is short, those go first who take nothing at all.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from serving.connection.descriptors import Spares
from serving.connection.unread import Unread, head_of
from serving.errors import UnavailableProblem
from serving.http.memory import Memory
from serving.http.messages import CLOSE, Response

logger = logging.getLogger(__name__)

SWEEP_S = 0.25
"""How often the connections are looked at: no deadline is kept more exactly."""
STALLED_S = 2.0
"""Who takes nothing for so long goes first where memory is short."""
_LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may cost, and for how long."""

    read_timeout_s: float
    """A request that has begun must be complete by then."""
    write_timeout_s: float
    """Within it a client takes some of its answer; `Unread` says how much."""
    keep_alive_s: float
    """How long a connection may rest after an answer."""
    max_body_bytes: int
    """Of a request; what is longer is not read to its end."""
    max_held_bytes: int
    """Of all requests and answers of this process."""


class Watched(Protocol):
    """A connection, as its deadlines are kept."""

    def check(self, now: float) -> None:
        """Acts where a deadline is over."""
        ...

    @property
    def unread(self) -> Unread | None:
        """The answer that the client is taking, if there is one."""
        ...

    def end(self, reason: str) -> None:
        """Ends it at once, whatever the client hasn't taken."""
        ...


class Connections:
    """All of them."""

    def __init__(
        self,
        limits: Limits,
        *,
        root_path: str = "",
        on_refused: Callable[[str], None] = lambda reason: None,
        on_ended: Callable[[str], None] = lambda reason: None,
        on_change: Callable[[], None] = lambda: None,
        on_number: Callable[[int], None] = lambda number: None,
    ) -> None:
        """Creates an empty set; `run` looks after it.

        Args:
            limits: what a client may cost.
            root_path: taken off the beginning of paths that have it.
            on_refused: called with the reason when a connection is not taken.
            on_ended: called with the reason when a client is cut off.
            on_change: called some times a second if there are more or fewer connections, or bytes
                held.
            on_number: called at once with the number of connections.
        """
        self.limits = limits
        self.root_path = root_path
        self.memory = Memory(limits.max_held_bytes)
        self.draining = False
        self.refusal = _refusal()
        """What a connection is told for which there is no descriptor."""
        self._all: set[Watched] = set()
        self._on_refused, self._on_ended = on_refused, on_ended
        self._on_change, self._on_number = on_change, on_number
        self._last = (0, 0)
        self._spares = Spares()
        self._refused = RepeatedWarning(
            "%d connections were refused: no file descriptors are left for them"
        )
        self._unread = RepeatedWarning(
            "%d connections were ended: their clients took no answer (%s)"
        )

    def __len__(self) -> int:
        return len(self._all)

    async def turn(self) -> float:
        """Looks at all of them once; gives the seconds until the next time."""
        self.sweep(asyncio.get_running_loop().time())
        return min(SWEEP_S, self.limits.read_timeout_s / 4, self.limits.write_timeout_s / 4)

    def close(self) -> None:
        """Ends those that are left."""
        for connection in tuple(self._all):
            connection.end("shutdown")
        self._spares.close()

    def sweep(self, now: float) -> None:
        """Acts on every deadline that is over."""
        self._spares.renew()
        for connection in tuple(self._all):
            try:
                connection.check(now)
            except BaseException as error:  # foreign ones too: the others must be looked at
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                logger.exception("a connection could not be looked at, and is ended")
                connection.end("failure")
        if self.memory.is_short:
            self.make_room(now)
        state = (len(self._all), self.memory.held_bytes)
        if state != self._last:
            self._last = state
            self._on_change()
        self._refused.log(now)
        self._unread.log(now)

    def drain(self) -> None:
        """From now on clients must take their answers quickly."""
        self.draining = True

    def add(self, connection: Watched) -> None:
        """A connection was made."""
        self._all.add(connection)
        self._on_number(len(self._all))

    def discard(self, connection: Watched) -> None:
        """A connection is over."""
        self._all.discard(connection)
        self._on_number(len(self._all))

    def may_take(self, descriptor: int) -> bool:
        """False where a new connection takes one of the last descriptors, which are for the server.

        The kernel gives the lowest number that is free: it says how many are in use.
        """
        if descriptor < self._spares.first_reserved() and not self._spares.are_spent:
            return True
        self._on_refused("descriptors")
        self._refused.count()
        return False

    def may_linger(self, descriptor: int) -> bool:
        """True where a refused connection may keep its descriptor for a moment."""
        return not self._spares.are_spent and self._spares.is_low(descriptor)

    def count_ended(self, reason: str) -> None:
        """A client was cut off."""
        self._on_ended(reason)
        self._unread.count(reason)

    def make_room(self, now: float) -> None:
        """Ends those who take nothing, largest first, until nobody waits for memory."""
        stalled = [
            (each.unread.hold.num_bytes, each)
            for each in self._all
            if each.unread is not None and each.unread.stalled_s(now) >= STALLED_S
        ]
        for _, connection in sorted(stalled, key=lambda entry: -entry[0]):
            if not self.memory.is_short:
                return
            connection.end("memory")


def _refusal() -> bytes:
    problem = UnavailableProblem(
        "the server has no file descriptor left for this connection; try again in a moment",
        headers=((b"retry-after", b"1"), CLOSE),
    )
    response = Response.problem(problem)
    return head_of(response.status, response.head(response.headers)) + response.body


class RepeatedWarning:
    """Something that may happen thousands of times a second, and is logged some times a minute."""

    def __init__(self, text: str) -> None:
        """text: with a place for the number, and perhaps one for the last reason."""
        self._text = text
        self._num = 0
        self._last: tuple[str, ...] = ()
        self._next = 0.0

    def count(self, *last: str) -> None:
        """It happened."""
        self._num += 1
        self._last = last

    def log(self, now: float) -> None:
        """Says how often it has happened since, where it is time to."""
        if self._num and now >= self._next:
            logger.warning(self._text, self._num, *self._last)
            self._num, self._next = 0, now + _LOG_EVERY_S
