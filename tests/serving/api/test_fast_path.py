"""The fast path and the ordinary one give the same answers, however the bytes come."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
        b'{"model":"colour","seeds":[9],"labels":[2],"truncation":0.5,"format":"jpeg"}',
        b'{"model":"grey","latents":[[0.5,0,0,0,0,0]]}',
        b'{"model":"grey","version":1,"seeds":[18446744073709551615]}',
        b'{"model":"grey","seeds":[1],"layout":"grid","format":"npy"}',
        b'{"model":"grey","seeds":[1],"labels":3}',
        b'{"model":"grey","version":99,"seeds":[1]}',
        b'{"model":"grey","latents":[[1e400]]}',
        b'{"model":"nix","seeds":[1]}',
        b'{"model":"grey"}',
        b"nonsense",
    ],
)
def test_both_paths_give_the_same_answer(wire: Wire, body: bytes) -> None:
    name = b"X-Request-Id: both paths"
    fast, ordinary = wire.ask(plain(body, name)), wire.ask(chunked(body, name))
    assert fast[0] == ordinary[0]
    assert fast[2] == ordinary[2]
    volatile = ("date", "server-timing")
    assert {k: v for k, v in fast[1].items() if k not in volatile} == {
        k: v for k, v in ordinary[1].items() if k not in volatile
    }
    assert set(fast[1]) == set(ordinary[1])


@pytest.mark.parametrize("path", [plain, chunked])
@pytest.mark.parametrize(
    "header",
    [
        b"X-Request-Timeout-Ms: 0",
        b"X-Request-Timeout-Ms: 5000",
        b"X-Priority: no",
        b"X-Priority: bulk",
        b"Accept: audio/ogg",
        b"Accept: image/webp",
        b"X-Odd: \xff",
    ],
)
def test_headers_mean_the_same_on_both_paths(wire: Wire, path: Any, header: bytes) -> None:
    wrong = {b"X-Request-Timeout-Ms: 0": 400, b"X-Priority: no": 400, b"Accept: audio/ogg": 406}
    status, headers, _ = wire.ask(path(BODY, header))
    assert status == wrong.get(header, 200)
    kinds = {b"Accept: image/webp": "image/webp"}
    if status == 200:
        assert headers["content-type"] == kinds.get(header, "image/png")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_sequence_in_any_pieces_is_answered_in_order(server: Any, data: st.DataObject) -> None:
    """Both paths, other routes and mistakes, pipelined on one connection, cut anywhere."""
    requests = {
        "fast": (plain(), 200, b"\x89PNG"),
        "ordinary": (chunked(), 200, b"\x89PNG"),
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
