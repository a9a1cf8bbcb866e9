"""Requests that come too slowly: 408 on both paths, and connections that bring nothing end."""

import http.client
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.serving.conftest import READ_TIMEOUT_S
from tests.support import wait_for

BODY = json.dumps({"model": "grey", "seeds": [5]}).encode()


class Slow:
    """A connection that brings its bytes one part after the other, then waits for the end."""

    def __init__(self, guarded: Any) -> None:
        self.port = int(guarded.server.url.rpartition(":")[2])
        self.key = guarded.key.encode()

    def head(self, *lines: bytes) -> bytes:
        start = [b"POST /v1/generate HTTP/1.1", b"Host: x", b"Authorization: Bearer " + self.key]
        return b"\r\n".join([*start, *lines, b"", b""])

    def __call__(self, *parts: bytes, pause_s: float = 0.0) -> tuple[bytes, float]:
        """All that is answered until the server ends the connection, and how long that took."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            began = time.monotonic()
            for part in parts:
                try:
                    connection.sendall(part)
                except (BrokenPipeError, ConnectionResetError):
                    break
                time.sleep(pause_s)
            answered = b""
            try:
                while chunk := connection.recv(65536):
                    answered += chunk
            except ConnectionResetError:
                pass  # what it went on to send was not read any more
            return answered, time.monotonic() - began


@pytest.fixture
def slow(guarded: Any) -> Slow:
    return Slow(guarded)


def test_a_request_that_does_not_come_is_answered_408_or_not_at_all(
    guarded: Any, slow: Slow
) -> None:
    length = b"Content-Length: %d" % len(BODY)
    plain = slow.head(length)
    asked: dict[str, Callable[[], tuple[bytes, float]]] = {
        "nothing": lambda: slow(),
        "empty lines": lambda: slow(b"\r\n\r\n"),
        "half a head": lambda: slow(plain[:30]),
        "no body, fast path": lambda: slow(plain),
        "half a body, fast path": lambda: slow(plain + BODY[:10]),
        "half a body, ordinary": lambda: slow(slow.head(length, b"Connection: close") + BODY[:10]),
        "half a chunk": lambda: slow(slow.head(b"Transfer-Encoding: chunked") + b"20\r\nabc"),
        "a byte now and then": lambda: slow(
            plain, *(BODY[i : i + 1] for i in range(len(BODY) - 1)), pause_s=READ_TIMEOUT_S / 6
        ),
        "half a second request": lambda: slow(plain + BODY + plain[:40]),
        "half a second body": lambda: slow(plain + BODY + plain + BODY[:10]),
        "late, and half": lambda: slow(b"", plain + BODY[:10], pause_s=READ_TIMEOUT_S / 2),
        "late, and half a head": lambda: slow(b"", plain[:30], pause_s=READ_TIMEOUT_S / 2),
        "a body after the answer": lambda: slow(
            b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123"
        ),
    }
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = dict(zip(asked, pool.map(lambda ask: ask(), asked.values()), strict=True))
    statuses = {
        name: [int(part[:3]) for part in answered.split(b"HTTP/1.1 ")[1:]]
        for name, (answered, _) in answers.items()
    }
    assert statuses == {
        "nothing": [],
        "empty lines": [],
        "half a head": [408],
        "no body, fast path": [408],
        "half a body, fast path": [408],
        "half a body, ordinary": [408],
        "half a chunk": [408],
        "a byte now and then": [408],
        "half a second request": [200, 408],
        "half a second body": [200, 408],
        "late, and half": [408],
        "late, and half a head": [408],
        "a body after the answer": [200],
    }
    for name, (answered, took_s) in answers.items():
        late_s = READ_TIMEOUT_S / 2 if "late" in name else 0  # its time begins when it does
        assert took_s >= (READ_TIMEOUT_S + late_s) * 0.95, name
        if statuses[name][-1:] == [408]:
            last = answered.rpartition(b"HTTP/1.1 ")[2]
            assert b"connection: close" in last
            assert b"urn:saddlepoint:problem:read-timeout" in last
            assert b"x-request-id: " in last
            assert f"after {READ_TIMEOUT_S:g} s".encode() in last


def test_a_connection_may_rest_between_requests(guarded: Any) -> None:
    port = int(guarded.server.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Authorization": f"Bearer {guarded.key}"}
    connection.connect()
    first = connection.sock
    for path, body in (("/livez", None), ("/v1/generate", BODY), ("/livez", None)):
        connection.request("POST" if body else "GET", path, body, headers)
        assert connection.getresponse().read()
        if body:  # it rests after the fast path, and is then taken up by the other
            time.sleep(READ_TIMEOUT_S * 1.2)
    assert connection.sock is first
    connection.close()


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01\x00", b"nonsense\r\n\r\n", b"GET / HTTP/9\r\n\r\n"]
)
def test_what_is_no_http_is_told_so(slow: Slow, data: bytes) -> None:
    answered, _ = slow(data)
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert b"urn:saddlepoint:problem:not-http" in answered
    assert b"connection: close" in answered


def test_a_client_that_leaves_with_half_a_body_is_counted_on_both_paths(
    guarded: Any, slow: Slow
) -> None:
    def gone() -> float:
        route = 'saddlepoint_http_requests_total{method="POST",route="/v1/generate",status="499"} '
        return sum(
            float(line.removeprefix(route))
            for line in guarded.metrics().splitlines()
            if line.startswith(route)
        )

    before = gone()
    for ending in (b"Connection: keep-alive", b"Connection: close"):  # fast path, ordinary path
        with socket.create_connection(("127.0.0.1", slow.port), timeout=20) as connection:
            connection.sendall(slow.head(b"Content-Length: 100", ending) + b"{")
    wait_for(lambda: gone() == before + 2)
