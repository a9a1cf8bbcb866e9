"""Clients that don't read their answers: what they cost is bounded, and they end."""

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.repository import Repository
from tests.conftest import ServerProcess, server_process
from tests.faults.raw import Raw, raw
from tests.support import http_processes_of, metric, wait_for

pytestmark = pytest.mark.chaos

ENDED = "saddlepoint_connections_ended_total"
HELD = "saddlepoint_held_bytes"
MAX_HELD_BYTES = 96 << 20
WRITE_TIMEOUT_S = 2.0
PIXELS_BYTES = 256 * 256 * 3


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, make_bundle: Any) -> Path:
    """large: 256x256 RGB; small: 8x8 grey."""
    root: Path = tmp_path_factory.mktemp("unread")
    Repository(root).publish("large", make_bundle(size=256, channels=3))
    Repository(root).publish("small", make_bundle())
    return root


@contextlib.contextmanager
def started(repository: Path, folder: Path, *flags: str) -> Iterator[ServerProcess]:
    usual = ("--cache-bytes", "0", "--write-timeout-s", str(WRITE_TIMEOUT_S))
    with server_process(
        repository, folder, *usual, "--max-held-bytes", str(MAX_HELD_BYTES), *flags
    ) as server:
        assert server.generate(model="large", seeds=[1]).status_code == 200
        assert server.generate(model="small", seeds=[1]).status_code == 200
        yield server


@pytest.fixture(scope="module")
def bounded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with started(repository, tmp_path_factory.mktemp("unread-server")) as server:
        yield server


def memory_of(server: ServerProcess) -> int:
    """Resident memory of the HTTP processes, in bytes."""
    total = 0
    for pid in http_processes_of(server):
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.split("VmRSS:")[1].split()[0]) << 10
    return total


@contextlib.contextmanager
def watched_memory(server: ServerProcess) -> Iterator[list[int]]:
    """What the HTTP processes have had at most, in the only entry."""
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            with contextlib.suppress(OSError, IndexError):
                most[0] = max(most[0], memory_of(server))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def post(path: str, body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def album(num: int, **fields: Any) -> bytes:
    """A generate request of large images as they are."""
    seeds = list(range(num))
    return post("/v1/generate", {"model": "large", "seeds": seeds, "format": "npy", **fields})


def infer(num: int, *, binary: bool) -> bytes:
    seeds = {"name": "SEED", "datatype": "UINT64", "shape": [num], "data": list(range(num))}
    outputs = [{"name": "image", "parameters": {"binary_data": binary}}]
    return post("/v2/models/large/infer", {"inputs": [seeds], "outputs": outputs})


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


walk = {"model": "large", "seeds": [1, 2, 3], "frames": 60, "format": "webp"}
asked: dict[str, tuple[bytes, int]] = {
    "an array": (album(60), 20),
    "a list of files": (album(16, format="png"), 50),
    "one file": (post("/v1/generate", {"model": "large", "seeds": [1], "format": "webp"}), 400),
    "tensors as bytes": (infer(60, binary=True), 20),
    "tensors as JSON": (infer(10, binary=False), 20),
    "an animation": (post("/v1/interpolate", walk), 20),
    "problems": (post("/v1/generate", {"model": "nix" * 20, "seeds": [1]}), 40_000),
    "problems of no route": (get("/nix"), 40_000),
    "heads": (get("/", "HEAD"), 40_000),
    "metrics": (get("/metrics"), 2_000),
    "pages": (get("/web/playground/wall.js"), 3_000),
    "the description": (get("/openapi.json"), 500),
}
"""A request, and how often it is sent; all of its answers are more than any kernel takes."""


def send_for_ever(connection: Raw, data: bytes) -> threading.Thread:
    """Sends as much as the server takes, beside the test."""

    def send() -> None:
        with contextlib.suppress(OSError):
            connection.send(data)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("name", asked)
def test_who_reads_nothing_costs_one_answer_and_is_ended(bounded: ServerProcess, name: str) -> None:
    data, times = asked[name]
    before, memory = metric(bounded, ENDED), memory_of(bounded)
    rows = "saddlepoint_rows_generated_total"
    made = metric(bounded, rows)
    with watched_memory(bounded) as most, raw(bounded, receive_buffer=4096) as connection:
        sender = send_for_ever(connection, data * times)
        wait_for(lambda: metric(bounded, ENDED) == before + 1)
        sender.join()
        assert connection.rest().count(b"HTTP/1.1 ") < times
    if name == "an array":  # the next one is not begun before this one is taken
        assert metric(bounded, rows) - made < 3 * 60
    wait_for(lambda: metric(bounded, HELD) == 0)
    assert most[0] - memory < MAX_HELD_BYTES + (64 << 20), most
    assert f'{ENDED}{{reason="write-timeout"}}' in bounded.get("/metrics").text


def test_six_albums_that_nobody_reads_hold_what_may_be_held_and_no_drain(
    repository: Path, tmp_path: Path
) -> None:
    """Each is 200 MB: the first is made, the others wait for room that it doesn't give back."""
    flags = ("--write-timeout-s", "300", "--drain-timeout-s", "240")
    with started(repository, tmp_path, *flags) as server:
        memory = memory_of(server)
        with watched_memory(server) as most, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(raw(server, receive_buffer=4096)) for _ in range(6)]
            for client in clients:
                client.send(album(400))
            wait_for(lambda: metric(server, HELD) > 50 << 20)
            wait_for(lambda: metric(server, ENDED) >= 3)  # those go who take nothing
            assert server.generate(model="small", seeds=[7]).status_code == 200
            server.process.terminate()
            assert server.process.wait(120) == 0, server.log.read_text()
        # One alone may be more than the bound: 400 images are 79 MB, and as much again as a file.
        assert most[0] - memory < 2 * 400 * PIXELS_BYTES + (96 << 20), most


