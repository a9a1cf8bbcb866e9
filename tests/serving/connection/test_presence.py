"""Who sends no more is asked whether he is there, a few times; real sockets, times as given."""

import contextlib
import math
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from serving.connection.presence import CONTINUE, Presence
from tests.support import wait_for

ASKED_AT = [0.5, 2.0, 6.0, 14.0]


class Transport:
    """What `Presence` uses of asyncio's, over a socket."""

    def __init__(self, own: socket.socket) -> None:
        self._own = own
        self.written: list[bytes] = []

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self._own

    def write(self, data: bytes) -> None:
        self.written.append(data)
        with contextlib.suppress(OSError):
            self._own.send(data)


@pytest.fixture
def ends() -> Iterator[tuple[Any, socket.socket]]:
    """The server's transport, and the client's socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        own, _ = listener.accept()
    with own, client:
        yield Transport(own), client


def asked_at(presence: Presence, transport: Any, **how: bool) -> list[float]:
    """The times, in tenths of a second for half a minute, at which it asks."""
    times = []
    for tenth in range(300):
        before = len(transport.written)
        assert not presence.is_gone(tenth / 10, **how)
        times += [tenth / 10] * (len(transport.written) - before)
    return times


def test_who_is_there_is_asked_less_and_less_often(ends: tuple[Any, socket.socket]) -> None:
    transport, client = ends
    presence = Presence(transport)
    assert not presence.sends_no_more()
    client.shutdown(socket.SHUT_WR)
    wait_for(presence.sends_no_more)
    assert presence.begin(0.0) == 0.5
    assert presence.begin(0.1) == 0.5  # told again, it is the same end
    assert asked_at(presence, transport, may_ask=True) == ASKED_AT
    assert client.recv(1000) == CONTINUE * 4
    presence.reset()
    assert presence.begin(100.0) == 100.5


def test_who_may_not_be_asked_is_not(ends: tuple[Any, socket.socket]) -> None:
    transport, client = ends
    presence = Presence(transport)
    assert asked_at(presence, transport, may_ask=True) == []  # nothing has ended
    client.shutdown(socket.SHUT_WR)
    presence.begin(0.0)
    assert asked_at(presence, transport, may_ask=False) == []


@pytest.mark.parametrize("first", [0, 1, 3])
def test_who_leaves_is_found_out_by_the_next_question(
    ends: tuple[Any, socket.socket], first: int
) -> None:
    """Whenever that is: at once, or after some questions that were read."""
    transport, client = ends
    presence = Presence(transport)
    client.shutdown(socket.SHUT_WR)
    presence.begin(0.0)
    for now in ASKED_AT[:first]:
        assert not presence.is_gone(now, may_ask=True)
        assert client.recv(1000) == CONTINUE
    client.close()
    assert not presence.is_gone(ASKED_AT[first] - 0.1, may_ask=True)
    presence.is_gone(ASKED_AT[first], may_ask=True)
    wait_for(lambda: presence.is_gone(ASKED_AT[first], may_ask=True))


def test_who_resets_is_gone_at_once(ends: tuple[Any, socket.socket]) -> None:
    transport, client = ends
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    presence = Presence(transport)
    wait_for(lambda: presence.is_gone(-math.inf, may_ask=True))
    assert presence.sends_no_more()
    assert transport.written == []


def test_of_what_is_no_tcp_nothing_is_known() -> None:
    own, client = socket.socketpair()
    with own:
        client.close()
        transport: Any = Transport(own)
        presence = Presence(transport)
        assert not presence.sends_no_more()
        assert not presence.is_gone(0.0, may_ask=True)
