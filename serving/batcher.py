"""Rows to batches: gathers what waits where HTTP is parsed, so that one frame serves many requests.

As soon as a worker has room, a batch is cut from the tickets that wait: small ones of the same
version are packed together, a large one is split over several batches and joined again. There is no
window to wait out: what one turn of the event loop reads leaves together, at once where a worker is
idle, and batches grow by themselves while workers are busy. Versions take turns; bulk tickets get
the turns that the others leave, and one in BULK_SHARE.

Knows nothing of HTTP, of frames or of how a worker is reached (`Carrier`).
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.generator import Images
from serving.errors import OverloadedProblem, UnavailableProblem
from serving.queues import Queues
from serving.tickets import Batch, Piece, Ticket, VersionKey

BULK_SHARE = 8
"""While both wait, one batch in so many is a bulk one: bulk may be slow, never starved."""
RECOVERY_S = 5.0
"""How long tickets wait for a worker when the last one has died; then they are refused."""
WORTH_S = 0.002
"""Where a batch takes a worker longer than this, several smaller ones keep all its lanes busy."""
HELD_S = 0.9
"""How long tickets that a worker held when it died wait for another one; then they are refused."""


class Carrier(Protocol):
    """The way to one worker."""

    @property
    def room(self) -> int:
        """How many more batches it would take now."""
        ...

    @property
    def lanes(self) -> int:
        """How many batches it makes at once."""
        ...

    def carry(self, batch: Batch) -> None:
        """Sends a batch off; `Batcher.made`, `failed` or `lost` follows."""
        ...


class Batcher:
    """The rows that wait in this process, and the workers that make them."""

    def __init__(
        self,
        *,
        max_batch_rows: int,
        max_waiting_rows: int,
        on_made: Callable[[Batch, float], None],
        on_load: Callable[[], None],
        recovery_s: float = RECOVERY_S,
    ) -> None:
        """on_made hears of every batch made, and its seconds; on_load that more or fewer wait.

        max_waiting_rows bounds what is admitted and not yet made, wherever it is: whoever is
        admitted waits for no more rows than that.
        """
        self.max_batch_rows = max_batch_rows
        self.max_waiting_rows = max_waiting_rows
        self.waiting_rows = 0
        self.in_flight_rows = 0
        self._on_made = on_made
        self._on_load = on_load
        self._recovery_s = recovery_s
        self._queues = {False: Queues(), True: Queues()}  # by Ticket.bulk
        self._turn = 0
        self._carriers: list[Carrier] = []
        self._recovery: asyncio.TimerHandle | None = None
        self._rate = ServiceRate()
        self._row_s: dict[VersionKey, float] = {}  # seconds a row takes, a moving average
        self._pumping = False

    @property
    def carriers(self) -> Iterable[Carrier]:
        """The workers that can be reached."""
        return tuple(self._carriers)

    def check_room(self, num_rows: int) -> None:
        """Raises OverloadedProblem or UnavailableProblem where so many rows can't be admitted."""
        if not self._carriers and self._recovery is None:
            raise UnavailableProblem(
                "no inference worker is ready; try again in a moment", headers=_retry_after(1)
            )
        waiting = self.waiting_rows + self.in_flight_rows
        if waiting + num_rows > self.max_waiting_rows:
            wait_s = self._rate.seconds_for(waiting)
            raise OverloadedProblem(
                f"{waiting} images wait, {self.max_waiting_rows} may, {num_rows} more "
                f"were asked for; try again in {wait_s} s",
                headers=_retry_after(wait_s),
            )

    def submit(
        self,
        key: VersionKey,
        *,
        seeds: list[int] | None = None,
        z: npt.NDArray[np.float32] | None = None,
        labels: list[int] | None = None,
        psi: float = 1.0,
        bulk: bool = False,
    ) -> Ticket:
        """Admits a request's rows; `await ticket.done` gives images [N, H, W, C] uint8.

        Raises:
            OverloadedProblem: too many rows wait.
            UnavailableProblem: no worker can be reached.
        """
        num_rows = len(seeds) if seeds is not None else len(z) if z is not None else 0
        self.check_room(num_rows)
        done = asyncio.get_running_loop().create_future()
        ticket = Ticket(key, seeds, z, labels, psi, bulk, done, num_rows)
        self._queues[bulk].add(ticket)
        self.waiting_rows += num_rows
        self._pump_soon()
        return ticket

    def cancel(self, ticket: Ticket, error: Exception) -> int:
        """Ends a ticket with an error; returns how many of its rows were not yet sent."""
        if not ticket.done.done():
            ticket.done.set_exception(error)
        unsent = ticket.num_rows - ticket.num_sent
        if unsent:
            self._queues[ticket.bulk].remove(ticket)
            self.waiting_rows -= unsent
            ticket.num_sent = ticket.num_rows
            self._on_load()
        return unsent

    def join(self, carrier: Carrier) -> None:
        """A worker can be reached."""
        self._carriers.append(carrier)
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None
        self._pump_soon()

    def leave(self, carrier: Carrier, batches: Iterable[Batch]) -> None:
        """A worker can't be reached any more; it held these batches.

        Making images has no side effect, so their tickets are tried once more, on another worker or
        on the one that takes its place if that is quick. Those that merely wait don't notice.
        """
        self._carriers.remove(carrier)
        batches = list(batches)
        self.in_flight_rows -= sum(batch.num_rows for batch in batches)
        tickets = {id(p.ticket): p.ticket for batch in batches for p in batch.pieces}
        for ticket in tickets.values():
            if ticket.attempt:
                text = "two inference workers died with this request; it is not tried again"
                self.cancel(ticket, UnavailableProblem(text))
            elif not ticket.done.done():
                self._restart(ticket)
        if not self._carriers:
            loop = asyncio.get_running_loop()
            self._recovery = loop.call_later(self._recovery_s, self._give_up)
        self._pump_soon()

    def made(self, batch: Batch, images: Images, compute_s: float) -> None:
        """A worker answered: hands the images out and sends the next batch."""
        self.in_flight_rows -= batch.num_rows
        self._rate.add(batch.num_rows)
        self._on_made(batch, compute_s)
        row_s = compute_s / batch.num_rows
        self._row_s[batch.key] = 0.8 * self._row_s.get(batch.key, row_s) + 0.2 * row_s
        row = 0
        for piece in batch.pieces:
            num = piece.stop - piece.start
            self._accept(piece, images[row : row + num], compute_s)
            row += num
        self._pump_soon()

    def failed(self, batch: Batch, reason: str) -> None:
        """A worker could not make a batch."""
        self.in_flight_rows -= batch.num_rows
        for piece in batch.pieces:
            self.cancel(piece.ticket, UnavailableProblem(reason))
        self._pump_soon()

    def _pump_soon(self) -> None:
        """Pumps once the event loop has read what has come: that many rows share a batch."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Sends one batch if a worker has room and rows wait, then lets the event loop turn.

        Its bytes leave at the end of the turn: the worker computes while the next one's latents are
        drawn.
        """
        self._pumping = False
        carrier = max(self._carriers, key=lambda c: c.room, default=None)
        if carrier is not None and carrier.room and (self._queues[False] or self._queues[True]):
            queues = self._next_queues()
            batch = queues.cut(self._share(queues.next_key()))
            self.waiting_rows -= batch.num_rows
            self.in_flight_rows += batch.num_rows
            carrier.carry(batch)
            self._pump_soon()
        else:
            self._on_load()

    def _share(self, key: VersionKey) -> int:
        """Rows of the next batch: every lane has its share, one lies ready, one is on its way back.

        If all that is asked for were with the workers, they would idle while it is answered.
        """
        row_s = self._row_s.get(key, 0.0)
        if not row_s:
            return self.max_batch_rows
        num_shares = sum(carrier.lanes for carrier in self._carriers) + 2
        share = math.ceil((self.waiting_rows + self.in_flight_rows) / num_shares)
        return min(self.max_batch_rows, max(math.ceil(WORTH_S / row_s), share))

    def _next_queues(self) -> Queues:
        first, bulk = self._queues[False], self._queues[True]
        if not (first and bulk):
            return first or bulk
        self._turn = (self._turn + 1) % BULK_SHARE
        return first if self._turn else bulk

    def _accept(self, piece: Piece, images: Images, compute_s: float) -> None:
        ticket = piece.ticket
        if ticket.done.done() or piece.attempt != ticket.attempt:
            return
        ticket.compute_s += compute_s
        if len(images) == ticket.num_rows:
            ticket.done.set_result(images)
            return
        if ticket.images is None:
            ticket.images = np.empty((ticket.num_rows, *images.shape[1:]), np.uint8)
        ticket.images[piece.start : piece.stop] = images
        ticket.num_made += len(images)
        if ticket.num_made == ticket.num_rows:
            ticket.done.set_result(ticket.images)

    def _restart(self, ticket: Ticket) -> None:
        """Puts a ticket back at the head of its queue, as if nothing of it had been sent."""
        if ticket.num_sent == ticket.num_rows:  # else it is in its queue still
            self._queues[ticket.bulk].put_back(ticket)
        self.waiting_rows += ticket.num_sent
        ticket.num_sent = ticket.num_made = 0
        ticket.images = None
        ticket.attempt += 1
        asyncio.get_running_loop().call_later(HELD_S, self._refuse_untaken, ticket)

    def _refuse_untaken(self, ticket: Ticket) -> None:
        """No other worker has begun with what the dead one held."""
        if not ticket.done.done() and not ticket.num_sent:
            text = "the inference worker died with this request; ask again"
            self.cancel(ticket, UnavailableProblem(text, headers=_retry_after(1)))

    def _give_up(self) -> None:
        """No worker came back in time."""
        self._recovery = None
        for queues in self._queues.values():
            for ticket in queues.tickets():
                text = f"the inference worker died and was not back within {self._recovery_s:g} s"
                self.cancel(ticket, UnavailableProblem(text, headers=_retry_after(5)))


class ServiceRate:
    """Rows a second that this process is getting made, a moving average over some seconds."""

    _HALF_LIFE_S = 2.0

    def __init__(self) -> None:
        self._rows = self._weight = 0.0
        self._last = time.perf_counter()

    def add(self, num_rows: int) -> None:
        """Counts rows that were made now."""
        now = time.perf_counter()
        elapsed = now - self._last
        decay = 0.5 ** (elapsed / self._HALF_LIFE_S)
        self._rows = self._rows * decay + num_rows
        self._weight = self._weight * decay + elapsed
        self._last = now

    def seconds_for(self, num_rows: int) -> int:
        """Whole seconds, at least 1, until that many rows will have been made."""
        if not self._rows or not self._weight:
            return 1
        return max(1, round(num_rows * self._weight / self._rows))


def _retry_after(seconds: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"retry-after", str(seconds).encode("ascii")),)
