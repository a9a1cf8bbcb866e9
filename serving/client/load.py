"""A closed-loop load test: so many connections, each asks again as soon as it was answered.

Plain asyncio streams, since a comfortable HTTP library is slower than the server. Even so this
process is one core's worth of Python: `docs/client.md` says where it becomes the limit.
"""

import asyncio
import itertools
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from serving.client.addresses import address_of
from serving.client.answers import NPY
from serving.client.bodies import encoded
from serving.client.errors import ForeignAnswerError, UnreachableError, error_of

_BAR = 40
_PASSING = frozenset({408, 425, 429})
"""Refusals that another time may not meet; the other 4xx stay what they are."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Measured:
    """What was seen."""

    num_rows: int
    """Images of each request."""
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    """Of the requests that were answered with images."""
    failures: Counter[str] = field(default_factory=Counter)
    """Other answers, by status; time-outs, broken connections, answers of another program."""
    first_failure: str | None = None
    """What the first of them said."""
    stopped: bool = False
    """Before its time, since asking again would have changed nothing."""

    def failed(self, name: str, detail: str) -> None:
        """Counts a failure."""
        self.failures[name] += 1
        self.first_failure = self.first_failure or f"{name}: {detail}"

    def quantile_ms(self, q: float) -> float:
        """A latency that a share q of the requests did not exceed."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)] * 1e3

    def summary(self) -> dict[str, Any]:
        """The figures."""
        figures: dict[str, Any] = {
            "seconds": round(self.seconds, 3),
            "requests": len(self.latencies_s),
            "requests_per_s": round(len(self.latencies_s) / self.seconds, 1),
            "images_per_s": round(len(self.latencies_s) * self.num_rows / self.seconds, 1),
            "failures": dict(self.failures),
        }
        if self.first_failure is not None:
            figures["first_failure"] = self.first_failure
        if self.latencies_s:
            for name, q in (
                ("p50", 0.5),
                ("p90", 0.9),
                ("p99", 0.99),
                ("p99_9", 0.999),
                ("max", 1),
            ):
                figures[f"{name}_ms"] = round(self.quantile_ms(q), 3)
        return figures

    def histogram(self) -> Iterator[str]:
        """Latencies in buckets that double, as lines of text."""
        if not self.latencies_s:
            return
        powers = Counter(max(-2, math.ceil(math.log2(s * 1e3))) for s in self.latencies_s)
        most = max(powers.values())
        for power in range(min(powers), max(powers) + 1):
            num = powers[power]
            bar = "#" * math.ceil(num / most * _BAR)
            yield f"  up to {2.0**power:9.2f} ms {num:9,} {bar}"


