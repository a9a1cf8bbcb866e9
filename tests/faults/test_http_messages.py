"""HTTP as the world speaks it, and as attackers do: one table of cases, both roads.

A case is refused with 400 in the server's own form and a closed connection, or answered; never
understood in another way than a proxy in front would.
"""

import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.raw import raw
from tests.support import metric

GENERATE = json.dumps({"model": "grey", "seeds": [5]}).encode()
INFER = json.dumps(
    {
        "inputs": [{"name": "SEED", "datatype": "UINT64", "shape": [1], "data": [5]}],
        "outputs": [{"name": "png", "parameters": {"binary_data": True}}],
    }
).encode()
ROADS = {"fast": (b"/v1/generate", GENERATE), "asgi": (b"/v2/models/grey/infer", INFER)}
Road = tuple[bytes, bytes]


@pytest.fixture(params=ROADS)
def road(request: pytest.FixtureRequest) -> Road:
    return ROADS[request.param]


def post(
    road: Road, *lines: bytes, version: bytes = b"HTTP/1.1", host: bytes = b"Host: x"
) -> bytes:
    """A request whose headers are the host's and these, and that ends with its body."""
    path, body = road
    head = [b"POST " + path + b" " + version, *([host] if host else []), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def sized(road: Road, *lines: bytes, **options: bytes) -> bytes:
    """The same, with its length."""
    return post(road, b"Content-Length: %d" % len(road[1]), *lines, **options)


def chunked(road: Road, *sizes: bytes, trailers: bytes = b"", extension: bytes = b"") -> bytes:
    """The same, in two chunks."""
    path, body = road
    first, second = body[:7], body[7:]
    data = b"%x%s\r\n%s\r\n%X%s\r\n%s\r\n0%s\r\n%s\r\n" % (
        *(len(first), extension, first),
        *(len(second), extension, second),
        *(extension, trailers),
    )
    return post((path, data), b"Transfer-Encoding: chunked")


refused: dict[str, Callable[[Road], bytes]] = {
    "no host": lambda road: sized(road, host=b""),
    "two hosts": lambda road: sized(road, b"Host: x"),
    "two hosts that differ": lambda road: sized(road, b"host: y"),
    "a host with a path": lambda road: sized(road, host=b"Host: x/y"),
    "a host with a space": lambda road: sized(road, host=b"Host: x y"),
    "a host with a user": lambda road: sized(road, host=b"Host: u@x"),
    "two equal lengths": lambda road: sized(road, b"Content-Length: %d" % len(road[1])),
    "two lengths": lambda road: sized(road, b"Content-Length: 3"),
    "a list of lengths": lambda road: post(road, b"Content-Length: %d, %d" % ((len(road[1]),) * 2)),
    "a length with a sign": lambda road: post(road, b"Content-Length: +%d" % len(road[1])),
    "a negative length": lambda road: post(road, b"Content-Length: -1"),
    "a hexadecimal length": lambda road: post(road, b"Content-Length: 0x%x" % len(road[1])),
    "an empty length": lambda road: post(road, b"Content-Length:"),
    "a length in other digits": lambda road: post(road, "Content-Length: ٣".encode()),
    "a length with a space": lambda road: post(road, b"Content-Length: 1 2"),
    "length and chunks": lambda road: sized(road, b"Transfer-Encoding: chunked"),
    "chunks and length": lambda road: chunked(road).replace(
        b"Transfer-E", b"Content-Length: 5\r\nTransfer-E", 1
    ),
    "chunked twice": lambda road: post(road, b"Transfer-Encoding: chunked, chunked"),
    "chunked twice in two lines": lambda road: post(
        road, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"
    ),
    "identity": lambda road: post(road, b"Transfer-Encoding: identity"),
    "chunked before another": lambda road: post(road, b"Transfer-Encoding: chunked, gzip"),
    "a coding that looks like chunked": lambda road: post(road, b"Transfer-Encoding: xchunked"),
    "chunked with a vertical tab": lambda road: post(road, b"Transfer-Encoding: \x0bchunked"),
    "chunks in HTTP/1.0": lambda road: chunked(road).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a folded header": lambda road: sized(road, b"X-A: 1\r\n  2"),
    "a folded first header": lambda road: sized(road, host=b" Host: x"),
    "a space before the colon": lambda road: sized(road, b"X-A : 1"),
    "a tab before the colon": lambda road: sized(road, b"Content-Type\t: application/json"),
    "a space before the length's colon": lambda road: post(
        road, b"Content-Length : %d" % len(road[1])
    ),
    "no colon": lambda road: sized(road, b"X-A"),
    "no name": lambda road: sized(road, b": 1"),
    "a name with a space": lambda road: sized(road, b"bad name: 1"),
    "a name with a bracket": lambda road: sized(road, b"X(A): 1"),
    "a name beyond ASCII": lambda road: sized(road, "X-Ä: 1".encode()),
    "NUL in a value": lambda road: sized(road, b"X-A: a\x00b"),
    "NUL in a name": lambda road: sized(road, b"X\x00A: b"),
    "a bare CR in a value": lambda road: sized(road, b"X-A: a\rb"),
    "a bare LF in a value": lambda road: sized(road, b"X-A: a\nX-B: b"),
    "a bare CR before the end": lambda road: sized(road, b"X-A: a\r"),
    "a control character": lambda road: sized(road, b"X-A: a\x07b"),
    "DEL in a value": lambda road: sized(road, b"X-A: a\x7fb"),
    "lines that end with LF": lambda road: sized(road).replace(b"\r\n", b"\n"),
    "a blank line of LF": lambda road: sized(road).replace(b"\r\n\r\n", b"\r\n\n"),
    "a smuggled request in a value": lambda road: sized(
        road, b"X-A: a\n\nGET /livez HTTP/1.1\nHost: x"
    ),
    "no method": lambda road: sized(road).replace(b"POST ", b" ", 1),
    "a method with a comma": lambda road: sized(road).replace(b"POST", b"PO,ST", 1),
    "a method beyond ASCII": lambda road: sized(road).replace(b"POST", b"P\xd6ST", 1),
    "two spaces": lambda road: sized(road).replace(b"POST ", b"POST  ", 1),
    "a tab": lambda road: sized(road).replace(b"POST ", b"POST\t", 1),
    "a space at the end of the line": lambda road: sized(road).replace(b"1.1\r\n", b"1.1 \r\n", 1),
    "a space in the path": lambda road: sized(road).replace(b" HTTP", b" x HTTP", 1),
    "NUL in the path": lambda road: sized(road).replace(b" HTTP", b"\x00 HTTP", 1),
    "a path beyond ASCII": lambda road: sized(road).replace(b" HTTP", b"\xe9 HTTP", 1),
    "a fragment": lambda road: sized(road).replace(b" HTTP", b"#x HTTP", 1),
    "a quote in the path": lambda road: sized(road).replace(b" HTTP", b'" HTTP', 1),
    "a path without its slash": lambda road: sized(road).replace(b"POST /", b"POST ", 1),
    "a star without OPTIONS": lambda road: sized((b"*", road[1])),
    "no version": lambda road: sized(road).replace(b" HTTP/1.1", b"", 1),
    "HTTP/0.9": lambda road: b"GET /livez\r\n\r\n",
    "HTTP/2": lambda road: sized(road, version=b"HTTP/2.0"),
    "HTTP/2's preface": lambda road: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9": lambda road: sized(road, version=b"HTTP/9"),
    "http in small letters": lambda road: sized(road, version=b"http/1.1"),
    "HTTP/1.1 with more digits": lambda road: sized(road, version=b"HTTP/1.10"),
    "CONNECT": lambda road: b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": lambda road: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "another protocol": lambda road: b"SSH-2.0-OpenSSH_9.2\r\n",
    "no size of a chunk": lambda road: chunked(road).replace(b"7\r\n", b"\r\n", 1),
    "a size with a sign": lambda road: chunked(road).replace(b"7\r\n", b"+7\r\n", 1),
    "a size with 0x": lambda road: chunked(road).replace(b"7\r\n", b"0x7\r\n", 1),
    "a size with a space": lambda road: chunked(road).replace(b"7\r\n", b"7 \r\n", 1),
    "a size beyond all bounds": lambda road: chunked(road).replace(
        b"7\r\n", b"7" * 17 + b"\r\n", 1
    ),
    "a size that ends with LF": lambda road: chunked(road).replace(b"7\r\n", b"7\n", 1),
    "an extension with LF": lambda road: chunked(road).replace(b"7\r\n", b"7;a\nb\r\n", 1),
    "a chunk that is too long": lambda road: chunked(road).replace(b"7\r\n", b"6\r\n", 1),
    "a chunk that ends with LF": lambda road: chunked(road).replace(
        road[1][:7] + b"\r\n", road[1][:7] + b"\n", 1
    ),
    "a trailer without a colon": lambda road: chunked(road, trailers=b"bogus\r\n"),
    "a trailer with NUL": lambda road: chunked(road, trailers=b"X-A: \x00\r\n"),
    "a trailer with a bare LF": lambda road: chunked(road, trailers=b"X-A: a\nb\r\n"),
    "a folded trailer": lambda road: chunked(road, trailers=b"X-A: a\r\n b\r\n"),
    "trailers without end": lambda road: chunked(road, trailers=b"X-A: a\r\n" * 9000),
    "extensions without end": lambda road: chunked(road, extension=b";" + b"a" * 30_000),
}
"""What is refused with 400, and the connection closed."""


@pytest.mark.parametrize("name", refused)
def test_what_could_be_read_in_two_ways_is_refused(server: Any, road: Road, name: str) -> None:
    after = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with raw(server) as connection:
        connection.send(refused[name](road) + after)
        answer = connection.answer()
        assert (answer.status, answer.closes) == (400, True), answer
        if answer.headers["content-type"] == "application/json":
            assert road[0].startswith(b"/v2")
            assert answer.error()
        else:
            assert answer.problem() == "not-http"
        assert answer.headers["x-request-id"]
        connection.end_sending()
        assert connection.rest() == b""  # nothing that follows is taken for a request


@pytest.mark.parametrize("name", refused)
def test_it_is_refused_in_pieces_too(server: Any, name: str) -> None:
    """A byte at a time, for as long as the server listens: never more than one answer."""
    data = refused[name](ROADS["fast"])[:400]
    with raw(server) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(data)):
            connection.send(data[index : index + 1])
        connection.end_sending()
        answered = connection.rest()
    assert re.findall(rb"HTTP/1.1 (\d+)", answered) in ([], [b"400"])


