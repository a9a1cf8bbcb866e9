"""A server under load for minutes, while faults that a seed draws happen to it.

Every answer is held against the images that the model makes by itself. At the end, when the faults
are over, what was booked is given back, memory and descriptors are what they were, and the next
publication, unloading, load, death of a worker and end go as ever.
"""

import asyncio
import collections
import contextlib
import itertools
import json
import math
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator
from models.latents import latents
from models.repository import Repository
from tests.chaos.client import HUNG, LOST, REFUSED, Answer, Connection, closing
from tests.support import http_processes_of, metric, wait_for, workers_of

BOOKED = (
    "saddlepoint_rows_waiting",
    "saddlepoint_rows_in_flight",
    "saddlepoint_held_bytes",
)
"""What is given back when nobody asks for anything any more."""
NUM_CONNECTIONS = 8
# 401: its key was just taken away; 408, 429, 503, 504: told to ask again; lost and refused: no
# descriptor was left, or the process that held the connection.
ALLOWED = frozenset((200, 401, 408, 429, 503, 504, LOST, REFUSED))
_PAUSE_S = 0.5
_QUIET_S = 40.0

Fault = Callable[["Stage"], Awaitable[None]]
FAULTS: dict[str, Fault] = {}
"""All that may happen, by name; each undoes what it did."""


RARE: set[str] = set()
"""Those that end a worker: each makes the pause before the next start longer."""


def fault(happens: Fault) -> Fault:
    """Adds one to the list."""
    FAULTS[happens.__name__] = happens
    return happens


def rare_fault(happens: Fault) -> Fault:
    """Adds one that happens a quarter as often as others."""
    RARE.add(happens.__name__)
    return fault(happens)


class LogReader(threading.Thread):
    """Reads what the server says, unless it is told not to."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self.reads = threading.Event()
        self.reads.set()
        self._pieces: list[bytes] = []
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while self.reads.wait() and (data := os.read(self._descriptor, 1 << 16)):
                self._pieces.append(data)

    @property
    def data(self) -> bytes:
        """What has been read so far; it may be asked for while more comes."""
        return b"".join(self._pieces)

    @property
    def text(self) -> str:
        return self.data.decode()


@dataclass
class Stage:
    """The server, and all that a fault may touch."""

    server: Any
    repository: Repository
    scratch: Path
    keys_path: Path
    key: str
    bundles: list[Bundle]
    """What is published, one or the other."""
    log: LogReader
    random: random.Random
    num_processes: int
    scratch_is_small: bool
    """True where it can be filled up without harm to anybody else."""
    generators: dict[str, CpuGenerator] = field(default_factory=dict)
    answers: collections.Counter[int | str] = field(default_factory=collections.Counter)
    happened: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    early: list[tuple[Answer, list[int]]] = field(default_factory=list)
    """Answers of versions that were just being published: compared at the end."""
    slowest_s: float = 0.0
    memory_mb: list[float] = field(default_factory=list)
    loading: bool = True
    absent_until: float = 0.0
    """Till then the model may be unknown: it was taken out of service, or away."""

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def publish(self, name: str = "soak", *, make_current: bool = True) -> Bundle:
        """Publishes a bundle, and remembers what its images are."""
        bundle = self.random.choice(self.bundles)
        published = self.repository.publish(name, bundle, make_current=make_current)
        self.generators[published.digest] = CpuGenerator(bundle.model_path)
        return published

    def processes(self) -> list[int]:
        """All of the server."""
        found = [*http_processes_of(self.server), *workers_of(self.server)]
        return [self.server.process.pid, *found]

    def run_folders(self) -> list[Path]:
        return list(self.scratch.glob("saddlepoint-*"))

    def get(self, path: str) -> Any:
        """GET, as `tests.support.metric` asks."""
        return self.server.get(path, headers=self.headers)

    def post(self, path: str, **request: Any) -> Any:
        return self.server.post(path, json=request, headers=self.headers)

    async def ask(self, connection: Connection, numbers: "itertools.count[int]") -> None:
        """One request and what became of it."""
        first = next(numbers) % 5000
        seeds = list(range(first, first + self.random.choice((1, 1, 1, 2, 7, 32))))
        body = json.dumps({"model": "soak", "seeds": seeds, "format": "npy"}).encode()
        answer = await connection.ask(body, headers=self.headers, timeout_s=30)
        self.answers[answer.fate] += 1
        self.slowest_s = max(self.slowest_s, answer.took_s)
        if answer.fate == 404 and time.monotonic() < self.absent_until:
            await asyncio.sleep(0.02)
        elif answer.fate not in ALLOWED:
            self.wrong.append(f"{answer.fate}: {answer.body[:300]!r}")
        elif answer.fate == 200:
            self.compare(answer, seeds)
        else:
            await asyncio.sleep(0.02)

    def compare_early(self) -> None:
        """Compares what could not be compared when it came, all versions being known now."""
        early, self.early = self.early, []
        for answer, seeds in early:
            self.compare(answer, seeds)
        self.wrong += [f"never published: {answer.headers}" for answer, _ in self.early]

    def compare(self, answer: Answer, seeds: list[int]) -> None:
        """Notes images that aren't those of the model that the answer names."""
        generator = self.generators.get(answer.headers["x-model-digest"])
        if generator is None:  # served before the thread that publishes it has its generator
            self.early.append((answer, seeds))
            return
        array = np.frombuffer(answer.body[-len(seeds) * 8 * 8 :], np.uint8)
        images = array.reshape(len(seeds), 8, 8, 1)
        wanted = generator(latents(np.array(seeds, np.uint64), 6))
        if not np.array_equal(images, wanted):
            self.wrong.append(f"wrong bytes of seeds {seeds} by {answer.headers}")

    async def load(self, numbers: "itertools.count[int]") -> None:
        """One connection that asks all the time."""
        with closing(Connection(self.port)) as connection:
            while self.loading:
                await self.ask(connection, numbers)

    @contextlib.contextmanager
    def absence(self) -> Iterator[None]:
        """While this lasts, and a little longer, the model may be unknown."""
        self.absent_until = math.inf
        try:
            yield
        finally:
            self.absent_until = time.monotonic() + 5

    def note_memory(self) -> None:
        """Of all processes; not while one is missing."""
        total = 0
        processes = self.processes()
        if len(processes) < self.num_processes:
            return
        for pid in processes:
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
        self.memory_mb.append(total / 1024)


