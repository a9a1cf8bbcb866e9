"""The protocol between an HTTP process and an inference worker: one frame for each batch.

    uint32 length of the message | uint32 length of the body | message (MessagePack) | body (raw)

Numbers are little-endian. The body starts at a multiple of 16 bytes, so that arrays are aligned,
and holds the arrays that the message describes, in C order. Both ends have the same version, and
only this user can open the Unix socket, so nothing is negotiated.
"""

import asyncio
import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.bundle.manifest import decode, encode
from models.bundle.styles import StyleRows
from serving.observability.loops import Loop, ends

VersionKey = tuple[str, int]
"""Name and version of a model, as people and metrics name it."""


class Identity(NamedTuple):
    """A version by its content: what a batch is made of, and what its rows look like.

    The digest tells versions apart. A name and a number may be given again, to other content.
    """

    name: str
    version: int
    digest: str
    z_dim: int
    has_mapping: bool
    num_styles: int = 0
    """Of images that are made of styles, by the graph in two parts; 0 by the whole graph."""
    num_units: int = 0
    """Of images that are made with some units off, by the graph with masks; 0 by the others."""
    part: str = ""
    """Of rows that are no latents: the graph that takes them (`serving.inference.parts.rows`)."""

    @classmethod
    def of(cls, bundle: Bundle) -> "Identity":
        """The identity of a bundle."""
        m = bundle.manifest
        return cls(m.name, m.version, bundle.digest, m.z_dim, m.has_mapping)

    @property
    def key(self) -> VersionKey:
        """Name and version."""
        return self.name, self.version


_LENGTHS = struct.Struct("<II")
_SCRATCH_BYTES = 1 << 18

T = TypeVar("T")


def socket_path(run_folder: Path, worker_id: int) -> Path:
    """Returns the socket of a worker."""
    return run_folder / f"worker-{worker_id}.sock"


class Loaded(msgspec.Struct, frozen=True, array_like=True):
    """A version that a worker has loaded and serves.

    The manifest comes with it: who read it from the repository could find another one there.
    """

    name: str
    version: int
    digest: str
    manifest: bytes
    """As JSON."""

    @classmethod
    def of(cls, bundle: Bundle) -> "Loaded":
        """What is told of a bundle."""
        manifest = bundle.manifest
        return cls(manifest.name, manifest.version, bundle.digest, encode(manifest))

    def bundle(self, repository: Path) -> Bundle:
        """The bundle, as the worker read it; its folder may hold another one by now."""
        where = f"the announced manifest of {self.name!r}"
        folder = repository / self.name / str(self.version)
        return Bundle(folder, decode(self.manifest, where), self.digest)


class Candidacy(msgspec.Struct, frozen=True, array_like=True):
    """A model's version on trial, as a worker found it."""

    name: str
    version: int | None
    """None if CANDIDATE can't be read."""
    share_percent: float
    loaded: Loaded | None
    """None where it takes no part."""
    refused: str
    """Why it gets no seeds, in words for clients; empty if it does."""

    @property
    def digest(self) -> str:
        """Empty if it gets no seeds."""
        return "" if self.loaded is None else self.loaded.digest


