"""Single flight: requests for an image that is being made already wait for that one.

The first request's ticket is the one that workers see. Requests for the same image that come
meanwhile get tickets of their own, its followers, which end with the first one's image. Each ticket
keeps its own deadline; if one request gives up, the others are not affected.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Hashable

from serving.dispatch.futures import set_error, set_result
from serving.dispatch.tickets import Ticket
from serving.errors import ClientGoneError, DeadlineProblem

# Errors that end one request and say nothing of its image.
_OWN_ERRORS = (ClientGoneError, DeadlineProblem, asyncio.CancelledError)


class SingleFlight:
    """The tickets of one row that are in flight, by image, each with its followers."""

    def __init__(self) -> None:
        self._first: dict[Hashable, Ticket] = {}
        self._followers: dict[Hashable, list[Ticket]] = {}

    def join(self, key: Hashable, admit: Callable[[], Ticket]) -> Ticket:
        """Returns a ticket for an image of one row.

        Args:
            key: everything that the image depends on.
            admit: submits the row; called if the image is not being made. What it raises is raised
                here.
        """
        first = self._first.get(key)
        if first is None:
            return self._lead(key, admit, [])
        done = asyncio.get_running_loop().create_future()
        # num_sent=1 tells the batcher that none of a follower's rows wait in a queue.
        follower = dataclasses.replace(
            first, done=done, num_sent=1, timing=dataclasses.replace(first.timing)
        )
        self._followers[key].append(follower)
        return follower

    def _lead(self, key: Hashable, admit: Callable[[], Ticket], followers: list[Ticket]) -> Ticket:
        ticket = admit()
        self._first[key], self._followers[key] = ticket, followers
        ticket.done.add_done_callback(lambda _: self._finish(key, admit))
        return ticket

    def _finish(self, key: Hashable, admit: Callable[[], Ticket]) -> None:
        """Gives the followers the image, or the reason why there is none."""
        first = self._first.pop(key)
        waiting = [ticket for ticket in self._followers.pop(key) if not ticket.done.done()]
        done = first.done
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if waiting and isinstance(error, _OWN_ERRORS):
            try:
                self._lead(key, admit, waiting)  # the followers still want the image
                return
            except Exception as refused:  # of any kind: an event loop would swallow it
                error = refused
        for ticket in waiting:
            ticket.timing.queue_s = first.timing.queue_s
            ticket.timing.compute_s = first.timing.compute_s
            if error is None:
                set_result(ticket.done, done.result())
            else:
                set_error(ticket.done, error)