async def soak(stage: Stage, seconds: float, faults: list[str]) -> None:
    """Loads, and lets faults happen one after the other, until the time is over."""
    numbers = itertools.count()
    async with asyncio.TaskGroup() as tasks:
        loads = [tasks.create_task(stage.load(numbers)) for _ in range(NUM_CONNECTIONS)]
        until = time.monotonic() + seconds
        # Each once, then by chance.
        waiting = stage.random.sample(faults, len(faults))
        often = [name for name in faults for _ in range(1 if name in RARE else 4)]
        while time.monotonic() < until:
            name = waiting.pop() if waiting else stage.random.choice(often)
            stage.happened[name] += 1
            await FAULTS[name](stage)
            assert stage.server.process.poll() is None, f"it ended after {name}:\n{stage.log.text}"
            await asyncio.sleep(_PAUSE_S * stage.random.random())
            await asyncio.to_thread(stage.note_memory)
        stage.loading = False
        await asyncio.gather(*loads)


def check_quiet(stage: Stage) -> None:
    """Nobody asks any more: nothing is booked, and everything still works."""
    server = stage.server
    wait_for(lambda: stage.get("/readyz").status_code == 200, _QUIET_S)
    for name in BOOKED:
        wait_for(lambda name=name: metric(stage, name) == 0, _QUIET_S)  # type: ignore[misc]
    published = stage.publish().digest
    wait_for(lambda: digest_of(stage) == published, _QUIET_S)
    assert stage.post("/v2/repository/models/soak/unload").status_code == 200
    wait_for(lambda: digest_of(stage) == "404", _QUIET_S)
    assert stage.post("/v2/repository/models/soak/load").status_code == 200
    wait_for(lambda: digest_of(stage) == published, _QUIET_S)
    (worker, *_) = workers_of(server)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: worker not in workers_of(server), _QUIET_S)
    wait_for(lambda: stage.get("/readyz").status_code == 200, _QUIET_S)
    wait_for(lambda: digest_of(stage) == published, _QUIET_S)
    assert metric(stage, "saddlepoint_rows_generated_total") > 0
    assert not metric(stage, "saddlepoint_loop_failing_since_timestamp_seconds")


def digest_of(stage: Stage) -> str:
    """Of the version that is served; else the status."""
    response = stage.post("/v1/generate", model="soak", seeds=[1])
    return str(response.headers.get("x-model-digest", response.status_code))


def check_memory(stage: Stage) -> tuple[float, float]:
    """Memory in MB, early and late; asserts that it is flat."""
    num = len(stage.memory_mb)
    early = statistics.median(stage.memory_mb[num // 5 : num // 2])
    late = statistics.median(stage.memory_mb[num * 4 // 5 :])
    assert late < early * 1.05 + 10, stage.memory_mb
    return early, late


def num_descriptors(stage: Stage) -> dict[int, int]:
    """Open ones of the processes that live as long as the server."""
    pids = [stage.server.process.pid, *http_processes_of(stage.server)]
    return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids}


def report(stage: Stage) -> str:
    """What happened, as a table."""
    lines = ["| what | times |", "|---|---|"]
    lines += [f"| {name} | {num} |" for name, num in sorted(stage.happened.items())]
    answers = sorted(stage.answers.items(), key=str)
    lines += [f"| answered {fate} | {num} |" for fate, num in answers]
    lines += [f"| slowest answer | {stage.slowest_s:.1f} s |"]
    return "\n".join(lines)


assert HUNG not in ALLOWED
