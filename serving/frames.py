"""What crosses the border between an HTTP process and an inference worker: one frame a batch.

    uint32 length of the message | uint32 length of the body | message (MessagePack) | body (raw)

Little-endian. The body starts at a multiple of 16 and is the bytes of the arrays that the message
describes, in C order. Both ends are ours and of one version, on a Unix socket that only this user
can open: nothing is negotiated.
"""

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

_LENGTHS = struct.Struct("<II")
_SCRATCH_BYTES = 1 << 18


class Loaded(msgspec.Struct, frozen=True, array_like=True):
    """A version that a worker can run now."""

    name: str
    version: int
    digest: str


class Candidacy(msgspec.Struct, frozen=True, array_like=True):
    """A version on trial, as a worker found it."""

    name: str
    version: int | None
    """None where CANDIDATE can't be read."""
    share_percent: float
    digest: str
    refused: str
    """Why it takes no part; empty where it does."""


class Announce(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Worker to HTTP process: the version of each model to use where none is asked for."""

    current: list[Loaded]
    candidates: list[Candidacy]
    device: str
    lanes: int
    """Batches that the worker makes at once."""
    complaints: dict[str, str]
    """What is wrong with which model."""


class Run(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """HTTP process to worker: make these rows. Body: label, z, psi, as present."""

    batch: int
    name: str
    version: int
    num_rows: int
    z_dim: int
    has_label: bool
    has_psi: bool


class Made(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Worker to HTTP process: the images. Body: uint8 [N, H, W, C]."""

    batch: int
    shape: tuple[int, int, int, int]
    compute_s: float


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Worker to HTTP process: the batch could not be made, and why."""

    batch: int
    reason: str


class Refresh(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """HTTP process to worker: look at the repository now; try what was refused again."""

    number: int


class Refreshed(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Worker to HTTP process: done, and announced."""

    number: int


Message = Announce | Run | Made | Failed | Refresh | Refreshed

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def pack(message: Message, arrays: Sequence[npt.NDArray[Any]] = ()) -> list[bytes | memoryview]:
    """The buffers of one frame, in order; arrays must be C-contiguous."""
    data = _encoder.encode(message)
    bodies = [array.data.cast("B") for array in arrays if array.size]
    head = _LENGTHS.pack(len(data), sum(body.nbytes for body in bodies))
    padding = bytes(_body_start(len(data)) - _LENGTHS.size - len(data))
    return [head + data + padding, *bodies]


def run_arrays(
    run: Run, body: memoryview
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64] | None, npt.NDArray[np.float32] | None]:
    """A Run's arrays: z [N, z_dim], label [N] or None, psi [N] or None, as views of its body."""
    end_label = run.num_rows * 8 if run.has_label else 0
    end_z = end_label + run.num_rows * run.z_dim * 4
    label = np.frombuffer(body[:end_label], np.int64) if run.has_label else None
    z = np.frombuffer(body[end_label:end_z], np.float32).reshape(run.num_rows, run.z_dim)
    psi = np.frombuffer(body[end_z:], np.float32) if run.has_psi else None
    return z, label, psi


def _body_start(num_message: int) -> int:
    return (_LENGTHS.size + num_message + 15) // 16 * 16


class FrameProtocol(asyncio.BufferedProtocol):
    """Reads frames off a stream socket, large ones straight into their own memory."""

    def __init__(
        self,
        on_frame: Callable[["FrameProtocol", Message, memoryview], None],
        on_made: Callable[["FrameProtocol"], None],
        on_lost: Callable[["FrameProtocol"], None],
    ) -> None:
        """on_frame gets each message with its body; on_made and on_lost the connection's ends."""
        self._on_frame, self._on_made, self._on_lost = on_frame, on_made, on_lost
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._held = 0  # bytes of scratch that hold the start of a frame
        self._large: memoryview | None = None  # a frame that scratch can't hold
        self._large_held = 0
        self.transport: asyncio.Transport

    def send(self, message: Message, arrays: Sequence[npt.NDArray[Any]] = ()) -> None:
        """Sends one frame; a no-op on a connection that is closing."""
        if not self.transport.is_closing():
            self.transport.writelines(pack(message, arrays))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._on_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio's protocol."""
        self._on_lost(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Part of asyncio's protocol."""
        if self._large is not None:
            return self._large[self._large_held :]
        return self._scratch[self._held :]

    def buffer_updated(self, nbytes: int) -> None:
        """Part of asyncio's protocol."""
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