good: dict[str, Callable[[Road], bytes]] = {
    "plain": lambda road: sized(road),
    "an empty host": lambda road: sized(road, host=b"Host:"),
    "a host with a port": lambda road: sized(road, host=b"Host: example.org:8000"),
    "an IPv6 host": lambda road: sized(road, host=b"Host: [::1]:8000"),
    "names in any letters": lambda road: post(road, b"cOnTeNt-LeNgTh: %d" % len(road[1])),
    "no space after the colon": lambda road: post(road, b"Content-Length:%d" % len(road[1])),
    "tabs around a value": lambda road: post(road, b"Content-Length:\t%d \t" % len(road[1])),
    "bytes beyond ASCII in a value": lambda road: sized(road, b"X-A: \xff\xe9"),
    "an empty value": lambda road: sized(road, b"X-A:"),
    "an empty line before": lambda road: b"\r\n" + sized(road),
    "HTTP/1.2": lambda road: sized(road, version=b"HTTP/1.2"),
    "a whole URL": lambda road: sized((b"http://other.example:80" + road[0], road[1])),
    "a whole URL in capitals": lambda road: sized((b"HTTP://OTHER" + road[0], road[1])),
    "chunks": chunked,
    "chunks with extensions": lambda road: chunked(road, extension=b';a="b c";d'),
    "chunks with trailers": lambda road: chunked(
        road, trailers=b"X-A: b\r\nContent-Length: 3\r\nHost: y\r\n"
    ),
    "zeros before a size": lambda road: chunked(road).replace(b"7\r\n", b"0007\r\n", 1),
    "CHUNKED": lambda road: chunked(road).replace(b" chunked", b" CHUNKED", 1),
    "Upgrade: h2c": lambda road: sized(
        *(road, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"),
        b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    ),
    "keep-alive, Upgrade": lambda road: sized(
        road, b"Connection: keep-alive, Upgrade", b"Upgrade: websocket"
    ),
    "Upgrade and chunks": lambda road: chunked(road).replace(
        b"Transfer-E", b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-E", 1
    ),
    "two lines of Connection": lambda road: sized(
        road, b"Connection: Upgrade", b"Connection: keep-alive", b"Upgrade: h2c"
    ),
    "an Expect that is known": lambda road: sized(road, b"Expect: 100-Continue"),
    "TE and Trailer": lambda road: sized(road, b"TE: trailers", b"Trailer: X-A"),
}
"""What is answered, and the connection goes on."""


@pytest.mark.parametrize("name", good)
def test_what_is_good_is_answered_and_the_connection_goes_on(
    server: Any, road: Road, name: str
) -> None:
    with raw(server) as connection:
        for _ in range(2):
            connection.send(good[name](road))
            answer = connection.answer()
            assert answer.status == 200, answer
            assert not answer.closes
            assert b"\x89PNG" in answer.body


@pytest.mark.parametrize("name", good)
def test_what_is_good_is_answered_in_pieces_and_in_one(server: Any, road: Road, name: str) -> None:
    data = good[name](road)
    with raw(server) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), 3):
            connection.send(data[start : start + 3])
        connection.send(data * 3)
        answers = [connection.answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize(
    ("version", "connection", "lives"),
    [
        (b"HTTP/1.1", None, True),
        (b"HTTP/1.1", b"close", False),
        (b"HTTP/1.1", b"Close", False),
        (b"HTTP/1.1", b"keep-alive, close", False),
        (b"HTTP/1.1", b"x,\tclose ,y", False),
        (b"HTTP/1.1", b"closed", True),
        (b"HTTP/1.0", None, False),
        (b"HTTP/1.0", b"keep-alive", True),
        (b"HTTP/1.0", b"Keep-Alive, x", True),
        (b"HTTP/1.0", b"close, keep-alive", False),
    ],
)
def test_a_connection_lives_as_long_as_both_say(
    server: Any, road: Road, version: bytes, connection: bytes | None, lives: bool
) -> None:
    lines = [] if connection is None else [b"Connection: " + connection]
    with raw(server) as client:
        client.send(sized(road, *lines, version=version))
        answer = client.answer()
        assert answer.status == 200
        assert answer.closes != lives
        if not lives:
            assert client.is_ended()
            return
        if version == b"HTTP/1.0":
            assert answer.headers["connection"] == "keep-alive"
        client.send(sized(road, *lines, version=version))
        assert client.answer().status == 200


def test_http_1_0_needs_no_host(server: Any, road: Road) -> None:
    with raw(server) as connection:
        connection.send(sized(road, version=b"HTTP/1.0", host=b""))
        assert connection.answer().status == 200


def test_who_expects_to_be_told_is_told_to_go_on(server: Any, road: Road) -> None:
    data = sized(road, b"Expect: 100-continue")
    head, body = data[: -len(road[1])], road[1]
    with raw(server) as connection:
        connection.send(head)
        assert connection.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(body)
        answer = connection.answer()
        assert (answer.status, answer.closes) == (200, False)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((b"Expect: 100-continue", b"Content-Length: 900000"), 413),
        ((b"Content-Length: " + b"9" * 30,), 413),
        ((b"Content-Length: " + b"9" * 9000,), 413),
        ((b"Expect: 200-ok", b"Content-Length: 31"), 417),
        ((b"Transfer-Encoding: gzip, chunked",), 501),
    ],
)
def test_who_is_refused_is_not_told_to_go_on(
    server: Any, road: Road, lines: tuple[bytes, ...], status: int
) -> None:
    with raw(server) as connection:
        connection.send(post((road[0], b""), *lines))
        answer = connection.answer()
        assert (answer.status, answer.closes) == (status, True)


