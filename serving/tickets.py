"""What waits and what is sent: the rows of one request, and the rows of one run of a model.

A `Ticket` is what one request wants: N rows of one version. A `Batch` is cut from one or more of
them. Knows how latents are drawn; nothing of HTTP, workers or turns.
"""

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.generator import Images
from models.latents import latents

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
    bulk: bool
    """True where other requests go first."""
    done: asyncio.Future[Images]
    num_rows: int
    num_sent: int = 0
    num_made: int = 0
    attempt: int = 0
    images: Images | None = None
    entered: float = field(default_factory=time.perf_counter)
    queue_s: float = 0.0
    compute_s: float = 0.0
    encode_began: float = 0.0
    """By time.perf_counter; 0 until the images are there."""
    encode_s: float = 0.0


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
