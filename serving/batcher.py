"""Rows to batches: gathers what waits where HTTP is parsed, so that one frame serves many requests.

A `Ticket` is what one request wants: N rows of one version. Tickets of a version wait in a lane. As
soon as a worker has room, a batch is cut from the lanes in turn: small tickets are packed together,
a large one is split over several batches and joined again. There is no window to wait out: what one
turn of the event loop reads leaves together, at once where a worker is idle, and batches grow by
themselves while workers are busy.

Knows nothing of HTTP, of frames or of how a worker is reached (`Carrier`).
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.generator import Images
from models.latents import latents
from serving.errors import DeadlineProblem, OverloadedProblem, UnavailableProblem

VersionKey = tuple[str, int]  # name, version


@dataclass(eq=False, slots=True)
class Ticket:
    """The rows of one request, and the images made so far."""

    key: VersionKey
    seeds: list[int] | None
    """[N] integers, or None where latents are given."""
    z: npt.NDArray[np.float32] | None
    """[N, z_dim] where latents are given."""
    labels: list[int] | None
    """[N], for conditional models."""
    psi: float
    """Truncation: z is scaled by it, or given to the graph's mapping network."""
    done: asyncio.Future[Images]
    num_rows: int
    num_sent: int = 0
    num_made: int = 0
    attempt: int = 0
    images: Images | None = None
    entered: float = field(default_factory=time.perf_counter)
    queue_s: float = 0.0
    compute_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows start .. stop of a ticket, in its attempt number `attempt`."""

    ticket: Ticket
    start: int
    stop: int
    attempt: int


@dataclass(eq=False, slots=True)
class Batch:
    """What one run of a model makes."""

    key: VersionKey
    pieces: list[Piece]
    num_rows: int

    def labels(self) -> npt.NDArray[np.int64] | None:
        """[num_rows], or None for an unconditional model."""
        rows: list[int] = []
        for piece in self.pieces:
            if piece.ticket.labels is None:
                return None
            rows += piece.ticket.labels[piece.start : piece.stop]
        return np.array(rows, np.int64)

    def z(self, z_dim: int, *, scale: bool) -> npt.NDArray[np.float32]:
        """[num_rows, z_dim]; scaled by psi where the graph doesn't truncate by itself."""
        seeds: list[int] = []
        for piece in self.pieces:
            if piece.ticket.seeds is not None:
                seeds += piece.ticket.seeds[piece.start : piece.stop]
        drawn = latents(np.array(seeds, np.uint64), z_dim) if seeds else None
        if drawn is not None and len(drawn) == self.num_rows:
            z = drawn
        else:
            z = self._interleave(drawn, z_dim)
        if scale and any(piece.ticket.psi != 1.0 for piece in self.pieces):
            z *= self.psi()[:, None]
        return z

    def psi(self) -> npt.NDArray[np.float32]:
        """[num_rows]."""
        values = [piece.ticket.psi for piece in self.pieces]
        return np.repeat(np.array(values, np.float32), [p.stop - p.start for p in self.pieces])

    def _interleave(
        self, drawn: npt.NDArray[np.float32] | None, z_dim: int
    ) -> npt.NDArray[np.float32]:
        z = np.empty((self.num_rows, z_dim), np.float32)
        row = used = 0
        for piece in self.pieces:
            num = piece.stop - piece.start
            if piece.ticket.z is not None:
                z[row : row + num] = piece.ticket.z[piece.start : piece.stop]
            else:
                assert drawn is not None
                z[row : row + num] = drawn[used : used + num]
                used += num
            row += num
        return z


class Carrier(Protocol):
    """The way to one worker."""

    @property
    def room(self) -> int:
        """How many more batches it would take now."""
        ...

    def carry(self, batch: Batch) -> None:
        """Sends a batch off; `Batcher.made`, `failed` or `lost` follows."""
        ...


