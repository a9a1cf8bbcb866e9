"""A client that keeps account: every request that it sends is answered, lost or hung.

Speaks just enough HTTP/1.1 to load a server from the same two cores without being the bottleneck.
"""

import asyncio
import collections
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

REFUSED, LOST, HUNG = "refused", "lost", "hung"


@dataclass(frozen=True)
class Answer:
    """What became of one request."""

    fate: int | str
    """The status, or: refused (no connection), lost (closed unanswered), hung (nothing came)."""
    started: float
    ended: float
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def took_s(self) -> float:
        return self.ended - self.started


class Connection:
    """One connection, used for one request after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self,
        body: bytes = b"",
        *,
        path: str = "/v1/generate",
        headers: dict[str, str] | None = None,
        timeout_s: float = 20,
    ) -> Answer:
        """Sends one request and says what became of it."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                fate, answered, content = await self._ask(body, path, headers or {})
        except TimeoutError:
            fate, answered, content = HUNG, {}, b""
        except ConnectionRefusedError:
            fate, answered, content = REFUSED, {}, b""
        except (OSError, EOFError, ValueError):
            fate, answered, content = LOST, {}, b""
        if not isinstance(fate, int) or answered.get("connection") == "close":
            self.close()
        return Answer(fate, started, time.perf_counter(), answered, content)

    async def send(self, body: bytes, *, path: str = "/v1/generate") -> None:
        """Sends a request whose answer nobody will read."""
        _, writer = await self._open()
        writer.write(_request(body, path, {}))
        await writer.drain()

    def close(self) -> None:
        """Hangs up."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams

    async def _ask(
        self, body: bytes, path: str, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        reader, writer = await self._open()
        writer.write(_request(body, path, headers))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        answered = {name.lower(): value.strip() for name, _, value in pairs}
        content = await reader.readexactly(int(answered["content-length"]))
        return int(head[0].split()[1]), answered, content


class Load:
    """Many connections to one server, and the account of all that was asked through them."""

    def __init__(self, url: str) -> None:
        self.port = int(url.rpartition(":")[2])
        self.answers: list[Answer] = []
        self.going = True

    async def closed_loop(
        self, body: Callable[[], bytes], headers: dict[str, str] | None = None
    ) -> None:
        """One connection that asks again as soon as it is answered, until `going` is false.

        A refused connection ends it: the server is gone.
        """
        with closing(Connection(self.port)) as connection:
            while self.going:
                answer = await connection.ask(body(), headers=headers)
                self.answers.append(answer)
                if answer.fate == REFUSED:
                    return

    async def open_loop(self, body: Callable[[], bytes], per_s: float, seconds: float) -> None:
        """Requests at fixed times, whatever the answers do: what a crowd does to a server."""
        idle: list[Connection] = []
        tasks = []

        async def one() -> None:
            connection = idle.pop() if idle else Connection(self.port)
            self.answers.append(await connection.ask(body()))
            idle.append(connection)

        started = time.perf_counter()
        for number in range(int(per_s * seconds)):
            wait_s = started + number / per_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            tasks.append(asyncio.create_task(one()))
        await asyncio.gather(*tasks)
        for connection in idle:
            connection.close()

    def count(self, *fates: int | str) -> int:
        """How many requests had one of these fates."""
        return sum(answer.fate in fates for answer in self.answers)

    @property
    def fates(self) -> dict[int | str, int]:
        """How many requests had which fate."""
        return dict(collections.Counter(answer.fate for answer in self.answers))


@contextlib.contextmanager
def closing(connection: Connection) -> Iterator[Connection]:
    """Closes a connection at the end."""
    try:
        yield connection
    finally:
        connection.close()


def run(main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run, but connections that were hung up are gone when it returns."""

    async def whole() -> T:
        try:
            return await main
        finally:
            await asyncio.sleep(0.01)

    return asyncio.run(whole())


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of the values doesn't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _request(body: bytes, path: str, headers: dict[str, str]) -> bytes:
    method = "POST" if body else "GET"
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
