"""Tickets that wait, in the order in which their rows are made.

Knows nothing of workers; `serving.batcher` says when a batch is cut, and how large.
"""

import time
from collections import OrderedDict, deque

from serving.tickets import Batch, Piece, Ticket, VersionKey


class Queues:
    """Tickets that wait, in a queue for each version; the queues take turns."""

    def __init__(self) -> None:
        self._queues: OrderedDict[VersionKey, deque[Ticket]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, ticket: Ticket) -> None:
        """At the end of its queue."""
        self._queues.setdefault(ticket.key, deque()).append(ticket)

    def put_back(self, ticket: Ticket) -> None:
        """At the head of its queue."""
        self._queues.setdefault(ticket.key, deque()).appendleft(ticket)

    def remove(self, ticket: Ticket) -> None:
        """Out of its queue."""
        queue = self._queues[ticket.key]
        queue.remove(ticket)
        if not queue:
            del self._queues[ticket.key]

    def tickets(self) -> list[Ticket]:
        """All that wait."""
        return [ticket for queue in self._queues.values() for ticket in queue]

    def next_key(self) -> VersionKey:
        """The queue whose turn it is."""
        return next(iter(self._queues))

    def cut(self, max_rows: int) -> Batch:
        """A batch from the queue whose turn it is."""
        key, queue = self._queues.popitem(last=False)
        pieces: list[Piece] = []
        num_rows = 0
        now = time.perf_counter()
        while queue and num_rows < max_rows:
            ticket = queue[0]
            take = min(ticket.num_rows - ticket.num_sent, max_rows - num_rows)
            pieces.append(Piece(ticket, ticket.num_sent, ticket.num_sent + take, ticket.attempt))
            ticket.num_sent += take
            num_rows += take
            if ticket.num_sent == ticket.num_rows:
                ticket.queue_s = now - ticket.entered
                queue.popleft()
        if queue:
            self._queues[key] = queue  # at the end: the other queues come first now
        return Batch(key, pieces, num_rows)