class Batcher:
    """The rows that wait in this process, and the workers that make them."""

    def __init__(
        self, *, max_batch_rows: int, max_waiting_rows: int, on_batch: Callable[[int], None]
    ) -> None:
        """on_batch hears the rows of every batch sent."""
        self.max_batch_rows = max_batch_rows
        self.max_waiting_rows = max_waiting_rows
        self.waiting_rows = 0
        self._on_batch = on_batch
        self._lanes: OrderedDict[VersionKey, deque[Ticket]] = OrderedDict()
        self._carriers: list[Carrier] = []
        self._rate = ServiceRate()
        self._pumping = False

    @property
    def carriers(self) -> Iterable[Carrier]:
        """The workers that can be reached."""
        return tuple(self._carriers)

    def submit(
        self,
        key: VersionKey,
        *,
        seeds: list[int] | None = None,
        z: npt.NDArray[np.float32] | None = None,
        labels: list[int] | None = None,
        psi: float = 1.0,
    ) -> Ticket:
        """Admits a request's rows; `await ticket.done` gives images [N, H, W, C] uint8.

        Raises:
            OverloadedProblem: too many rows wait.
            UnavailableProblem: no worker can be reached.
        """
        num_rows = len(seeds) if seeds is not None else len(z) if z is not None else 0
        if not self._carriers:
            raise UnavailableProblem(
                "no inference worker is ready; try again in a moment", headers=_retry_after(1)
            )
        if self.waiting_rows + num_rows > self.max_waiting_rows:
            wait_s = self._rate.seconds_for(self.waiting_rows)
            raise OverloadedProblem(
                f"{self.waiting_rows} images wait, {self.max_waiting_rows} may, {num_rows} more "
                f"were asked for; try again in {wait_s} s",
                headers=_retry_after(wait_s),
            )
        done = asyncio.get_running_loop().create_future()
        ticket = Ticket(key, seeds, z, labels, psi, done, num_rows)
        self._lanes.setdefault(key, deque()).append(ticket)
        self.waiting_rows += num_rows
        self._pump_soon()
        return ticket

    def cancel(self, ticket: Ticket, error: Exception) -> int:
        """Ends a ticket with an error; returns how many of its rows were not yet sent."""
        if not ticket.done.done():
            ticket.done.set_exception(error)
        unsent = ticket.num_rows - ticket.num_sent
        if unsent:
            lane = self._lanes.get(ticket.key)
            if lane is not None and ticket in lane:
                lane.remove(ticket)
                if not lane:
                    del self._lanes[ticket.key]
            self.waiting_rows -= unsent
            ticket.num_sent = ticket.num_rows
        return unsent

    def join(self, carrier: Carrier) -> None:
        """A worker can be reached."""
        self._carriers.append(carrier)
        self._pump_soon()

    def leave(self, carrier: Carrier, batches: Iterable[Batch]) -> None:
        """A worker can't be reached any more; it held these batches.

        Making images has no side effect, so its rows are tried once on another worker.
        """
        if carrier in self._carriers:
            self._carriers.remove(carrier)
        problem = UnavailableProblem("the inference worker died with this request; ask again")
        for batch in batches:
            for ticket in {id(p.ticket): p.ticket for p in batch.pieces}.values():
                if ticket.attempt or not self._carriers:
                    self.cancel(ticket, problem)
                else:
                    self._restart(ticket)
        if not self._carriers:
            for ticket in [ticket for lane in self._lanes.values() for ticket in lane]:
                self.cancel(ticket, UnavailableProblem("no inference worker is left; ask again"))
        self._pump_soon()

    def made(self, batch: Batch, images: Images, compute_s: float) -> None:
        """A worker answered: hands the images out and sends the next batch."""
        self._rate.add(batch.num_rows)
        row = 0
        for piece in batch.pieces:
            num = piece.stop - piece.start
            self._accept(piece, images[row : row + num], compute_s)
            row += num
        self._pump_soon()

    def failed(self, batch: Batch, reason: str) -> None:
        """A worker could not make a batch."""
        for piece in batch.pieces:
            self.cancel(piece.ticket, UnavailableProblem(reason))
        self._pump_soon()

    def _pump_soon(self) -> None:
        """Pumps once the event loop has read what has come: that many rows share a batch."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Sends batches while a worker has room and rows wait."""
        self._pumping = False
        while self._lanes:
            carrier = max(self._carriers, key=lambda c: c.room, default=None)
            if carrier is None or carrier.room < 1:
                return
            batch = self._cut()
            if batch is not None:
                self._on_batch(batch.num_rows)
                carrier.carry(batch)

    def _cut(self) -> Batch | None:
        """A batch from the lane whose turn it is."""
        key, lane = self._lanes.popitem(last=False)
        pieces: list[Piece] = []
        num_rows = 0
        now = time.perf_counter()
        while lane and num_rows < self.max_batch_rows:
            ticket = lane[0]
            take = min(ticket.num_rows - ticket.num_sent, self.max_batch_rows - num_rows)
            pieces.append(Piece(ticket, ticket.num_sent, ticket.num_sent + take, ticket.attempt))
            ticket.num_sent += take
            num_rows += take
            if ticket.num_sent == ticket.num_rows:
                ticket.queue_s = now - ticket.entered
                lane.popleft()
        if lane:
            self._lanes[key] = lane  # at the end: the other lanes come first now
        self.waiting_rows -= num_rows
        return Batch(key, pieces, num_rows) if pieces else None

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
        """Puts a ticket back at the head of its lane, as if nothing of it had been sent."""
        if ticket.done.done():
            return
        unsent = ticket.num_rows - ticket.num_sent
        lane = self._lanes.setdefault(ticket.key, deque())
        if not unsent:
            lane.appendleft(ticket)
        self.waiting_rows += ticket.num_sent
        ticket.num_sent = ticket.num_made = 0
        ticket.images = None
        ticket.attempt += 1


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


def deadline_problem(timeout_ms: int) -> DeadlineProblem:
    """What a client hears at its deadline."""
    return DeadlineProblem(
        f"the images were not made within {timeout_ms} ms; ask for fewer, or again later"
    )


def _retry_after(seconds: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"retry-after", str(seconds).encode("ascii")),)
