"""What one real server does: its rate, its latency, its CPU, and its queue under a step of load.

DCGAN-64 (ngf 64, untrained) on this machine's cores, requests of eight seeds answered as npy, sent
from the same machine. The step is an open loop: requests leave as a Poisson process, whether or not
earlier ones were answered.
"""

import asyncio
import datetime
import os
import re
import time
import urllib.request
from typing import Any

import httpx
import numpy as np
from _harness import Running, make_repository, saddlepoint, scratch_folder

ROWS = 8
"""Seeds in a request."""
BODY = {"seeds": list(range(ROWS)), "format": "npy"}
PHASES = ((0.5, 1.0), (2.0, 2.0), (0.5, 2.0))
"""Load as a share of the capacity, and how many times `seconds` it lasts."""


def record(seconds: float) -> dict[str, Any]:
    """Everything that the simulation needs, as it goes into the file."""
    with scratch_folder() as folder:
        repository = make_repository(folder, "dcgan64")
        with saddlepoint(
            repository, folder, "--compute-lanes", "1", "--compute-threads", "1"
        ) as one:
            one_lane = asyncio.run(_capacity(one, seconds))
        with saddlepoint(repository, folder) as server:
            all_lanes = asyncio.run(_capacity(server, seconds))
            step = asyncio.run(_step(server, all_lanes["rows_per_s"], seconds))
            ready_s = server.ready_s
    return {
        "recorded": datetime.date.today().isoformat(),
        "model": "dcgan64",
        "cores": os.cpu_count(),
        "rows_per_request": ROWS,
        "ready_s": round(ready_s, 2),
        "all_lanes": all_lanes,
        "one_lane": one_lane,
        "step": step,
    }


def _scrape(server: Running) -> dict[str, float]:
    """Sums over all labels but the role of a process, which follows the name."""
    text = urllib.request.urlopen(f"{server.url}/metrics", timeout=10).read().decode()
    found: dict[str, float] = {}
    for name, labels, value in re.findall(r"^saddlepoint_(\w+)(\{.*\})? (\S+)$", text, re.M):
        role = re.search(r'role="(\w+)"', labels)
        key = f"{name} {role[1]}" if role else name
        found[key] = found.get(key, 0.0) + float(value)
    return found


async def _capacity(server: Running, seconds: float) -> dict[str, float]:
    """A closed loop of 32 clients keeps every lane busy; one client alone never waits.

    The CPU time of an image is the processes' own, and hardly changes where others use the machine.
    """
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        await client.post("/v1/generate", json=BODY)
        before, began = server.cpu_s(), time.monotonic()
        await asyncio.sleep(seconds / 4)
        idle_cores = (server.cpu_s() - before) / (time.monotonic() - began)
        alone = await _closed_loop(client, 1, seconds / 2)
        first, began = _scrape(server), time.monotonic()
        await _closed_loop(client, 32, seconds)
        last, elapsed = _scrape(server), time.monotonic() - began
    lanes = last["worker_lanes"]
    grown = {name: last[name] - first[name] for name in last if name in first}
    rows = grown["rows_generated_total"]
    return {
        "rows_per_s": round(rows / elapsed, 1),
        "worker_cpu_s": round(grown["process_cpu_seconds_total worker"] / rows, 7),
        "http_cpu_s": round(grown["process_cpu_seconds_total http"] / rows, 7),
        "busy": round(grown["compute_seconds_sum"] / elapsed / lanes, 3),
        "idle_cores": round(idle_cores, 4),
        "alone_p50_s": round(float(np.quantile(alone, 0.5)), 4),
        "alone_p99_s": round(float(np.quantile(alone, 0.99)), 4),
    }


async def _closed_loop(client: httpx.AsyncClient, num: int, seconds: float) -> list[float]:
    end, taken = time.monotonic() + seconds, []

    async def ask() -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            (await client.post("/v1/generate", json=BODY)).raise_for_status()
            taken.append(time.monotonic() - began)

    await asyncio.gather(*(ask() for _ in range(num)))
    return taken


async def _step(server: Running, rows_per_s: float, seconds: float) -> dict[str, Any]:
    """The queue as /metrics shows it, four times a second, and what clients saw."""
    rng = np.random.default_rng(0)
    answers: list[tuple[float, float, int]] = []
    samples: list[list[float]] = []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        began = time.monotonic()

        async def ask() -> None:
            sent = time.monotonic()
            status = (await client.post("/v1/generate", json=BODY)).status_code
            answers.append((sent - began, time.monotonic() - sent, status))

        async def watch() -> None:
            while True:
                found = await asyncio.to_thread(_scrape, server)
                names = ("rows_waiting", "rows_in_flight", "rows_generated_total")
                now_s = round(time.monotonic() - began, 2)
                samples.append([now_s, *(found.get(name, 0.0) for name in names)])
                await asyncio.sleep(0.25)

        watcher = asyncio.create_task(watch())
        tasks, at = [], 0.0
        for share, times in PHASES:
            end = at + times * seconds
            while (at := at + rng.exponential(ROWS / (share * rows_per_s))) < end:
                await asyncio.sleep(max(0.0, at - (time.monotonic() - began)))
                tasks.append(asyncio.create_task(ask()))
            at = end
        await asyncio.gather(*tasks)
        watcher.cancel()
    return {
        "phases": [[share * rows_per_s, times * seconds] for share, times in PHASES],
        "samples": samples,
        "clients": [
            [second, len(now), sum(a[2] != 200 for a in now), _p99(now)]
            for second in range(int(max(a[0] for a in answers)) + 1)
            if (now := [a for a in answers if int(a[0]) == second])
        ],
    }


def _p99(answers: list[tuple[float, float, int]]) -> float | None:
    made = [took for _, took, status in answers if status == 200]
    return round(float(np.quantile(made, 0.99)), 4) if made else None
