"""Single flight: requests for an image that is being made already wait for that one.

The first request's ticket is the one that workers see. Requests for the same image that come
meanwhile get tickets of their own, its followers, which end with the first one's image. Each ticket
keeps its own deadline; if one request gives up, the others are not affected.

An image that was made is not in the cache yet: it is encoded first, maybe in a thread. So a flight
goes on until all of its requests have ended. Who comes between the two gets the image at once.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Hashable

from serving.dispatch.futures import set_error, set_result
from serving.dispatch.tickets import Ticket
from serving.errors import ClientGoneError, DeadlineProblem

# Errors that end one request and say nothing of its image.
_OWN_ERRORS = (ClientGoneError, DeadlineProblem, asyncio.CancelledError)


@dataclasses.dataclass(slots=True)
class _Flight:
    """One image, from its first request on."""

    first: Ticket
    """The ticket that workers see, or saw."""
    members: set[Ticket]
    """Those of all requests that have not ended, the first one included."""


class SingleFlight:
    """The tickets of one row that are in flight, by image, each with its followers."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}

    def __len__(self) -> int:
        """Images that are being made, or were and are being encoded."""
        return len(self._flights)

    def join(self, key: Hashable, admit: Callable[[], Ticket]) -> Ticket:
        """Returns a ticket for an image of one row; `leave` must follow, when its request ends.

        Args:
            key: everything that the image depends on.
            admit: submits the row; called if the image is not being made. What it raises is raised
                here.
        """
        flight = self._flights.get(key)
        if flight is None:
            ticket = admit()
            self._flights[key] = _Flight(ticket, {ticket})
            self._watch(key, ticket, admit)
            return ticket
        first = flight.first
        done = asyncio.get_running_loop().create_future()
        # num_sent=1 tells the batcher that none of a follower's rows wait in a queue.
        follower = dataclasses.replace(
            first, done=done, num_sent=1, timing=dataclasses.replace(first.timing)
        )
        flight.members.add(follower)
        if _has_image(first):
            set_result(done, first.done.result())
        return follower

    def leave(self, key: Hashable, ticket: Ticket) -> None:
        """A request has ended: its image is in the cache, or it wants none any more.

        Of a ticket that has left already, or that never joined, nothing is done.
        """
        flight = self._flights.get(key)
        if flight is None:
            return
        flight.members.discard(ticket)
        # Otherwise `_finish` still comes, which looks at who is left.
        if not flight.members and flight.first.done.done():
            del self._flights[key]

    def _watch(self, key: Hashable, first: Ticket, admit: Callable[[], Ticket]) -> None:
        first.done.add_done_callback(lambda _: self._finish(key, first, admit))

    def _finish(self, key: Hashable, first: Ticket, admit: Callable[[], Ticket]) -> None:
        """Gives the followers the image, or the reason why there is none."""
        flight = self._flights.get(key)
        if flight is None or flight.first is not first:
            return  # all have left, and the image is asked for anew
        done = first.done
        waiting = [ticket for ticket in flight.members if not ticket.done.done()]
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if waiting and isinstance(error, _OWN_ERRORS):
            try:
                flight.first = admit()  # the followers still want the image
            except Exception as refused:  # of any kind: an event loop would swallow it
                error = refused
            else:
                self._watch(key, flight.first, admit)
                return
        if error is not None or not flight.members:
            del self._flights[key]
        for ticket in waiting:
            ticket.timing.queue_s = first.timing.queue_s
            ticket.timing.compute_s = first.timing.compute_s
            if error is None:
                set_result(ticket.done, done.result())
            else:
                set_error(ticket.done, error)


def _has_image(ticket: Ticket) -> bool:
    done = ticket.done
    return done.done() and not done.cancelled() and done.exception() is None