def test_a_client_that_reads_slowly_gets_everything(bounded: ServerProcess) -> None:
    """It needs three times the write time-out, and takes some all the while."""
    with raw(bounded, receive_buffer=64 << 10) as connection:
        connection.send(album(60))
        data = bytearray()
        while len(data) < 60 * PIXELS_BYTES:
            chunk = connection.socket.recv(1 << 16)
            assert chunk, len(data)
            data += chunk
            time.sleep(3 * WRITE_TIMEOUT_S / (60 * PIXELS_BYTES / (1 << 16)))
    assert b"\r\n\r\n\x93NUMPY" in data


def test_a_byte_now_and_then_is_not_reading(bounded: ServerProcess) -> None:
    before = metric(bounded, ENDED)
    with raw(bounded, receive_buffer=4096) as connection:
        connection.send(album(60))
        connection.socket.settimeout(1)
        deadline = time.monotonic() + 60
        while metric(bounded, ENDED) == before and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection.socket.recv(100)
    assert metric(bounded, ENDED) == before + 1


@pytest.mark.parametrize("trickles", [False, True])
def test_a_drain_waits_for_nobody_who_does_not_read(
    repository: Path, tmp_path: Path, trickles: bool
) -> None:
    """Of all kinds at once, one of them taking a little; who reads gets the whole answer."""
    flags = ("--write-timeout-s", "300", "--drain-timeout-s", "240")
    with started(repository, tmp_path, *flags) as server:
        stop = threading.Event()
        with contextlib.ExitStack() as stack:
            clients = []
            for data, times in asked.values():
                client = stack.enter_context(raw(server, receive_buffer=4096))
                send_for_ever(client, data * times)
                clients.append(client)
            reader = stack.enter_context(raw(server))
            reader.send(album(60))
            time.sleep(2)

            def trickle() -> None:
                while not stop.wait(0.1):
                    for client in clients:
                        with contextlib.suppress(OSError):
                            client.socket.recv(64, socket.MSG_DONTWAIT)

            thread = threading.Thread(target=trickle if trickles else stop.wait)
            thread.start()
            server.process.terminate()
            answer = reader.answer()
            assert (answer.status, len(answer.body) > 60 * PIXELS_BYTES) == (200, True)
            reader.socket.close()
            # Nobody who doesn't read is waited for: that would be the drain time-out, four minutes.
            code = server.process.wait(120)
            stop.set()
            thread.join()
            for client in clients:
                with contextlib.suppress(OSError):  # the server closed it, or its sender did
                    client.socket.shutdown(socket.SHUT_RDWR)
        assert code == 0, server.log.read_text()


def test_bodies_are_bounded_together(bounded: ServerProcess) -> None:
    """Fifty clients that send almost all of a large body, and wait."""
    memory = memory_of(bounded)
    size = 8 << 20
    head = f"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
    with watched_memory(bounded) as most, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(raw(bounded)) for _ in range(50)]
        senders = [send_for_ever(client, head + b" " * (size - 1)) for client in clients]
        for sender in senders:
            sender.join()
        sockets, least = [client.socket for client in clients], 50 - MAX_HELD_BYTES // size
        wait_for(lambda: len(select.select(sockets, [], [], 0)[0]) >= least)
        answered = set(select.select(sockets, [], [], 0)[0])
        refused = 0
        for client in clients:
            if client.socket in answered:
                with contextlib.suppress(ConnectionError):
                    answer = client.answer()
                    assert (answer.status, answer.problem()) == (429, "overloaded")
                    refused += 1
        soon = {"x-request-timeout-ms": "1000"}  # all that may be held is held
        body = {"model": "small", "seeds": [7]}
        assert bounded.post("/v1/generate", json=body, headers=soon).status_code in (200, 504)
    assert refused >= least
    assert most[0] - memory < MAX_HELD_BYTES + (64 << 20), most
    wait_for(lambda: metric(bounded, HELD) == 0)


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("name", ["an array", "tensors as bytes", "an animation"])
def test_who_leaves_gives_everything_back(bounded: ServerProcess, name: str, leave: str) -> None:
    data, _ = asked[name]
    for pause_s in (0.0, 0.05, 0.3):
        with raw(bounded, receive_buffer=4096) as connection:
            connection.send(data)
            time.sleep(pause_s)
            if leave == "reset":
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    for name_ in (HELD, "saddlepoint_rows_waiting", "saddlepoint_rows_in_flight"):
        wait_for(lambda name_=name_: metric(bounded, name_) == 0)  # type: ignore[misc]


def test_what_is_small_is_answered_while_albums_wait(bounded: ServerProcess) -> None:
    asks: list[Callable[[], int]] = [
        lambda: bounded.generate(model="small", seeds=[7]).status_code,
        lambda: bounded.get("/livez").status_code,
        lambda: bounded.get("/metrics").status_code,
        lambda: bounded.get("/v1/models/large/images/3.webp").status_code,
    ]
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(raw(bounded, receive_buffer=4096)).send(album(200))
        for _ in range(5):
            assert [ask() for ask in asks] == [200] * 4
