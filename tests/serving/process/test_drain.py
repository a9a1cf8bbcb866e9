"""What is connected when the server stops to listen."""

import contextlib
import errno
import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.process.drain import begin_no_handshake

ROUND_TRIP_S = 0.3


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param) as listener:
        try:
            listener.bind(("localhost" if request.param == socket.AF_INET else "::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        listener.listen()
        yield listener


def test_no_handshake_begins_and_what_is_connected_goes_on(listener: socket.socket) -> None:
    address = listener.getsockname()
    with socket.create_connection(address[:2]) as before:
        begin_no_handshake(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(address[:2], timeout=ROUND_TRIP_S)
        before.sendall(b"request")
        before.shutdown(socket.SHUT_WR)
        served, _ = listener.accept()
        with served:
            assert served.recv(100) == b"request"
            served.sendall(b"answer")
        assert before.recv(100) == b"answer"


def test_who_was_refused_in_between_hears_it_when_nobody_listens(listener: socket.socket) -> None:
    begin_no_handshake(listener)
    with socket.socket(listener.family) as late:
        late.setblocking(False)
        assert late.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        listener.close()
        assert select.select([], [late], [], 30)[1]
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def refused(port: int) -> bool:
    """True once nobody listens any more; what the filter drops times out before that."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.05).close()
    except ConnectionRefusedError:
        return True
    except TimeoutError:
        return False
    return False


def test_a_client_that_is_a_round_trip_away_is_answered(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    """It connected before the end, and its request comes after nobody listens any more."""
    server = start_server(tiny_repository, "--drain-delay-s", "0")
    port = int(server.url.rpartition(":")[2])
    body = json.dumps({"model": "grey", "seeds": [1]}).encode()
    head = b"POST /v1/generate HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n" % len(body)
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as far:
        server.process.terminate()
        while not refused(port):
            pass
        time.sleep(ROUND_TRIP_S)
        far.sendall(head + body)
        assert far.recv(12) == b"HTTP/1.1 200"
    assert server.process.wait(30) == 0, server.log.read_text()