class Loader:
    """Asks one server for a time."""

    def __init__(
        self,
        url: str,
        fields: dict[str, Any],
        *,
        num_rows: int,
        timeout_s: float,
        headers: Sequence[str] = (),
    ) -> None:
        """Connects nothing yet.

        Args:
            url: of the server.
            fields: of POST /v1/generate, one or more; seeds are added, other ones each time.
            num_rows: seeds of each request.
            timeout_s: of each request, and of making a connection.
            headers: lines to send with each.

        Raises:
            InvalidRequestError: nothing can be at this URL.
        """
        address = address_of(url)
        self._host, self._tls = address.host, address.scheme == "https"
        self._port = address.port or (443 if self._tls else 80)
        self._fields = encoded(fields)
        self._timeout_s = timeout_s
        self._seeds = itertools.count(0, num_rows)
        path = address.raw_path.decode("ascii").rstrip("/")
        lines = (
            f"POST {path}/v1/generate HTTP/1.1",
            f"Host: {address.netloc.decode('ascii')}",
            *headers,
            "Content-Type: application/json",
            "Content-Length: ",
        )
        self._head = "\r\n".join(lines).encode("ascii")
        self.measured = Measured(num_rows)
        self._end = 0.0

    async def run(self, *, connections: int, seconds: float, progress: bool) -> Measured:
        """Loads the server; ends at most timeout_s after its time.

        Raises:
            UnreachableError: nobody listens there.
        """
        opened = await self._open(connections)
        began = time.perf_counter()
        self._end = began + seconds
        tasks = [asyncio.create_task(self._loop(streams)) for streams in opened]
        if progress:
            tasks.append(asyncio.create_task(self._show(began, seconds)))
        await asyncio.gather(*tasks)
        self.measured.seconds = time.perf_counter() - began
        return self.measured

    async def _open(self, num: int) -> list[Streams]:
        """So many connections, or none."""
        tried = await asyncio.gather(*(self._connect() for _ in range(num)), return_exceptions=True)
        opened = [streams for streams in tried if not isinstance(streams, BaseException)]
        for failed in tried:
            if isinstance(failed, BaseException):
                for _, writer in opened:
                    writer.transport.abort()
                raise failed
        return opened

    async def _connect(self) -> Streams:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.open_connection(self._host, self._port, ssl=self._tls or None)
        except TimeoutError:
            why = f"no connection within {self._timeout_s:g} s"
        except OSError as error:
            why = str(error)
        raise UnreachableError(f"nobody listens on {self._host}:{self._port}: {why}")

    async def _loop(self, streams: Streams) -> None:
        reader, writer = streams
        try:
            while time.perf_counter() < self._end:
                if not await self._ask(reader, writer):
                    writer.transport.abort()
                    reader, writer = await self._connect()
        except (OSError, UnreachableError, asyncio.IncompleteReadError) as error:
            self.measured.failed("connection lost", str(error))
        except ForeignAnswerError as error:
            self._stop("foreign answer", error.detail)
        finally:
            writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; can the connection take another?"""
        began = time.perf_counter()
        writer.write(self._request())
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await _read(reader)
        except TimeoutError:
            self.measured.failed("timeout", f"no answer within {self._timeout_s:g} s")
            return False
        if answer.status == 200:
            if not answer.media_type.startswith(("image/", NPY)):
                raise ForeignAnswerError(f"the answer is {answer.media_type!r}, no image")
            self.measured.latencies_s.append(time.perf_counter() - began)
        else:
            detail = error_of(answer.status, answer.body, None).detail
            if 400 <= answer.status < 500 and answer.status not in _PASSING:
                self._stop(str(answer.status), detail)
            else:
                self.measured.failed(str(answer.status), detail)
        return not answer.is_last

    def _stop(self, name: str, detail: str) -> None:
        """Ends the test: it would be answered so for ever."""
        self.measured.failed(name, detail)
        self.measured.stopped = True
        self._end = 0.0

    def _request(self) -> bytes:
        first = next(self._seeds)
        seeds = list(range(first, first + self.measured.num_rows))
        body = b'%b,"seeds":%b}' % (self._fields[:-1], msgspec.json.encode(seeds))
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    async def _show(self, began: float, seconds: float) -> None:
        while (now := time.perf_counter()) < self._end:
            done = min(1.0, (now - began) / seconds)
            num = len(self.measured.latencies_s)
            bar = ("#" * round(done * _BAR)).ljust(_BAR)
            rate = num / max(now - began, 1e-9)
            sys.stderr.write(f"\r[{bar}] {done:4.0%} {num:9,} answered, {rate:9,.0f} a second")
            sys.stderr.flush()
            await asyncio.sleep(min(0.2, max(0.01, self._end - now)))
        sys.stderr.write("\n")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    media_type: str
    body: bytes
    is_last: bool
    """Of its connection."""


async def _read(reader: asyncio.StreamReader) -> _Answer:
    """The next answer.

    Raises:
        ForeignAnswerError: it is none of this server's, which says how long its answers are.
    """
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1."):
            raise ValueError("it is no HTTP/1")
        length = _header(head, b"content-length")
        if not length.isdigit():
            raise ValueError(f"its Content-Length is {length.decode('latin-1')!r}")
        body = await reader.readexactly(int(length))
        status, media_type = int(head[9:12]), _header(head, b"content-type").decode("latin-1")
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise ForeignAnswerError(
            f"the answer can't be read: {error}; is this the server?"
        ) from error
    return _Answer(status, media_type, body, b"\r\nconnection: close\r\n" in head)


def _header(head: bytes, name: bytes) -> bytes:
    """A header's value; empty where there is none."""
    _, found, rest = head.partition(b"\r\n%b:" % name)
    return rest.partition(b"\r\n")[0].strip() if found else b""
