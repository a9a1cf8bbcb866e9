"""The short road and uvicorn's give the same answers, however the bytes come."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.heads import read_head

BODY = json.dumps({"model": "grey", "seeds": [5]}).encode()


def plain(body: bytes = BODY, *headers: bytes, path: bytes = b"/v1/generate") -> bytes:
    lines = [
        b"POST " + path + b" HTTP/1.1",
        b"Host: x",
        b"Content-Length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes = BODY, *headers: bytes) -> bytes:
    lines = [b"POST /v1/generate HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked", *headers]
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return b"\r\n".join(lines) + b"\r\n\r\n" + chunk


class Wire:
    """A raw connection."""

    def __init__(self, server: Any) -> None:
        self.socket = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(20)
        self.file = self.socket.makefile("rb")

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body of the next answer."""
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            headers[name] = value.strip()
        return status, headers, self.file.read(int(headers["content-length"]))

    def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        self.socket.sendall(data)
        return self.answer()


@pytest.fixture
def wire(server: Any) -> Iterator[Wire]:
    with closing(Wire(server)) as opened:
        yield opened


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        b'{"model":"grey","seeds":[1,2,3]}',
        b'{"model":"grey","seeds":[1,2],"format":"npy"}',
        b'{"model":"colour","seeds":[1,2,3,4],"labels":1,"layout":"grid"}',
        b'{"model":"nix","seeds":[1]}',
        b'{"model":"grey"}',
        b"nonsense",
    ],
)
def test_both_roads_give_the_same_answer(wire: Wire, body: bytes) -> None:
    assert read_head(plain(body)) is not None
    assert read_head(chunked(body)) is None
    name = b"X-Request-Id: both roads"
    short, long = wire.ask(plain(body, name)), wire.ask(chunked(body, name))
    assert short[0] == long[0]
    assert short[2] == long[2]
    volatile = ("date", "server-timing")
    assert {k: v for k, v in short[1].items() if k not in volatile} == {
        k: v for k, v in long[1].items() if k not in volatile
    }
    assert set(short[1]) == set(long[1])


@pytest.mark.parametrize("road", [plain, chunked])
@pytest.mark.parametrize(
    "header",
    [b"X-Request-Timeout-Ms: 0", b"X-Request-Timeout-Ms: 5000", b"X-Priority: no", b"X-Odd: \xff"],
)
def test_headers_mean_the_same_on_both_roads(wire: Wire, road: Any, header: bytes) -> None:
    expected = {b"X-Request-Timeout-Ms: 0": 400, b"X-Priority: no": 400}.get(header, 200)
    assert wire.ask(road(BODY, header))[0] == expected


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_sequence_in_any_pieces_is_answered_in_order(server: Any, data: st.DataObject) -> None:
    """Short and long road, other routes and mistakes, pipelined on one connection, cut anywhere."""
    requests = {
        "short": (plain(), 200, b"\x89PNG"),
        "long": (chunked(), 200, b"\x89PNG"),
        "probe": (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 200, b"ok\n"),
        "mistake": (plain(b'{"seeds":"x"}'), 400, b'{"type'),
        "list": (plain(b'{"model":"grey","seeds":[1,2]}'), 200, b'{"model'),
    }
    names = data.draw(st.lists(st.sampled_from(sorted(requests)), min_size=1, max_size=6))
    stream = b"".join(requests[name][0] for name in names)
    cuts = sorted(data.draw(st.lists(st.integers(1, len(stream)), max_size=4)))
    with closing(Wire(server)) as wire:
        for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            wire.socket.sendall(stream[start:stop])
        for name in names:
            status, _, body = wire.answer()
            assert status == requests[name][1]
            assert body.startswith(requests[name][2])


def test_thousands_of_requests_in_one_piece_are_all_answered(wire: Wire) -> None:
    """Each is answered on the spot: the server may not go one call deeper for each."""
    requests = [plain(b'{"seeds":"x"}', b"X-Request-Id: %d" % number) for number in range(3000)]
    sender = threading.Thread(target=wire.socket.sendall, args=(b"".join(requests),))
    sender.start()
    answered = []
    for _ in requests:
        status, headers, _ = wire.answer()
        answered.append((status, headers["x-request-id"]))
    sender.join()
    assert answered == [(400, str(number)) for number in range(3000)]


def test_a_client_that_wants_to_close_is_obeyed(wire: Wire) -> None:
    status, headers, _ = wire.ask(plain(BODY, b"Connection: close"))
    assert status == 200
    assert headers["connection"] == "close"
    assert wire.file.read() == b""


def test_a_body_that_is_too_large_ends_the_connection(wire: Wire) -> None:
    status, headers, body = wire.ask(plain(b" " * 200_001))
    assert status == 413
    assert headers["connection"] == "close"
    assert b"200001" in body


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v1/generate HTTP/1.1\r\nHost: x\r\n\r\n",
        plain(path=b"/v1/models"),
        plain(BODY, b"Expect: 100-continue"),
        plain(BODY, b"Content-Length: 3"),
        plain(BODY, b"bad name: 1"),
        plain().replace(b"Host: x\r\n", b""),
        plain().replace(b"HTTP/1.1", b"HTTP/1.0"),
        re.sub(rb"Content-Length: \d+", b"Content-Length: -1", plain()),
        plain(BODY, b"X: " + b"x" * 20_000),
    ],
)
def test_what_is_not_plain_is_left_to_uvicorn(data: bytes) -> None:
    assert read_head(data) is None


@given(st.binary(max_size=300))
def test_reading_a_head_never_raises(data: bytes) -> None:
    read_head(data)
    read_head(b"POST /v1/generate HTTP/1.1\r\n" + data)
    head = read_head(b"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n" + data)
    assert head is not None
