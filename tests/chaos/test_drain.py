"""The server is told to stop while requests are under way."""

import asyncio
import itertools
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.client import LOST, REFUSED, Answer, Connection, Load, closing, run

pytestmark = [pytest.mark.chaos, pytest.mark.alone]


async def stop_under_load(server: Any) -> tuple[Load, list[Answer]]:
    """SIGTERM while 16 connections ask and one looks at /readyz."""
    load = Load(server.url)
    numbers = itertools.count()

    def body() -> bytes:
        return json.dumps({"seeds": [next(numbers)] * 8, "format": "npy"}).encode()

    loops = [asyncio.create_task(load.closed_loop(body)) for _ in range(16)]
    # One connection was open before and stays open, as a kubelet's or a balancer's may.
    with closing(Connection(load.port)) as connection:
        await asyncio.sleep(1.0)
        assert (await connection.ask(path="/readyz")).fate == 200
        server.process.send_signal(signal.SIGTERM)
        told = time.perf_counter()
        probes = []
        while not probes or probes[-1].fate != REFUSED:
            probes.append(await connection.ask(path="/readyz"))
            await asyncio.sleep(0.02)
    await asyncio.gather(*loops)
    changed = next(answer.started - told for answer in probes if answer.fate == 503)
    assert changed < 0.2
    return load, probes


def test_sigterm_under_load(
    slow_repository: Path,
    start_server: Callable[..., Any],
    record: Callable[..., None],
    tmp_path: Path,
) -> None:
    server = start_server(slow_repository)
    load, probes = run(stop_under_load(server))
    assert server.process.wait(30) == 0, server.log.read_text()
    assert load.count(200) > 50
    # A connection that is refused was never admitted: everything else is answered.
    assert load.count(200, REFUSED) == len(load.answers), load.fates
    fates = [answer.fate for answer in probes]
    assert 503 in fates
    assert LOST not in fates
    assert 200 not in fates[fates.index(503) :]
    assert not list(tmp_path.glob("saddlepoint-*"))
    record(
        "5. SIGTERM under load, 16 connections",
        load,
        remark=f"/readyz 503 at once, exit 0; {load.count(REFUSED)} refused after the end",
    )


def test_a_second_signal_ends_it_at_once(
    slow_repository: Path, start_server: Callable[..., Any], record: Callable[..., None]
) -> None:
    flags = ("--max-batch-rows", "1", "--max-waiting-rows", "100000", "--max-seeds", "20000")
    server = start_server(slow_repository, *flags, "--max-image-pixels", f"{1 << 30}")
    load = Load(server.url)

    async def ask_and_stop() -> float:
        body = json.dumps({"seeds": [1] * 20_000, "format": "npy"}).encode()
        asked = asyncio.create_task(load.closed_loop(lambda: body))
        with closing(Connection(load.port)) as connection:
            while b"saddlepoint_rows_waiting 1" not in (await connection.ask(path="/metrics")).body:
                await asyncio.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            while (await connection.ask(path="/readyz")).fate == 200:
                await asyncio.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        told = time.perf_counter()
        await asyncio.to_thread(server.process.wait, 10)
        took_s = time.perf_counter() - told
        load.going = False
        await asked
        return took_s

    took_s = run(ask_and_stop())
    assert server.process.returncode == 128 + signal.SIGTERM
    assert took_s < 2
    assert load.count(200) == 0
    record(
        "5. a second SIGTERM with seconds of work left",
        load,
        remark=f"ended {took_s * 1e3:.0f} ms after it, exit code {128 + signal.SIGTERM}",
    )
