"""Processes are killed while requests are under way."""

import asyncio
import itertools
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.client import HUNG, Connection, Load, closing, run
from tests.support import http_processes_of, workers_of

pytestmark = [pytest.mark.chaos, pytest.mark.alone]

HELD_S = 1.0
BACK_S = 15.0  # hung, not slow: how long it takes is recorded in the table


def bodies() -> Callable[[], bytes]:
    numbers = itertools.count()
    return lambda: json.dumps({"seeds": [next(numbers)] * 8, "format": "npy"}).encode()


async def killed_under_load(server: Any, num_workers: int, times: int) -> tuple[Load, list[float]]:
    """Kills a worker again and again; gives how long each time until images came back."""
    load, back_s = Load(server.url), []
    body = bodies()
    loops = [asyncio.create_task(load.closed_loop(body)) for _ in range(16)]
    for kills in range(1, times + 1):
        await asyncio.sleep(1.0)
        killed = time.perf_counter()
        os.kill(workers_of(server)[0], signal.SIGKILL)
        with closing(Connection(load.port)) as connection:
            while (await connection.ask(body())).fate != 200:
                await asyncio.sleep(0.02)
        back_s.append(time.perf_counter() - killed)
        # Every worker has loaded the model: else the next kill could take the only one that has.
        loaded = b'{model="slow",result="loaded"} %d.0\n' % (num_workers + kills)
        with closing(Connection(load.port)) as connection:
            while loaded not in (await connection.ask(path="/metrics")).body:
                await asyncio.sleep(0.05)
            while (await connection.ask(path="/readyz")).fate != 200:
                await asyncio.sleep(0.02)
    load.going = False
    await asyncio.gather(*loops)
    return load, back_s


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_killed_worker(
    slow_repository: Path,
    start_server: Callable[..., Any],
    record: Callable[..., None],
    num_workers: int,
) -> None:
    server = start_server(
        slow_repository, "--workers-per-device", f"{num_workers}", "--compute-threads", "1"
    )
    load, back_s = run(killed_under_load(server, num_workers, 3))
    assert load.count(200) > 100
    assert load.count(200, 503) == len(load.answers), load.fates
    assert max(back_s) < BACK_S
    slowest_s = max(answer.took_s for answer in load.answers)
    late = sum(answer.fate == 503 and answer.took_s > HELD_S + 0.3 for answer in load.answers)
    record(
        f"4. kill -9 of a worker of {num_workers}, 3 times, 16 connections",
        load,
        late=late,
        remark=f"{load.count(503)} answered 503; slowest answer {slowest_s:.1f} s; "
        f"images again after {max(back_s):.1f} s",
    )
    assert not late
    # With another worker at hand nobody notices.
    if num_workers == 2:
        assert load.count(503) == 0
        assert slowest_s < 2 * HELD_S  # the worker that starts again takes a core for a while


def test_a_worker_that_dies_at_every_start(
    slow_repository: Path, start_server: Callable[..., Any], record: Callable[..., None]
) -> None:
    server = start_server(slow_repository)
    load = Load(server.url)
    killed = 0
    until = time.monotonic() + 6

    async def ready() -> None:
        with closing(Connection(load.port)) as connection:
            load.answers.append(await connection.ask(path="/readyz"))

    while time.monotonic() < until:
        for worker in workers_of(server):
            os.kill(worker, signal.SIGKILL)
            killed += 1
        time.sleep(0.05)
        run(ready())
    assert set(load.fates) <= {200, 503}
    assert load.answers[-1].fate == 503
    # No spin: the pauses grow, 0.4 + 0.8 + 1.6 + 3.2 s.
    assert 2 <= killed <= 6
    pauses = re.findall(
        r"was killed by SIGKILL; starting it again in ([\d.]+) s", server.log.read_text()
    )
    assert pauses == sorted(pauses, key=float)
    assert len(pauses) >= 2
    server.wait_until("/readyz", 200)
    record(
        "4. a worker that dies at every start, 6 s",
        load,
        remark=f"/readyz 503; {killed} starts; pauses of {', '.join(pauses)} s",
    )


def test_a_killed_http_process(
    slow_repository: Path, start_server: Callable[..., Any], record: Callable[..., None]
) -> None:
    server = start_server(slow_repository)
    (http_process,) = http_processes_of(server)

    async def kill() -> Load:
        load = Load(server.url)
        body = bodies()
        loops = [asyncio.create_task(load.closed_loop(body)) for _ in range(8)]
        await asyncio.sleep(0.5)
        os.kill(http_process, signal.SIGKILL)
        await asyncio.gather(*loops)
        return load

    load = run(kill())
    assert server.process.wait(10) == 1
    assert load.count(HUNG) == 0
    record(
        "4. kill -9 of the HTTP process, 8 connections",
        load,
        remark="the server ends at once with exit code 1; what was open is cut",
    )