def test_http_1_0_is_never_told_to_go_on(server: Any, road: Road) -> None:
    data = sized(road, b"Expect: 100-continue", version=b"HTTP/1.0")
    with raw(server) as connection:
        connection.send(data[:-5])
        connection.send(data[-5:])
        assert connection.answer().status == 200


def test_options_of_the_whole_server(server: Any) -> None:
    with raw(server) as connection:
        for target in (b"*", b"http://x"):
            connection.send(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = connection.answer()
            assert answer.status == 200, answer
            allowed = {"DELETE", "GET", "HEAD", "OPTIONS", "POST"}
            assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("method", [b"BREW", b"get", b"M-SEARCH", b"PATCH"])
def test_a_method_that_is_a_word_is_known_or_told_which_are(server: Any, method: bytes) -> None:
    with raw(server) as connection:
        connection.send(method + b" /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = connection.answer()
        assert (answer.status, answer.closes) == (405, False)
        assert answer.headers["allow"] == "GET, HEAD"


def test_many_pipelined_requests_are_all_answered(server: Any) -> None:
    """Their heads are together far longer than one may be."""
    get = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Pad: " + b"a" * 200 + b"\r\n\r\n"
    num = 2000
    with raw(server) as connection:
        sender = threading.Thread(target=connection.send, args=(get * num,))
        sender.start()
        stream = connection.socket.makefile("rb")
        for _ in range(num):
            assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
            lines = iter(stream.readline, b"\r\n")
            (length,) = (int(line[15:]) for line in lines if line.startswith(b"content-length"))
            assert stream.read(length) == b"ok\n"
        sender.join()


@pytest.mark.parametrize("asked", [sized, chunked])
def test_who_stops_to_send_is_answered(
    server: Any, road: Road, asked: Callable[[Road], bytes]
) -> None:
    with raw(server) as connection:
        connection.send(asked(road) * 3)
        connection.end_sending()
        assert [connection.answer().status for _ in range(3)] == [200] * 3
        assert connection.is_ended()


def test_who_stops_to_send_is_answered_whatever_it_asked(server: Any) -> None:
    asked = {
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n": 200,
        b"GET /nix HTTP/1.0\r\n\r\n": 404,
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n": 200,
        b"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}": 400,
    }
    for data, status in asked.items():
        with raw(server) as connection:
            connection.send(data)
            connection.end_sending()
            assert connection.answer("HEAD" if b"HEAD" in data else "GET").status == status
            assert connection.is_ended()


def test_who_stops_to_send_in_the_middle_is_let_go(server: Any, road: Road) -> None:
    for end in (20, -3):
        with raw(server) as connection:
            connection.send(sized(road)[:end])
            connection.end_sending()
            assert connection.is_ended()


@pytest.mark.parametrize("num_bytes", [300_000, 9_000_000, 60_000_000])
@pytest.mark.parametrize("path", ["/v1/generate", "/v2/models/grey/infer", "/nix", "/livez"])
@pytest.mark.parametrize("as_chunks", [False, True])
def test_who_sends_too_much_reads_the_answer(
    server: Any, num_bytes: int, path: str, as_chunks: bool
) -> None:
    """http.client sends all of a body before it looks for an answer, and a reset ends it."""
    port = int(server.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    piece = b" " * 65536
    body: Any = (piece for _ in range(num_bytes // len(piece))) if as_chunks else b" " * num_bytes
    connection.request("POST", path, body, encode_chunked=as_chunks, headers=_chunked(as_chunks))
    response = connection.getresponse()
    assert response.status == {"/nix": 404, "/livez": 405}.get(path, 413), response.read()
    assert response.read()
    connection.close()


def _chunked(as_chunks: bool) -> dict[str, str]:
    return {"Transfer-Encoding": "chunked"} if as_chunks else {}


def test_what_is_refused_is_counted(server: Any) -> None:
    name = 'saddlepoint_requests_rejected_total{reason="not-http"}'
    before = metric(server, name)
    with raw(server) as connection:
        connection.send(b"nonsense\r\n\r\n")
        assert connection.answer().status == 400
    assert metric(server, name) == before + 1


JAVA = Path(__file__).with_name("JavaClient.java")


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java on this machine")
def test_javas_own_client_is_answered(server: Any) -> None:
    """It asks for HTTP/2 with every first request, by Upgrade: h2c."""
    done = subprocess.run(
        ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(JAVA), server.url],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    assert all(re.fullmatch(r"\S+ 200 image/png HTTP_1_1", line) for line in lines), lines


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
@pytest.mark.parametrize(
    "flags", [("--http2",), ("--http1.0",), ("--http1.1", "-H", "Transfer-Encoding: chunked")]
)
def test_curl_is_answered(server: Any, road: Road, flags: tuple[str, ...], tmp_path: Path) -> None:
    path, body = road
    url = server.url + path.decode()
    target = tmp_path / "answer"
    command = ["curl", "-sS", *flags, "-w", "%{http_code} %{http_version}", "-o", str(target)]
    done = subprocess.run(
        [*command, "--data-binary", "@-", url, url],
        input=body,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.count(b"200 1.") >= 1, done.stdout
    assert b"\x89PNG" in target.read_bytes()
