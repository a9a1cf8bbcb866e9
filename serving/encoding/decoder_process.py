"""The process that decodes images: a file comes by its socket, pixels or a reason go back.

It may use so much memory and processor time, and no files: what a hostile file does to a parser,
it does to this process alone. It ends when the other end of the socket is closed.

    request  uint32 length of the message | uint32 length of the file | Wanted (MessagePack) | file
    answer   uint32 length of the message | uint32 length of the body | Answer (MessagePack) | body
"""

import resource
import signal
import socket
import struct
from pathlib import Path

import msgspec

from serving.encoding.pixels import RefusedImageError, Wanted, decode, is_npy

LENGTHS = struct.Struct("<II")
_BYTES_A_PIXEL = 24  # of memory while it is decoded: RGBA, a copy in other colours, arrays of them
_LEAST_BYTES = 128 << 20
_PAGE_BYTES = resource.getpagesize()


class Answer(msgspec.Struct, frozen=True):
    """Body: the pixels, and where `has_known` says so which of them are there."""

    shape: tuple[int, int, int]
    has_known: bool
    refused: str
    """Why there are no pixels; empty where there are."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the file's image as a viewer shows it."""


def read_exactly(connection: socket.socket, size: int) -> bytearray:
    """Reads so many bytes.

    Raises:
        EOFError: the other end has closed before.
        OSError: the connection failed, or timed out.
    """
    data = bytearray(size)
    view, position = memoryview(data), 0
    while position < size:
        num = connection.recv_into(view[position:])
        if num == 0:
            raise EOFError
        position += num
    return data


def main(descriptor: int, max_pixels: int, cpu_s: float) -> None:
    """Serves the socket of this descriptor; cpu_s: for one file."""
    # Who asked for files decides when this ends, also where the whole group is told to stop:
    # the server still answers then what has begun.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _limit(max_pixels)
    connection = socket.socket(fileno=descriptor)
    requests = msgspec.msgpack.Decoder(Wanted)
    while True:
        try:
            num_message, num_file = LENGTHS.unpack(read_exactly(connection, LENGTHS.size))
            message = read_exactly(connection, num_message)
            file: bytearray | bytes = read_exactly(connection, num_file)
            if not is_npy(file):
                file = bytes(file)  # the one copy of it: Pillow reads nothing else
        except (EOFError, OSError):
            return
        # Its default action ends the process, whatever C code does at the moment.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        answer, body = _answer(file, requests.decode(message))
        signal.setitimer(signal.ITIMER_PROF, 0)
        words = msgspec.msgpack.encode(answer)
        connection.sendall(LENGTHS.pack(len(words), len(body)) + words + body)


def _answer(file: bytes | bytearray, wanted: Wanted) -> tuple[Answer, bytes]:
    try:
        decoded = decode(file, wanted)
    except RefusedImageError as error:
        return Answer((0, 0, 0), False, str(error)), b""
    body, known = decoded.pixels.tobytes(), decoded.known
    shape: tuple[int, int, int] = decoded.pixels.shape
    if known is None:
        return Answer(shape, False, "", decoded.size), body
    return Answer(shape, True, "", decoded.size), body + known.tobytes()


def _limit(max_pixels: int) -> None:
    """Bounds memory beyond what is in use now, and takes files and cores away."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE_BYTES
    most = in_use + max(_LEAST_BYTES, _BYTES_A_PIXEL * max_pixels)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (0, 0))
