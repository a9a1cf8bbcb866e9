"""HTTP processes of one server take connections in turn."""

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.process.accepting import Acceptors
from serving.process.turns import ALONE, Turns, make_bells
from serving.shared_counts import SharedCounts
from serving.shared_file import SharedFile
from tests.conftest import ServerProcess
from tests.support import http_processes_of, wait_for

REQUEST = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"


@contextlib.contextmanager
def turns_of(num_processes: int) -> Iterator[list[Turns]]:
    file, bells = SharedFile("connections"), make_bells(num_processes)
    counts = [SharedCounts(file, index, num_processes) for index in range(num_processes)]
    try:
        yield [Turns(each, bells, index) for index, each in enumerate(counts)]
    finally:
        for descriptor in (file.descriptor, *bells):
            os.close(descriptor)


@given(st.integers(1, 4), st.lists(st.integers(-1, 3), max_size=200))
def test_the_first_is_filled_and_then_none_has_two_more_than_another(
    num_processes: int, events: list[int]
) -> None:
    """events: -1 for a connection that comes, else a process of which one ends."""
    counts = [0] * num_processes
    with turns_of(num_processes) as turns:
        for event in events:
            if event < 0:
                (mine,) = [index for index, each in enumerate(turns) if each.is_mine]
                before = list(counts)
                counts[mine] += 1
                assert all(before[index] >= ALONE for index in range(mine))
                if before[mine] >= ALONE:
                    assert before[mine] == min(before)
                turns[mine].set_arriving(1)
                turns[mine].set_connected(counts[mine])
                turns[mine].set_arriving(0)
            elif event < num_processes and counts[event]:
                counts[event] -= 1
                turns[event].set_connected(counts[event])
        assert turns[0].next() == turns[-1].next()


class Counted(asyncio.Protocol):
    """A connection that its process counts, and that answers one byte with another."""

    def __init__(self, turns: Turns, alive: set[Any]) -> None:
        self.turns, self.alive = turns, alive

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.alive.add(self)
        self.turns.set_connected(len(self.alive))

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"y")

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive.discard(self)
        self.turns.set_connected(len(self.alive))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        yield listener


@contextlib.asynccontextmanager
async def client_of(listener: socket.socket) -> AsyncIterator[asyncio.StreamReader]:
    """Who has connected, and sent a byte."""
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        writer.write(b"x")
        yield reader
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def test_a_connection_that_nobody_takes_in_turn_is_taken_out_of_turn(
    listener: socket.socket,
) -> None:
    """As where the process whose turn it is hangs."""

    async def scenario() -> None:
        with turns_of(2) as (_, turns):
            alive: set[Any] = set()
            acceptors = Acceptors([listener], turns, lambda: Counted(turns, alive))
            async with asyncio.timeout(30), contextlib.AsyncExitStack() as stack:
                for _ in range(20):
                    reader = await stack.enter_async_context(client_of(listener))
                    assert await reader.readexactly(1) == b"y"
                assert len(alive) == 20
            async with asyncio.timeout(30):
                while alive:
                    await asyncio.sleep(0.01)
            acceptors.close()
            async with client_of(listener) as reader:  # it waits in the queue
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.readexactly(1), 0.1)
            listener.accept()[0].close()  # it is still there

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RuntimeError("odd")])
def test_what_accept_raises_ends_nothing(listener: socket.socket, error: Exception) -> None:
    class Odd:
        def __init__(self) -> None:
            self.errors = [error, ConnectionAbortedError(), error]

        def __getattr__(self, name: str) -> Any:
            return getattr(listener, name)

        def accept(self) -> Any:
            if self.errors:
                raise self.errors.pop()
            return listener.accept()

    async def scenario() -> None:
        with turns_of(1) as (turns,):
            alive: set[Any] = set()
            odd: Any = Odd()
            acceptors = Acceptors([odd], turns, lambda: Counted(turns, alive))
            async with client_of(listener) as reader:
                assert await asyncio.wait_for(reader.readexactly(1), 30) == b"y"
            assert not odd.errors
            acceptors.close()

    asyncio.run(scenario())


def test_a_protocol_that_fails_counts_no_more(listener: socket.socket) -> None:
    def broken() -> asyncio.Protocol:
        raise MemoryError

    async def scenario() -> None:
        with turns_of(2) as (turns, other):
            acceptors = Acceptors([listener], turns, broken)
            for _ in range(2 * ALONE):
                async with client_of(listener) as reader:
                    with contextlib.suppress(ConnectionResetError):
                        assert await asyncio.wait_for(reader.read(), 30) == b""  # closed
            assert other.next() == 0
            acceptors.close()

    asyncio.run(scenario())


def connections_of(pid: int, port: int) -> int:
    """Established connections of a process to the server's port."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "01":
                inodes.add(fields[9])
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link))
            found += match is not None and match[1] in inodes
    return found


@contextlib.contextmanager
def connected(server: ServerProcess, num: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        port = int(server.url.rpartition(":")[2])
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            for _ in range(num)
        ]


def answers(connection: socket.socket) -> bool:
    connection.sendall(REQUEST)
    return connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_a_server_fills_one_process_and_then_shares(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository, "--api-processes", "2")
    port = int(server.url.rpartition(":")[2])
    first, second = processes = http_processes_of(server)

    def split() -> list[int]:
        return [connections_of(pid, port) for pid in processes]

    seen = []
    for _ in range(5):  # a process that gets no processor for some ms loses its turn
        wait_for(lambda: split() == [0, 0])  # what has ended is given back
        with connected(server, ALONE) as few:
            assert all(map(answers, few))
            alone = sorted(split())
            with connected(server, 50) as more:
                assert all(map(answers, more))
                shared = split()
                assert sum(shared) == ALONE + 50
        seen.append((alone, max(shared) - min(shared)))
        if alone == [0, ALONE] and seen[-1][1] <= 2:
            break
    else:
        raise AssertionError(seen)
    wait_for(lambda: split() == [0, 0])
    for stopped in (first, second):
        os.kill(stopped, signal.SIGSTOP)
        try:
            with connected(server, 3 * ALONE) as others:
                assert all(map(answers, others))
        finally:
            os.kill(stopped, signal.SIGCONT)
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()
