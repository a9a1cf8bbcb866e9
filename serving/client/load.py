"""A closed-loop load test: each connection sends its next request when it has its response.

wrk and oha put more load on a server per core, and the benchmarks use wrk. This one is kept for
operators, since those can't do the following, or only by a script that slows wrk down. Each request
asks for new seeds, so that no cache answers. Each response must hold all images that its request
asked for. A failure is reported with the server's own words, and a refusal that would repeat for
ever ends the test at once. It needs no other program than the client.

It uses plain asyncio streams, since an HTTP library would be slower than the server. Even so it can
use one core only: `docs/client.md` says where that becomes the limit.
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

from serving.client.errors import ForeignAnswerError, UnreachableError, error_of
from serving.client.requests import encoded
from serving.client.responses import Response, check_images
from serving.client.transport import parse_url

_BAR = 40
_TRANSIENT = frozenset({408, 425, 429})
"""The only 4xx that the same request may not get again later."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Measured:
    """The results of a load test."""

    num_rows: int
    """Images in each request."""
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    """Of the requests that got their images."""
    failures: Counter[str] = field(default_factory=Counter)
    """Other responses by status; time-outs, lost connections, responses of another program."""
    first_failure: str | None = None
    """The detail of the first of them."""
    stopped: bool = False
    """It ended early, since every further request would have failed too."""

    def add_failure(self, name: str, detail: str) -> None:
        """Counts a failure."""
        self.failures[name] += 1
        self.first_failure = self.first_failure or f"{name}: {detail}"

    def quantile_ms(self, q: float) -> float:
        """Returns the latency that a share q of the requests did not exceed."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)] * 1e3

    def summary(self) -> dict[str, Any]:
        """Returns the figures by name, for JSON."""
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
        """Yields lines of text: the latencies in buckets whose bounds double."""
        if not self.latencies_s:
            return
        powers = Counter(max(-2, math.ceil(math.log2(s * 1e3))) for s in self.latencies_s)
        most = max(powers.values())
        for power in range(min(powers), max(powers) + 1):
            num = powers[power]
            bar = "#" * math.ceil(num / most * _BAR)
            yield f"  up to {2.0**power:9.2f} ms {num:9,} {bar}"


class Loader:
    """Sends requests to one server for a given time."""

    def __init__(
        self,
        url: str,
        fields: dict[str, Any],
        *,
        num_rows: int,
        timeout_s: float,
        headers: Sequence[str] = (),
    ) -> None:
        """Opens no connection yet.

        Args:
            url: the server's.
            fields: one or more fields of POST /v1/generate; each request adds new seeds.
            num_rows: seeds in each request.
            timeout_s: for each request, and for opening a connection.
            headers: header lines to send with each request.

        Raises:
            InvalidRequestError: no server can have this URL.
        """
        address = parse_url(url)
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
        """Runs the test for so many seconds, and at most timeout_s longer.

        Raises:
            UnreachableError: a connection can't be opened.
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
        """Opens all connections, or closes those that it opened."""
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
        raise UnreachableError(f"can't connect to {self._host}:{self._port}: {why}")

    async def _loop(self, streams: Streams) -> None:
        reader, writer = streams
        try:
            while time.perf_counter() < self._end:
                if not await self._request(reader, writer):
                    writer.transport.abort()
                    reader, writer = await self._connect()
        except (OSError, UnreachableError, asyncio.IncompleteReadError) as error:
            self.measured.add_failure("connection lost", str(error))
        except ForeignAnswerError as error:
            self._stop("foreign answer", error.detail)
        finally:
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Sends one request; returns whether the connection can be used again."""
        began = time.perf_counter()
        writer.write(self._message())
        try:
            async with asyncio.timeout(self._timeout_s):
                response, is_last = await _read(reader)
        except TimeoutError:
            self.measured.add_failure("timeout", f"no response within {self._timeout_s:g} s")
            return False
        latency_s = time.perf_counter() - began
        if response.status == 200:
            check_images(response, self.measured.num_rows)
            self.measured.latencies_s.append(latency_s)
        else:
            detail = error_of(response.status, response.body, None).detail
            if 400 <= response.status < 500 and response.status not in _TRANSIENT:
                self._stop(str(response.status), detail)
            else:
                self.measured.add_failure(str(response.status), detail)
        return not is_last

    def _stop(self, name: str, detail: str) -> None:
        """Ends the test: every further request would get the same response."""
        self.measured.add_failure(name, detail)
        self.measured.stopped = True
        self._end = 0.0

    def _message(self) -> bytes:
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
            sys.stderr.write(f"\r[{bar}] {done:4.0%} {num:9,} responses, {rate:9,.0f} a second")
            sys.stderr.flush()
            await asyncio.sleep(min(0.2, max(0.01, self._end - now)))
        sys.stderr.write("\n")


async def _read(reader: asyncio.StreamReader) -> tuple[Response, bool]:
    """Reads the next response, and whether it is the last of its connection.

    Raises:
        ForeignAnswerError: it is malformed, or has no length, which this server always sends.
    """
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1."):
            raise ValueError("it is not HTTP/1")
        length = _header(head, b"content-length")
        if not length.isdigit():
            raise ValueError(f"its Content-Length is {length.decode('latin-1')!r}")
        body = await reader.readexactly(int(length))
        status, media_type = int(head[9:12]), _header(head, b"content-type").decode("latin-1")
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise ForeignAnswerError(
            f"the response can't be read: {error}; check that the URL is the server's"
        ) from error
    response = Response(status, {"content-type": media_type}, body)
    return response, b"\r\nconnection: close\r\n" in head


def _header(head: bytes, name: bytes) -> bytes:
    """Returns the value of a header, empty if it is missing; faster than a full parser."""
    _, found, rest = head.partition(b"\r\n%b:" % name)
    return rest.partition(b"\r\n")[0].strip() if found else b""
