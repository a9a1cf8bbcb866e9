"""The rows of one request (`Ticket`), and the rows of one run of a model (`Batch`).

A batch is made of pieces, each of which is some rows of one ticket. This module knows how latents
are drawn from seeds. It does not know HTTP or workers, and does not decide what is sent when.
"""

import asyncio
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.bundle.generator import Images
from models.bundle.styles import StyleRows
from models.latents import latents
from serving.dispatch.futures import set_result
from serving.http.context import Timing
from serving.inference.frames import Identity


@dataclass(frozen=True, slots=True, eq=False)
class Styled:
    """How the styles of a request's images are made of w: alike for all of them."""

    psi: npt.NDArray[np.float32]
    """[num_styles]: truncation."""
    other: npt.NDArray[np.float32] | None
    """[z_dim]: the latent that some styles come from."""
    take: npt.NDArray[np.float32] | None
    """[num_styles]: 1 where the style is the other's, else 0."""
    shift: npt.NDArray[np.float32] | None
    """[num_styles, w_dim]: added to w after truncation."""


@dataclass(eq=False, slots=True)
class Ticket:
    """The rows of one request, and the images that were made of them so far."""

    key: Identity
    seeds: list[int] | None
    """[N] integers, or None where latents are given."""
    z: npt.NDArray[np.float32] | None
    """[N, z_dim] where latents are given."""
    labels: list[int] | None
    """[N], for conditional models."""
    psi: float
    """Truncation: z is scaled by it, or given to the graph's mapping network."""
    bulk: bool
    """True if other requests go first."""
    done: asyncio.Future[Images]
    num_rows: int
    num_sent: int = 0
    """Rows that are in flight or made; the ticket waits in a queue while there are others."""
    num_made: int = 0
    attempt: int = 0
    """Raised when the rows are sent again; pieces of an earlier attempt are ignored."""
    is_held: bool = False
    """Admitted, but not to be made yet: there is no memory for its images."""
    images: Images | None = None
    """[N, H, W, C], of a ticket in several pieces: filled as they are made."""
    timing: Timing = field(default_factory=Timing)
    shift: npt.NDArray[np.float32] | None = None
    """[N, z_dim]: added to the latents after psi has scaled them."""
    styled: Styled | None = None
    """Where the images are made of styles; then all of the queue's tickets have this."""
    mask: npt.NDArray[np.float32] | None = None
    """[units]: 0 for those that are off; then all of the queue's tickets have one."""
    rows: npt.NDArray[np.uint8] | None = None
    """[N, bytes], of a part of the model instead of latents; so are then the images."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows start .. stop - 1 of a ticket, as they were sent in its attempt number `attempt`."""

    ticket: Ticket
    start: int
    stop: int
    attempt: int

    @property
    def valid(self) -> bool:
        """Whether the ticket still waits for this attempt, and not for a later one."""
        return self.attempt == self.ticket.attempt

    def accept(self, images: Images, compute_s: float) -> None:
        """Takes this piece's images, and ends the ticket if they are its last ones.

        images: [stop - start, H, W, C] uint8.
        """
        ticket = self.ticket
        if not self.valid or ticket.done.done():
            return
        ticket.timing.compute_s += compute_s
        if len(images) == ticket.num_rows:
            set_result(ticket.done, images)  # in one piece, the usual case: nothing is copied
            return
        if ticket.images is None:
            ticket.images = np.empty((ticket.num_rows, *images.shape[1:]), np.uint8)
        ticket.images[self.start : self.stop] = images
        ticket.num_made += len(images)
        if ticket.num_made == ticket.num_rows:
            set_result(ticket.done, ticket.images)


@dataclass(eq=False, slots=True)
class Batch:
    """The rows that one run of a model makes."""

    key: Identity
    pieces: list[Piece]
    num_rows: int

    def valid(self) -> list[Piece]:
        """Returns the pieces whose tickets still wait for them."""
        return [piece for piece in self.pieces if piece.valid]

    def labels(self) -> npt.NDArray[np.int64] | None:
        """Returns [num_rows] labels, or None for an unconditional model."""
        rows: list[int] = []
        for piece in self.pieces:
            if piece.ticket.labels is None:
                return None
            rows += piece.ticket.labels[piece.start : piece.stop]
        return np.array(rows, np.int64)

    def z(self, z_dim: int, *, scale: bool) -> npt.NDArray[np.float32]:
        """Returns the latents [num_rows, z_dim], of all pieces in order.

        scale: multiply each row by its ticket's psi, for graphs that don't truncate by themselves.
        A ticket's shift is added last.
        """
        seeds: list[int] = []
        for piece in self.pieces:
            if piece.ticket.seeds is not None:
                seeds += piece.ticket.seeds[piece.start : piece.stop]
        # All seeds in one call: drawing them one by one costs more than the model.
        drawn = latents(np.array(seeds, np.uint64), z_dim) if seeds else None
        if drawn is not None and len(drawn) == self.num_rows:
            z = drawn
        else:
            z = self._interleave(drawn, z_dim)
        if scale and any(piece.ticket.psi != 1.0 for piece in self.pieces):
            z *= self.psi()[:, None]
        row = 0
        for piece in self.pieces:
            num = piece.stop - piece.start
            if piece.ticket.shift is not None:
                z[row : row + num] += piece.ticket.shift[piece.start : piece.stop]
            row += num
        return z

    def psi(self) -> npt.NDArray[np.float32]:
        """Returns [num_rows] truncation factors."""
        values = [piece.ticket.psi for piece in self.pieces]
        return np.repeat(np.array(values, np.float32), [p.stop - p.start for p in self.pieces])

    def styled(self, num_styles: int, z_dim: int) -> StyleRows:
        """Returns how the styles of each row are made, for a batch whose tickets all say that."""
        num = self.num_rows
        psi = np.ones((num, num_styles), np.float32)
        other = take = shift = None
        row = 0
        for piece in self.pieces:
            rows = slice(row, row + piece.stop - piece.start)
            row = rows.stop
            given = piece.ticket.styled
            assert given is not None
            psi[rows] = given.psi
            if given.other is not None and given.take is not None:
                if other is None or take is None:
                    other = np.zeros((num, z_dim), np.float32)
                    take = np.zeros((num, num_styles), np.float32)
                other[rows], take[rows] = given.other, given.take
            if given.shift is not None:
                if shift is None:
                    shift = np.zeros((num, *given.shift.shape), np.float32)
                shift[rows] = given.shift
        return StyleRows(psi=psi, other=other, take=take, shift=shift)

    def masks(self) -> npt.NDArray[np.float32]:
        """Returns the mask of each row, [num_rows, units], for a batch whose tickets all have one.

        Unlike psi it differs in width from model to model.
        """
        parts = []
        for piece in self.pieces:
            assert piece.ticket.mask is not None
            parts.append(np.repeat(piece.ticket.mask[None], piece.stop - piece.start, axis=0))
        return np.concatenate(parts)

    def rows(self) -> npt.NDArray[np.uint8]:
        """Returns the rows [num_rows, bytes] of a batch for a part of the model."""
        parts = []
        for piece in self.pieces:
            assert piece.ticket.rows is not None
            parts.append(piece.ticket.rows[piece.start : piece.stop])
        return np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts)

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
