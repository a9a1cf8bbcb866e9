"""Stands in for the server: responds with any bytes, late, byte by byte, or never."""

import contextlib
import io
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.client.responses import NPY

Write = Callable[[bytes], object]
Turn = Callable[[Write, threading.Event], None]

MODEL = {
    "name": "grey",
    "version": 2,
    "digest": "d",
    "versions": [2],
    "z_dim": 6,
    "image": {"height": 8, "width": 8, "channels": 1},
    "labels": None,
    "limits": {
        "max_seeds": 300,
        "max_image_pixels": 1 << 20,
        "max_frames": 99,
        "request_timeout_ms": 10_000,
    },
}
MADE_BY = {"x-model": "grey", "x-model-version": "2", "x-model-digest": "d"}


@dataclass
class Peer:
    """A server that plays its turns, and what it was sent."""

    url: str = ""
    heads: list[str] = field(default_factory=list)
    """Of the requests, in lower case."""

    def header(self, name: str) -> str | None:
        """What the last request says."""
        for line in self.heads[-1].splitlines():
            if line.startswith(f"{name}: "):
                return line.partition(": ")[2]
        return None


@contextlib.contextmanager
def peer(*turns: Turn, again: Turn | None = None) -> Iterator[Peer]:
    """Each request is answered by the next turn, then by `again`; then its connection ends."""
    left, ended, playing = iter(turns), threading.Event(), Peer()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client has hung up
                while lines := list(iter(lambda: self.rfile.readline().strip().lower(), b"")):
                    head = b"\n".join(lines).decode()
                    length = head.partition("content-length: ")[2].partition("\n")[0]
                    self.rfile.read(int(length or 0))
                    playing.heads.append(head)
                    turn = next(left, again)
                    if turn is None:
                        return
                    turn(self.wfile.write, ended)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        playing.url = f"http://127.0.0.1:{listening.server_address[1]}"
        try:
            yield playing
        finally:
            ended.set()
            listening.shutdown()
            thread.join()


def message(status: int, body: bytes, **headers: str) -> bytes:
    """An answer as it is on the wire."""
    named = {**headers, "content-length": str(len(body))}
    lines = [f"HTTP/1.1 {status} So", *(f"{k.replace('_', '-')}: {v}" for k, v in named.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def says(data: bytes) -> Turn:
    """Answers at once."""
    return lambda write, ended: write(data) and None


def late(data: bytes, pause_s: float) -> Turn:
    """Answers after a while."""

    def turn(write: Write, ended: threading.Event) -> None:
        if not ended.wait(pause_s):
            write(data)

    return turn


def trickles(data: bytes, at_once: int, pause_s: float) -> Turn:
    """Answers with some bytes, then byte by byte."""

    def turn(write: Write, ended: threading.Event) -> None:
        write(data[:at_once])
        for byte in data[at_once:]:
            if ended.wait(pause_s):
                return
            write(bytes([byte]))

    return turn


def says_nothing(write: Write, ended: threading.Event) -> None:
    """Leaves a request without an answer."""
    ended.wait()


def models(*found: dict[str, Any]) -> bytes:
    """The answer of GET /v1/models; of one model if none is given."""
    body = json.dumps({"models": found or [MODEL]}).encode()
    return message(200, body, content_type="application/json")


def npy(array: np.ndarray, **headers: str) -> bytes:
    """An answer with images."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    named = {**{k.replace("-", "_"): v for k, v in MADE_BY.items()}, "content_type": NPY}
    return message(200, buffer.getvalue(), **{**named, **headers})
