"""The tickets that wait, in the order in which their rows will be sent.

The batcher decides when a batch is cut, and how large it is.
"""

import time
from collections import OrderedDict, deque

from serving.dispatch.tickets import Batch, Piece, Ticket
from serving.inference.frames import Identity


class Queues:
    """A queue of tickets for each version; the queues take turns."""

    def __init__(self) -> None:
        self._queues: OrderedDict[Identity, deque[Ticket]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, ticket: Ticket) -> None:
        """Puts a ticket at the end of its queue."""
        self._queues.setdefault(ticket.key, deque()).append(ticket)

    def put_back(self, ticket: Ticket) -> None:
        """Puts a ticket at the head of its queue."""
        self._queues.setdefault(ticket.key, deque()).appendleft(ticket)

    def remove(self, ticket: Ticket) -> None:
        """Takes a ticket out of its queue."""
        queue = self._queues[ticket.key]
        queue.remove(ticket)
        if not queue:
            del self._queues[ticket.key]

    def tickets(self) -> list[Ticket]:
        """Returns all tickets, queue by queue."""
        return [ticket for queue in self._queues.values() for ticket in queue]

    def next_key(self) -> Identity:
        """Returns the version whose turn it is."""
        return next(iter(self._queues))

    def cut(self, max_rows: int) -> Batch:
        """Takes up to max_rows rows out of the queue whose turn it is, as a batch."""
        key, queue = next(iter(self._queues.items()))
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
                ticket.timing.queue_s = now - ticket.timing.entered
                queue.popleft()
        if queue:
            self._queues.move_to_end(key)  # the other queues come first now
        else:
            del self._queues[key]
        return Batch(key, pieces, num_rows)