class Announce(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Worker to HTTP process: what it serves; sent on connecting, and after every change."""

    current: list[Loaded]
    candidates: list[Candidacy]
    device: str
    lanes: int
    """Number of batches that the worker computes at the same time."""
    faults: dict[str, str]
    """By model, why its current version can't be used, in words for clients."""
    starting: bool
    """True until every model was loaded or refused once: it is not to be sent batches yet."""


class Run(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """HTTP process to worker: make these rows. Body: label, z, psi, as present."""

    batch: int
    name: str
    version: int
    digest: str
    num_rows: int
    z_dim: int
    has_label: bool
    has_psi: bool
    num_styles: int = 0
    """Above 0: psi is that of each style, and `other`, `take` and `shift` follow, as present."""
    has_other: bool = False
    w_dim: int = 0
    """Of `shift`; 0 where there is none."""
    num_units: int = 0
    """Above 0: a mask over the units follows psi."""
    part: str = ""
    """The graph that takes the rows, which then are the whole body: uint8 [num_rows, bytes]."""


class Made(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Worker to HTTP process: the images, uint8 [N, H, W, C]; of a part its rows, [N, bytes]."""

    batch: int
    shape: tuple[int, ...]
    compute_s: float


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Worker to HTTP process: the batch could not be made, and why."""

    batch: int
    reason: str
    by_version: bool = False
    """The version's files are at fault, not this machine or its storage."""


class Refresh(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """HTTP process to worker: look at the repository now, and try refused versions again."""

    number: int


class Refreshed(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Worker to HTTP process: has looked, and announced what it found."""

    number: int
    fault: str
    """Why the repository could not be looked at, in words for clients; empty where it was."""


class Parked(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Worker to HTTP process: the batch waits until its version is loaded, and takes no slot."""

    batch: int


class Beat(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Worker to everyone who is connected, `BEAT_S` apart: its event loop turns."""


BEAT_S = 0.5
"""Between two heartbeats."""

Message = Announce | Run | Made | Failed | Refresh | Refreshed | Parked | Beat

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def pack(message: Message, arrays: Sequence[npt.NDArray[Any]] = ()) -> list[bytes | memoryview]:
    """Returns the buffers of one frame, in order; arrays must be C-contiguous."""
    data = _encoder.encode(message)
    bodies = [array.data.cast("B") for array in arrays if array.size]
    head = _LENGTHS.pack(len(data), sum(body.nbytes for body in bodies))
    padding = bytes(_body_start(len(data)) - _LENGTHS.size - len(data))
    return [head + data + padding, *bodies]


def run_arrays(
    run: Run, body: memoryview
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64] | None, npt.NDArray[np.float32] | None]:
    """Returns a Run's arrays as views of its body: z [N, z_dim], label and psi [N] or None."""
    end_label = run.num_rows * 8 if run.has_label else 0
    end_z = end_label + run.num_rows * run.z_dim * 4
    label = np.frombuffer(body[:end_label], np.int64) if run.has_label else None
    z = np.frombuffer(body[end_label:end_z], np.float32).reshape(run.num_rows, run.z_dim)
    end_psi = end_z + (run.num_rows * 4 if run.has_psi else 0)
    psi = np.frombuffer(body[end_z:end_psi], np.float32) if run.has_psi else None
    return z, label, psi


def rows_of(run: Run, body: memoryview) -> npt.NDArray[np.uint8]:
    """Returns the rows of a Run of a part, [N, bytes]."""
    return np.frombuffer(body, np.uint8).reshape(run.num_rows, -1)


def mask_of(run: Run, body: memoryview) -> npt.NDArray[np.float32]:
    """Returns the masks of a Run with some units off, [N, units]: the last of its arrays."""
    start = len(body) - 4 * run.num_rows * run.num_units
    return np.frombuffer(body[start:], np.float32).reshape(run.num_rows, run.num_units)


def styled_arrays(
    run: Run, body: memoryview
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64] | None, StyleRows]:
    """Returns the arrays of a Run of styles: z, label or None, and what is done with w."""
    num, num_styles = run.num_rows, run.num_styles
    position = num * 8 if run.has_label else 0
    label = np.frombuffer(body[:position], np.int64) if run.has_label else None

    def take(*shape: int) -> npt.NDArray[np.float32]:
        nonlocal position
        start, position = position, position + 4 * math.prod(shape)
        return np.frombuffer(body[start:position], np.float32).reshape(shape)

    z, psi = take(num, run.z_dim), take(num, num_styles)
    other = take(num, run.z_dim) if run.has_other else None
    chosen = take(num, num_styles) if run.has_other else None
    shift = take(num, num_styles, run.w_dim) if run.w_dim else None
    return z, label, StyleRows(psi=psi, other=other, take=chosen, shift=shift)


def _body_start(num_message: int) -> int:
    return (_LENGTHS.size + num_message + 15) // 16 * 16


class FrameProtocol(asyncio.BufferedProtocol):
    """Reads and writes frames on a stream socket.

    Small frames are read into a scratch buffer, several by one call of the kernel; a frame larger
    than that is read straight into memory of its own, which saves copying its images.

    If a frame can't be read, written or handled, the connection ends. Who is at the other end takes
    back what it had sent; anything else would lose a batch without a word.
    """

    def __init__(
        self,
        on_frame: Callable[["FrameProtocol", Message, memoryview], None],
        on_made: Callable[["FrameProtocol"], None],
        on_lost: Callable[["FrameProtocol"], None],
        loop: Loop | None = None,
    ) -> None:
        """on_frame: called with each message and body; on_made, on_lost: with the connection.

        loop: takes note of failures; it outlives a connection.
        """
        self._on_frame, self._on_made, self._on_lost = on_frame, on_made, on_lost
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._held = 0  # bytes of scratch that hold the start of a frame
        self._large: memoryview | None = None  # a frame that scratch can't hold
        self._large_held = 0
        self._loop = loop or Loop("frames")
        self.transport: asyncio.Transport

    def send(self, message: Message, arrays: Sequence[npt.NDArray[Any]] = ()) -> None:
        """Sends one frame; does nothing on a connection that is closing.

        Raises:
            Exception: it can't be packed, and nothing was sent; or written: the connection ends.
        """
        if self.transport.is_closing():
            return
        frame = pack(message, arrays)
        try:
            self.transport.writelines(frame)
        except BaseException:
            self.transport.abort()  # a part of the frame may be on its way
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Calls on_made."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._guard(self._on_made, self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Calls on_lost."""
        self._guard(self._on_lost, self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Returns the memory to read into next: the rest of a large frame, or of scratch."""
        if self._large is not None:
            return self._large[self._large_held :]
        return self._scratch[self._held :]

    def buffer_updated(self, nbytes: int) -> None:
        """Takes what asyncio has read, and delivers the frames that it completes."""
        self._guard(self._take, nbytes)

    def _guard(self, step: Callable[[T], None], given: T) -> None:
        """Does a step; the connection ends where that fails."""
        try:
            step(given)
        except BaseException as error:
            if ends(error):
                raise
            self._loop.failed(error)
            self.transport.abort()
        else:
            if self._loop.failing_since is not None:
                self._loop.succeeded()

    def _take(self, nbytes: int) -> None:
        if self._large is None:
            self._held += nbytes
            self._read_scratch()
            return
        self._large_held += nbytes
        if self._large_held == len(self._large):
            frame, self._large = self._large, None
            self._deliver(frame)

    def _read_scratch(self) -> None:
        start = 0
        while self._held - start >= _LENGTHS.size:
            num_message, num_body = _LENGTHS.unpack_from(self._scratch, start)
            size = _body_start(num_message) + num_body
            if size > self._held - start:
                break
            self._deliver(memoryview(bytes(self._scratch[start : start + size])))
            start += size
        rest = self._held - start
        if rest >= _LENGTHS.size and size > _SCRATCH_BYTES:
            self._large = memoryview(bytearray(size))
            self._large[:rest] = self._scratch[start : self._held]
            self._large_held, self._held = rest, 0
            return
        if start:
            self._scratch[:rest] = bytes(self._scratch[start : self._held])
        self._held = rest

    def _deliver(self, frame: memoryview) -> None:
        num_message, _ = _LENGTHS.unpack_from(frame)
        message = _decoder.decode(frame[_LENGTHS.size : _LENGTHS.size + num_message])
        self._on_frame(self, message, frame[_body_start(num_message) :])
