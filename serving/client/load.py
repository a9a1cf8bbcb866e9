"""A closed-loop load test: so many connections, each asks again as soon as it was answered.

Plain asyncio streams, since a comfortable HTTP library is slower than the server. Even so this
process is one core's worth of Python: `docs/client.md` says where it becomes the limit.
"""

import asyncio
import contextlib
import itertools
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from serving.client.errors import UnreachableError

_BAR = 40


@dataclass
class Measured:
    """What was seen."""

    num_rows: int
    """Images of each request."""
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    """Of the requests that were answered with images."""
    failures: Counter[str] = field(default_factory=Counter)
    """Other answers, by status; broken connections."""

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
        self, url: str, fields: dict[str, Any], *, num_rows: int, headers: Sequence[str] = ()
    ) -> None:
        """fields: of POST /v1/generate, but seeds, which differ from request to request."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UnreachableError(f"URL is {url!r}, must be like http://127.0.0.1:8000")
        self._host, self._tls = parts.hostname, parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._fields = fields
        self._seeds = itertools.count(0, num_rows)
        self._headers = "".join(f"{line}\r\n" for line in headers)
        self.measured = Measured(num_rows)
        self._end = 0.0

    async def run(self, *, connections: int, seconds: float, progress: bool) -> Measured:
        """Loads the server.

        Raises:
            UnreachableError: nobody listens there.
        """
        opened = [await self._connect() for _ in range(connections)]
        began = time.perf_counter()
        self._end = began + seconds
        tasks = [asyncio.create_task(self._loop(*streams)) for streams in opened]
        if progress:
            tasks.append(asyncio.create_task(self._show(began, seconds)))
        await asyncio.gather(*tasks)
        self.measured.seconds = time.perf_counter() - began
        return self.measured

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_connection(self._host, self._port, ssl=self._tls or None)
        except OSError as error:
            raise UnreachableError(
                f"nobody listens on {self._host}:{self._port}: {error}"
            ) from error

    async def _loop(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while time.perf_counter() < self._end:
                began = time.perf_counter()
                writer.write(self._request())
                status, closes = await _answer(reader)
                if status == 200:
                    self.measured.latencies_s.append(time.perf_counter() - began)
                else:
                    self.measured.failures[str(status)] += 1
                if closes:
                    writer.close()
                    reader, writer = await self._connect()
        except (OSError, UnreachableError, asyncio.IncompleteReadError):
            self.measured.failures["connection lost"] += 1
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _request(self) -> bytes:
        first = next(self._seeds)
        seeds = list(range(first, first + self.measured.num_rows))
        body = msgspec.json.encode({**self._fields, "seeds": seeds})
        head = (
            f"POST /v1/generate HTTP/1.1\r\nHost: {self._host}\r\n{self._headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("latin-1") + body

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


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status of the next answer, and whether it ends the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    start = lower.find(b"\r\ncontent-length:")
    if start < 0:
        raise asyncio.IncompleteReadError(head, None)
    length = int(lower[start + 17 : lower.find(b"\r\n", start + 17)])
    await reader.readexactly(length)
    return int(head[9:12]), b"\r\nconnection: close" in lower
