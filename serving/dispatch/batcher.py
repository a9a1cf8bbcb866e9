"""Packs the rows of many requests into batches and sends them to the inference workers.

A batch is cut from the waiting tickets as soon as a worker has a free slot. Small tickets of the
same version share a batch; a large ticket is split over several batches and joined again. There is
no batching window: what one turn of the event loop reads is sent together, at once if a worker is
idle, and batches grow by themselves while workers are busy. Versions take turns. Bulk tickets are
sent when no other ticket waits, and in one batch of BULK_SHARE otherwise.

Every row is in one of two places: it waits in a queue, or it is in flight in a batch that is booked
to a worker. `_book` and `_release` are the only ways in and out of the second. A batch is released
exactly once, whether it was made, failed, could not be sent, or its worker died, so no row stays
booked and no ticket waits for a batch that nobody has.

This module knows no HTTP and no frames, and does not know how a worker is reached (`Worker`).
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.bundle.generator import Images
from serving.dispatch.futures import set_error
from serving.dispatch.queues import Queues
from serving.dispatch.service_rate import ServiceRate
from serving.dispatch.tickets import Batch, Styled, Ticket
from serving.errors import OverloadedProblem, UnavailableProblem
from serving.inference.frames import Identity
from serving.observability.loops import Loop, ends
from serving.shared_counts import SharedCounts

BULK_SHARE = 8
"""One batch in so many is a bulk one while both kinds wait: bulk is slow, but never starved."""
RECOVERY_S = 5.0
"""How long tickets wait for a new worker when the last one has died; then they get 503."""
HELD_S = 0.9
"""How long a ticket that a dead worker held waits for another worker; then it gets 503."""
MIN_BATCH_S = 0.002
"""Batches are not split into smaller ones that take a worker less than this."""
_MAX_TIMED = 4096  # versions whose batches are timed


class Worker(Protocol):
    """One inference worker as the batcher sees it."""

    @property
    def free_slots(self) -> int:
        """Number of batches that the worker accepts now."""
        ...

    @property
    def lanes(self) -> int:
        """Number of batches that the worker computes at the same time."""
        ...

    @property
    def device(self) -> str:
        """What the worker computes on."""
        ...

    def send(self, batch: Batch) -> None:
        """Sends a batch; the worker then calls `Batcher.made` or `failed`, or is removed.

        May raise anything: the batcher then answers the batch's tickets with 503.
        """
        ...


class Batcher:
    """The waiting rows of this process, and the workers that make them."""

    def __init__(
        self,
        *,
        max_batch_rows: int,
        max_waiting_rows: int,
        on_made: Callable[[Batch, float], None],
        on_load: Callable[[], None],
        recovery_s: float = RECOVERY_S,
        admitted: SharedCounts | None = None,
    ) -> None:
        """Creates a batcher without workers.

        Args:
            max_batch_rows: rows of a batch.
            max_waiting_rows: rows that may be admitted and not yet made, waiting or in flight, of
                all processes together.
            on_made: called with each batch that was made, and the seconds that it took.
            on_load: called when the number of waiting rows has changed.
            recovery_s: how long tickets wait for a new worker when the last one has died.
            admitted: where this process tells the others of such rows; None if it is alone.
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
        self._workers: list[Worker] = []
        self._booked: dict[Batch, Worker] = {}
        self._recovery: asyncio.TimerHandle | None = None
        self._rate = ServiceRate()
        self._row_s: dict[Identity, float] = {}  # seconds per row, a moving average
        self._pumping = False
        self._failures = Loop("dispatch")
        self._admitted = admitted

    @property
    def workers(self) -> Iterable[Worker]:
        """The workers that can be reached."""
        return tuple(self._workers)

    def check_workers(self) -> None:
        """Raises UnavailableProblem if no worker can be reached."""
        if not self._workers and self._recovery is None:
            raise UnavailableProblem(
                "no inference worker is ready; try again in a moment", headers=_retry_after(1)
            )

    def check_capacity(self, num_rows: int) -> None:
        """Checks that so many more rows can be admitted.

        Raises:
            OverloadedProblem: too many rows wait.
            UnavailableProblem: no worker can be reached.
        """
        self.check_workers()
        waiting = self.waiting_rows + self.in_flight_rows
        if self._admitted is not None:
            waiting += self._admitted.others
        if waiting + num_rows > self.max_waiting_rows:
            wait_s = self._rate.seconds_for(waiting)
            raise OverloadedProblem(
                f"{waiting} images wait, {self.max_waiting_rows} may, {num_rows} more "
                f"were asked for; try again in {wait_s} s",
                headers=_retry_after(wait_s),
            )

    def submit(
        self,
        key: Identity,
        *,
        seeds: list[int] | None = None,
        z: npt.NDArray[np.float32] | None = None,
        labels: list[int] | None = None,
        psi: float = 1.0,
        shift: npt.NDArray[np.float32] | None = None,
        styled: Styled | None = None,
        mask: npt.NDArray[np.float32] | None = None,
        rows: npt.NDArray[np.uint8] | None = None,
        part: str = "",
        bulk: bool = False,
        is_held: bool = False,
        is_admitted: bool = False,
    ) -> Ticket:
        """Admits a request's rows; `await ticket.done` gives images [N, H, W, C] uint8.

        Args:
            key: the version.
            seeds: one row each; or z, rows of latents.
            z: instead of seeds.
            labels: of conditional models.
            psi: truncation.
            shift: what is added to the latents, [N, z_dim].
            styled: how the images are made of styles.
            mask: 0 for each unit that is off, [units].
            rows: instead of seeds, for a part of the model, [N, bytes].
            part: that part.
            bulk: other requests go first.
            is_held: they are not made before `release`.
            is_admitted: a later step of a request that was admitted before.

        Raises:
            OverloadedProblem: too many rows wait.
            UnavailableProblem: no worker can be reached.
        """
        given = next((each for each in (seeds, z, rows) if each is not None), ())
        num_rows = len(given)
        if is_admitted:
            self.check_workers()
        else:
            self.check_capacity(num_rows)
        done = asyncio.get_running_loop().create_future()
        ticket = Ticket(key, seeds, z, labels, psi, bulk, done, num_rows, is_held=is_held)
        ticket.shift, ticket.styled, ticket.mask = shift, styled, mask
        if styled is not None:  # they need other graphs, so they share no batch with the others
            ticket.key = key._replace(num_styles=len(styled.psi))
        elif mask is not None:
            ticket.key = key._replace(num_units=len(mask))
        elif part:
            ticket.key, ticket.rows = key._replace(part=part), rows
        self.waiting_rows += num_rows
        self._tell()
        if not is_held:
            self._queues[bulk].add(ticket)
            self._pump_soon()
        return ticket

    def release(self, ticket: Ticket) -> None:
        """Lets the rows of a held ticket be made."""
        if ticket.is_held and not ticket.done.done():
            ticket.is_held = False
            self._queues[ticket.bulk].add(ticket)
            self._pump_soon()

    def cancel(self, ticket: Ticket, error: Exception) -> int:
        """Ends a ticket with an error; returns how many of its rows were not yet sent."""
        set_error(ticket.done, error)
        unsent = ticket.num_rows - ticket.num_sent
        if unsent:
            if not ticket.is_held:
                self._queues[ticket.bulk].remove(ticket)
            self.waiting_rows -= unsent
            ticket.num_sent = ticket.num_rows
            self._tell()
            self._on_load()
        return unsent

    def add_worker(self, worker: Worker) -> None:
        """Starts to send batches to a worker."""
        self._workers.append(worker)
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None
        self._pump_soon()

    def resume(self) -> None:
        """A worker has more free slots than before."""
        self._pump_soon()

    def remove_worker(self, worker: Worker) -> None:
        """Takes a worker away that can't be reached any more, with all batches that it held.

        Making images has no side effect, so the tickets of these batches are tried once more, on
        another worker or on the one that replaces it. Tickets that only wait are not affected.
        """
        self._workers.remove(worker)
        held = [batch for batch, holder in self._booked.items() if holder is worker]
        for batch in held:
            self._release(batch)
        # A ticket can have several pieces here, and must be restarted once.
        for ticket in {piece.ticket: None for batch in held for piece in batch.valid()}:
            if ticket.attempt:
                text = "two inference workers died with this request; it is not tried again"
                self.cancel(ticket, UnavailableProblem(text))
            elif not ticket.done.done():
                self._restart(ticket)
        if not self._workers:
            loop = asyncio.get_running_loop()
            self._recovery = loop.call_later(self._recovery_s, self._give_up)
        self._pump_soon()

    def made(self, batch: Batch, images: Images, compute_s: float) -> None:
        """Takes the images of a batch [N, H, W, C] uint8; compute_s: how long the worker took."""
        if not self._release(batch):
            return  # the worker was given up before, or answers twice
        try:
            self._deliver(batch, images, compute_s)
        except BaseException as error:
            if ends(error):
                raise
            self._fail(batch, "the images of a batch could not be used; ask again")
            self._failures.failed(error)
        self._pump_soon()

    def failed(self, batch: Batch, reason: str, *, by_version: bool = False) -> None:
        """Answers a batch's tickets with 503 and a reason.

        by_version: the version's files are at fault, not the server or its storage.
        """
        if self._release(batch):
            self._fail(batch, reason, by_version=by_version)
            self._pump_soon()

    def _book(self, batch: Batch, worker: Worker) -> None:
        self._booked[batch] = worker
        self.waiting_rows -= batch.num_rows
        self.in_flight_rows += batch.num_rows

    def _release(self, batch: Batch) -> bool:
        """Takes a batch off the books; returns False if it is not on them."""
        if self._booked.pop(batch, None) is None:
            return False
        self.in_flight_rows -= batch.num_rows
        self._tell()
        return True

    def _tell(self) -> None:
        if self._admitted is not None:
            self._admitted.own = self.waiting_rows + self.in_flight_rows

    def _fail(self, batch: Batch, reason: str, *, by_version: bool = False) -> None:
        for piece in batch.valid():
            self.cancel(piece.ticket, UnavailableProblem(reason, by_version=by_version))

    def _pump_soon(self) -> None:
        # Not at once: rows that the event loop reads in the same turn shall share a batch.
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Sends one batch if a worker has a free slot and rows wait, then lets the loop turn.

        The bytes of a batch leave at the end of the turn. So the worker computes the first batch
        while the latents of the next one are drawn.
        """
        self._pumping = False
        worker = max(self._workers, key=lambda w: w.free_slots, default=None)
        if worker is None or not worker.free_slots or not any(self._queues.values()):
            self._on_load()
            return
        queues = self._next_queues()
        batch = queues.cut(self._share(queues.next_key()))
        self._book(batch, worker)
        try:
            worker.send(batch)
        except BaseException as error:
            self.failed(batch, "a batch could not be sent to a worker; ask again")
            if ends(error):
                raise
            self._failures.failed(error)
        else:
            if self._failures.failing_since is not None:
                self._failures.succeeded()
        self._pump_soon()

    def _share(self, key: Identity) -> int:
        """Rows of the next batch, so that every lane of every worker gets an equal share.

        Two more shares are counted than there are lanes: one that lies ready, and one whose images
        are on their way back. If all rows were with the workers, the workers would idle while this
        process answers.
        """
        row_s = self._row_s.get(key, 0.0)
        if not row_s:
            return self.max_batch_rows
        num_shares = sum(worker.lanes for worker in self._workers) + 2
        share = math.ceil((self.waiting_rows + self.in_flight_rows) / num_shares)
        return min(self.max_batch_rows, max(math.ceil(MIN_BATCH_S / row_s), share))

    def _next_queues(self) -> Queues:
        first, bulk = self._queues[False], self._queues[True]
        if not (first and bulk):
            return first or bulk
        self._turn = (self._turn + 1) % BULK_SHARE
        return first if self._turn else bulk

    def _deliver(self, batch: Batch, images: Images, compute_s: float) -> None:
        """Hands a batch's images out to its tickets."""
        if len(images) != batch.num_rows:
            raise ValueError(f"{len(images)} images for a batch of {batch.num_rows}")
        self._rate.add(batch.num_rows)
        row_s = compute_s / batch.num_rows
        if len(self._row_s) >= _MAX_TIMED:
            self._row_s.clear()
        self._row_s[batch.key] = 0.8 * self._row_s.get(batch.key, row_s) + 0.2 * row_s
        row = 0
        for piece in batch.pieces:
            num = piece.stop - piece.start
            piece.accept(images[row : row + num], compute_s)
            row += num
        self._on_made(batch, compute_s)

    def _restart(self, ticket: Ticket) -> None:
        """Puts a ticket back at the head of its queue, as if nothing of it had been sent."""
        if ticket.num_sent == ticket.num_rows:  # otherwise it is still in its queue
            self._queues[ticket.bulk].put_back(ticket)
        self.waiting_rows += ticket.num_sent
        self._tell()
        ticket.num_sent = ticket.num_made = 0
        ticket.images = None
        ticket.attempt += 1  # from now on the pieces that were sent before are ignored
        asyncio.get_running_loop().call_later(HELD_S, self._refuse_unsent, ticket)

    def _refuse_unsent(self, ticket: Ticket) -> None:
        """Ends a restarted ticket of which no other worker has got anything."""
        if not ticket.done.done() and not ticket.num_sent:
            text = "the inference worker died with this request; ask again"
            self.cancel(ticket, UnavailableProblem(text, headers=_retry_after(1)))

    def _give_up(self) -> None:
        """Ends all waiting tickets: no worker came back in time."""
        self._recovery = None
        for queues in self._queues.values():
            for ticket in queues.tickets():
                text = f"the inference worker died and was not back within {self._recovery_s:g} s"
                self.cancel(ticket, UnavailableProblem(text, headers=_retry_after(5)))


def _retry_after(seconds: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"retry-after", str(seconds).encode("ascii")),)
