"""Single flight: an image that is being made for one request isn't made again for the next.

The first request's ticket is the one that workers see; those that ask for the same image meanwhile
get tickets of their own, which the first one's image completes. Each keeps its own deadline, and
nobody hears of another's.
"""

import asyncio
import dataclasses
from collections.abc import Callable

from serving.cache import ImageKey
from serving.errors import DeadlineProblem, Problem
from serving.http import ClientGoneError
from serving.tickets import Ticket

# What ends one request and says nothing of the image.
_OWN_FATE = (ClientGoneError, DeadlineProblem, asyncio.CancelledError)


class Flights:
    """Who waits with whom, for images of one row."""

    def __init__(self) -> None:
        self._first: dict[ImageKey, Ticket] = {}
        self._followers: dict[ImageKey, list[Ticket]] = {}

    def board(self, key: ImageKey, admit: Callable[[], Ticket]) -> Ticket:
        """A ticket for the image; admit gives the first one, and may raise."""
        first = self._first.get(key)
        if first is None:
            return self._take_off(key, admit, [])
        done = asyncio.get_running_loop().create_future()
        # num_sent: none of its own rows wait anywhere.
        follower = dataclasses.replace(first, done=done, num_sent=1)
        self._followers[key].append(follower)
        return follower

    def _take_off(
        self, key: ImageKey, admit: Callable[[], Ticket], followers: list[Ticket]
    ) -> Ticket:
        ticket = admit()
        self._first[key], self._followers[key] = ticket, followers
        ticket.done.add_done_callback(lambda _: self._land(key, admit))
        return ticket

    def _land(self, key: ImageKey, admit: Callable[[], Ticket]) -> None:
        """Hands on the image, or the reason why there is none."""
        first = self._first.pop(key)
        waiting = [ticket for ticket in self._followers.pop(key) if not ticket.done.done()]
        done = first.done
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if waiting and isinstance(error, _OWN_FATE):
            try:
                self._take_off(key, admit, waiting)  # the others still want it
            except Problem as problem:
                error = problem
            else:
                return
        for ticket in waiting:
            ticket.queue_s, ticket.compute_s = first.queue_s, first.compute_s
            if error is None:
                ticket.done.set_result(done.result())
            else:
                ticket.done.set_exception(error)
