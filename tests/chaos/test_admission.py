"""Too much is asked: what is admitted is answered in time, the rest is told when to come back."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.client import Answer, Connection, Load, closing, quantile, run
from tests.support import metric, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.alone]

ROWS = 32  # images a request
BOUND = 512  # images that may wait
BATCH = 64
OVERLOAD = 3
PROBE_S = 0.1


def bodies(num_rows: int = ROWS) -> Callable[[], bytes]:
    """A new request each time."""
    numbers = itertools.count()

    def body() -> bytes:
        first = next(numbers) * num_rows
        seeds = list(range(first, first + num_rows))
        return json.dumps({"seeds": seeds, "format": "npy"}).encode()

    return body


async def saturate(url: str, seconds: float) -> Load:
    """As many requests as the server can answer, and no more: the peak."""
    load = Load(url)
    body = bodies()
    loops = [asyncio.create_task(load.closed_loop(body)) for _ in range(6)]
    await asyncio.sleep(seconds)
    load.going = False
    await asyncio.gather(*loops)
    return load


async def probe(url: str, done: asyncio.Event) -> list[Answer]:
    """Asks what a cluster asks, all the time."""
    answers = []
    paths = itertools.cycle(("/livez", "/readyz", "/metrics"))
    with closing(Connection(int(url.rpartition(":")[2]))) as connection:
        while not done.is_set():
            answers.append(await connection.ask(path=next(paths)))
            await asyncio.sleep(PROBE_S)
    return answers


def per_s(load: Load) -> float:
    """Requests a second that were answered with images."""
    made = [answer for answer in load.answers if answer.fate == 200]
    return len(made) / (max(a.ended for a in made) - min(a.started for a in made))


async def overload(url: str) -> tuple[float, Load, list[Answer]]:
    """The peak, three times the peak, and the probes during that."""
    peak = per_s(await saturate(url, 2.0))
    load, done = Load(url), asyncio.Event()
    probing = asyncio.create_task(probe(url, done))
    await load.open_loop(bodies(), per_s=OVERLOAD * peak, seconds=4.0)
    done.set()
    return peak, load, await probing


def test_three_times_capacity(
    slow_repository: Path, start_server: Callable[..., Any], record: Callable[..., None]
) -> None:
    server = start_server(slow_repository, "--max-waiting-rows", f"{BOUND}", "--max-seeds", "64")
    # The promise is 0.9, 1.0 and 0.1 s, and the table says what was seen; the client shares the two
    # cores, and others may, so what fails the test is further off, three times in a row.
    for attempt in range(3):
        peak, load, probes = run(overload(server.url))
        made = [answer for answer in load.answers if answer.fate == 200]
        goodput = per_s(load) / peak
        waited_s = quantile([answer.took_s for answer in made], 0.99)
        bound_s = (BOUND + BATCH) / (per_s(load) * ROWS)
        slowest_probe_s = quantile([answer.took_s for answer in probes], 0.95)
        kept = goodput >= 0.8 and waited_s <= bound_s * 1.5 and slowest_probe_s <= 0.2
        if kept or attempt == 2:
            break
    refused = [answer for answer in load.answers if answer.fate == 429]
    assert refused
    assert len(made) + len(refused) == len(load.answers), load.fates
    assert all(1 <= int(answer.headers["retry-after"]) <= 30 for answer in refused)
    assert {answer.fate for answer in probes} == {200}
    remark = (
        f"goodput {goodput:.0%} of the peak; p99 {waited_s * 1e3:.0f} ms, "
        f"bound / rate + one batch {bound_s * 1e3:.0f} ms; "
        f"probes p95 {slowest_probe_s * 1e3:.0f} ms"
    )
    late = sum(answer.took_s > bound_s * 1.5 for answer in made)
    record(f"1. {OVERLOAD} times capacity for 4 s", load, late=late, remark=remark)
    assert kept, remark


@pytest.fixture
def server(slow_repository: Path, start_server: Callable[..., Any]) -> Any:
    """Takes work for many seconds."""
    flags = ("--max-batch-rows", "8", "--max-waiting-rows", "20000", "--max-seeds", "4096")
    return start_server(slow_repository, *flags)


@contextlib.asynccontextmanager
async def queue_of_seconds(server: Any) -> AsyncIterator[None]:
    """Gives the worker some seconds to do."""
    connections = [Connection(int(server.url.rpartition(":")[2])) for _ in range(4)]
    for connection in connections:
        await connection.send(bodies(4096)())
    while metric(server, "saddlepoint_rows_waiting") < 10_000:
        await asyncio.sleep(0.01)
    yield
    for connection in connections:
        connection.close()


def test_deadlines(server: Any, record: Callable[..., None]) -> None:
    timeout_s = 0.25

    async def ask() -> Load:
        load = Load(server.url)
        # Some go the fast path, others uvicorn's, which a query string makes them take.
        connections = [Connection(load.port) for _ in range(40)]
        headers = {"x-request-timeout-ms": f"{timeout_s * 1e3:.0f}"}
        paths = itertools.cycle(("/v1/generate", "/v1/generate?"))
        async with queue_of_seconds(server):
            asked = (
                connection.ask(bodies(4)(), headers=headers, path=next(paths))
                for connection in connections
            )
            load.answers += await asyncio.gather(*asked)
        for connection in connections:
            connection.close()
        return load

    load = run(ask())
    assert load.fates == {504: 40}
    took_s = [answer.took_s for answer in load.answers]
    assert min(took_s) >= timeout_s
    late = sum(answer.took_s > timeout_s + 0.05 for answer in load.answers)
    worst_ms = (max(took_s) - timeout_s) * 1e3
    record(
        "2. deadline of 250 ms in a queue of seconds",
        load,
        late=late,
        remark=f"504 at most {worst_ms:.0f} ms after the deadline",
    )
    assert metric(server, 'saddlepoint_rows_abandoned_total{reason="deadline"}') == 160
    assert quantile(took_s, 0.9) <= timeout_s + 0.2, took_s  # the table has the tight figure


def test_clients_that_hang_up(server: Any, record: Callable[..., None]) -> None:

    async def ask_and_leave() -> Load:
        load = Load(server.url)
        connections = [Connection(load.port) for _ in range(20)]
        async with queue_of_seconds(server):
            for index, connection in enumerate(connections):
                await connection.send(bodies(4)(), path="/v1/generate" + "?" * (index % 2))
                load.answers.append(Answer("left", 0.0, 0.0))
            for connection in connections:
                connection.close()
        return load

    load = run(ask_and_leave())
    dropped = 'saddlepoint_rows_abandoned_total{reason="disconnect"}'
    wait_for(lambda: metric(server, dropped) >= 80)
    assert server.get("/readyz").status_code == 200
    record(
        "3. 20 clients hang up while they wait",
        load,
        remark=f"{metric(server, dropped):.0f} images dropped before they were made",
    )
