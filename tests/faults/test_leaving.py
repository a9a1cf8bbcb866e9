"""Clients that end their side, or leave: the former are answered, for the latter nothing is made.

Each at every moment: before the request is whole, while its rows wait, while they are computed,
while they are encoded, while the answer is written.
"""

import json
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from models.repository import Repository
from tests.conftest import ServerProcess, server_process
from tests.faults.raw import Raw, raw
from tests.support import metric, wait_for

pytestmark = pytest.mark.chaos  # it waits for clients that are looked for after half a second

WAITING = "saddlepoint_rows_waiting"
IN_FLIGHT = "saddlepoint_rows_in_flight"
HELD = "saddlepoint_held_bytes"
DROPPED = 'saddlepoint_rows_abandoned_total{reason="disconnect"}'
MADE = "saddlepoint_rows_generated_total"


@pytest.fixture(scope="module")
def slow(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Any]
) -> Iterator[ServerProcess]:
    """Some milliseconds a row: a hundred rows are a queue that a test can look at."""
    folder = tmp_path_factory.mktemp("leaving")
    repository = Repository(folder / "models")
    repository.publish("slow", make_bundle(z_dim=512, size=160, channels=3))
    flags = {
        "max-batch-rows": 4,
        "compute-threads": 1,
        "compute-lanes": 1,
        "max-waiting-rows": 4096,
        "max-seeds": 2000,
        "cache-bytes": 0,
        "max-body-bytes": 32 << 20,
        "max-frames": 600,
    }
    given = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    with server_process(repository.root, folder, *given) as server:
        assert server.generate(seeds=[1]).status_code == 200
        yield server


def post(path: str, body: Any, version: str = "1.1", *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = (f"POST {path} HTTP/{version}", "Host: x", *headers, f"Content-Length: {len(data)}")
    return "\r\n".join((*lines, "", "")).encode() + data


def infer(num: int) -> bytes:
    seeds = {"name": "SEED", "datatype": "UINT64", "shape": [num], "data": list(range(num))}
    outputs = [{"name": "image", "parameters": {"binary_data": True}}]
    return post("/v2/models/slow/infer", {"inputs": [seeds], "outputs": outputs})


def walk(kind: str, frames: int) -> bytes:
    return post("/v1/interpolate", {"seeds": [1, 2, 3], "frames": frames, "format": kind})


def array(num: int, path: str = "/v1/generate") -> bytes:
    return post(path, {"seeds": list(range(num)), "format": "npy"})


def vectors(num: int) -> bytes:
    """Of which only a part is read ahead."""
    latents = [[0.12345] * 512] * num
    return post("/v1/generate?", {"latents": latents, "format": "npy"})


requests: dict[str, bytes] = {
    "an image by its address": b"GET /v1/models/slow/images/7.png HTTP/1.1\r\nHost: x\r\n\r\n",
    "an image": post("/v1/generate", {"seeds": [7]}),
    "an array": array(60),
    "many latents, by the router": vectors(60),
    "a list of files": post("/v1/generate", {"seeds": list(range(20)), "format": "png"}),
    "tensors": infer(60),
    "a WebP": walk("webp", 40),
    "a GIF": walk("gif", 40),
}


@pytest.mark.parametrize("name", requests)
def test_who_ends_his_side_is_answered_like_others(slow: ServerProcess, name: str) -> None:
    """With the same bytes."""
    answers = []
    for ends in ("never", "at once", "later"):
        with raw(slow, timeout_s=60) as connection:
            connection.send(requests[name])
            if ends == "later":  # while it waits, is computed or encoded, or is there
                wait_for(
                    lambda: (
                        metric(slow, WAITING) + metric(slow, IN_FLIGHT) > 0 or is_there(connection)
                    )
                )
            if ends != "never":
                connection.end_sending()
            answers.append(connection.answer())
            assert ends == "never" or connection.is_ended()
    assert [answer.status for answer in answers] == [200] * 3
    assert answers[0].body == answers[1].body == answers[2].body


def is_there(connection: Raw) -> bool:
    """True where something has come."""
    connection.socket.setblocking(False)
    try:
        return bool(connection.socket.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.socket.settimeout(60)


def close(connection: Raw) -> None:
    """Ends in order: the kernel sends no reset before something is sent to it."""
    connection.socket.close()


def reset(connection: Raw) -> None:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.close()


def end_and_leave_later(connection: Raw) -> None:
    """It has read that the server asks whether it is there, so that leaving sends no reset."""
    connection.end_sending()
    assert connection.read_interim() == 100
    connection.socket.close()


ways = {"closes": close, "resets": reset, "ends, and leaves later": end_and_leave_later}


def nothing(connection: Raw) -> None:
    """Comes before the answer."""


def an_interim_answer(connection: Raw) -> None:
    assert connection.read_interim() == 100


def an_answer(connection: Raw) -> None:
    assert connection.answer().status == 200


ROWS = 1500
long: dict[str, tuple[bytes, Callable[[Raw], None]]] = {
    "an array": (array(ROWS), nothing),
    "an array, by the router": (array(ROWS, "/v1/generate?"), nothing),
    "who waits for 100": (
        post("/v1/generate", {"seeds": list(range(ROWS))}, "1.1", "Expect: 100-continue"),
        an_interim_answer,
    ),
    "many latents": (vectors(ROWS), nothing),
    "tensors": (infer(ROWS), nothing),
    "an animation": (walk("gif", 600), nothing),
    "the second of two": (array(1, "/v1/generate?") + array(ROWS), an_answer),
    "one with much behind it": (array(ROWS) + array(1) * 1000, nothing),
}
"""What keeps the server busy for seconds, and what comes before its answer."""


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *((name, "closes") for name in long),
        ("an array", "resets"),
        ("one with much behind it", "resets"),
        ("an array, by the router", "ends, and leaves later"),
        ("who waits for 100", "ends, and leaves later"),
    ],
)
def test_for_who_leaves_nothing_is_made(slow: ServerProcess, name: str, way: str) -> None:
    data, comes_before = long[name]
    wait_for(lambda: metric(slow, WAITING) + metric(slow, IN_FLIGHT) == 0)
    dropped, made = metric(slow, DROPPED), metric(slow, MADE)
    with raw(slow, timeout_s=20) as connection:
        connection.send(data)
        comes_before(connection)
        wait_for(lambda: metric(slow, WAITING) > 300)
        ways[way](connection)
        wait_for(lambda: metric(slow, DROPPED) > dropped)
    wait_for(lambda: metric(slow, WAITING) + metric(slow, IN_FLIGHT) + metric(slow, HELD) == 0)
    assert metric(slow, MADE) - made < (600 if name == "an animation" else ROWS)
