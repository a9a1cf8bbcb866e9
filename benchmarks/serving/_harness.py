"""What the serving benchmarks share: bundles to serve, servers to start, wrk to load them.

A figure is printed as `figure NAME VALUE UNIT`, one a line, for scripts to read.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.networks import DCGAN, MLP, Family, ImageShape
from models.repository import Repository
from training.data import ImageSet
from training.export.exporter import export

NETWORKS: dict[str, tuple[Family, ImageShape]] = {
    "digits": (DCGAN(z_dim=64, ngf=16), ImageShape(resolution=32, channels=1)),
    "article": (MLP(), ImageShape(resolution=28, channels=1)),
    "dcgan64": (DCGAN(z_dim=100, ngf=64), ImageShape(resolution=64, channels=3)),
    "album": (DCGAN(z_dim=16, ngf=2), ImageShape(resolution=256, channels=3)),  # large and cheap
    "dcgan256": (DCGAN(z_dim=100, ngf=64), ImageShape(resolution=256, channels=3)),
}


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the flag that every benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--quick", action="store_true", help="seconds instead of minutes, noisier")
    return made


def figure(name: str, value: float, unit: str) -> None:
    """Prints a figure for scripts."""
    print(f"figure {name} {value:.4g} {unit}", flush=True)


class Budget:
    """Seconds that a benchmark may take; what there is no time for is said to be left out."""

    def __init__(self, seconds: float, only: str = "") -> None:
        """only: what a label must hold to be measured; empty for everything."""
        self._seconds, self._only = seconds, only
        self._end = time.monotonic() + seconds

    def allows(self, label: str) -> bool:
        """True where what the label names may begin."""
        if self._only not in label:
            return False
        if time.monotonic() < self._end:
            return True
        print(f"{label} is left out: the budget of {self._seconds:g} s is used up", flush=True)
        return False


def make_repository(root: Path, name: str) -> Repository:
    """A repository with one untrained generator: speed doesn't depend on the weights."""
    family, shape = NETWORKS[name]
    torch.manual_seed(0)
    blank = torch.zeros(1, shape.channels, shape.height, shape.width, dtype=torch.uint8)
    nothing = ImageSet(
        name="none", images=blank, labels=None, label_names=None, fingerprint="", skipped=()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle = export(
            G_ema=family.generator(shape),
            z_dim=family.z_dim,
            image_set=nothing,
            recipe="benchmark",
            options={},
            metrics=None,
            name=name,
            destination=root / "bundle",
        )
    repository = Repository(root / "models")
    repository.publish(name, bundle)
    return repository


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="saddlepoint-benchmark-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Running:
    """A server under test."""

    url: str
    pid: int
    ready_s: float

    def processes(self) -> list[int]:
        """All living processes of the server: it leads a session of its own."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.pid and fields[0] != "Z":
                    found.append(int(entry.name))
        return found

    def memory_mb(self) -> float:
        """Proportional set size of all processes: shared pages are counted once."""
        total_kb = 0
        for pid in self.processes():
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            match = re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)
            total_kb += int(match[1]) if match else 0
        return total_kb / 1024

    def cpu_s(self) -> float:
        """CPU seconds that all processes have used."""
        ticks = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def started(command: Sequence[str], url: str, ready: str, log: Path) -> Iterator[Running]:
    """Starts a server and waits until GET `ready` answers 200; ends its whole session after."""
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        while not _answers(url + ready):
            if process.poll() is not None or time.monotonic() - began > 180:
                raise RuntimeError(f"{command[0]} did not come up:\n{log.read_text()[-3000:]}")
            time.sleep(0.01)
        yield Running(url, process.pid, time.monotonic() - began)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def saddlepoint(repository: Repository, folder: Path, *flags: str) -> Iterator[Running]:
    """Our server on a free port."""
    port = free_port()
    # The benchmarks ask for one seed again and again: a cache would answer all but the first.
    arguments = ["--repository", str(repository.root), "--port", str(port), "--cache-bytes", "0"]
    arguments += flags
    command = [sys.executable, "-m", "serving.run", *arguments]
    url = f"http://127.0.0.1:{port}"
    with started(command, url, "/readyz", folder / f"saddlepoint-{port}.log") as running:
        yield running


@dataclass(frozen=True)
class Load:
    """What wrk measured."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    num_failed: int


SEED = "SEED"
"""Stands in a body where each request of wrk has a seed of its own."""
_FRESH_SEEDS = """
local start, stop, number = %s, %s, 0
request = function()
  number = number + 1
  return wrk.format(nil, nil, nil, start .. number .. stop)
end
"""


def wrk(
    url: str, body: str, *, connections: int, seconds: float, headers: Sequence[str] = ()
) -> Load:
    """Loads one URL with POSTs of one body, SEED in it replaced, closed loop, one thread."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        start, fresh, stop = body.partition(SEED)
        script.write(f"wrk.method = 'POST'\nwrk.body = {_lua(body)}\n")
        if fresh:
            script.write(_FRESH_SEEDS % (_lua(start), _lua(stop)))
        script.write("wrk.headers['Content-Type'] = 'application/json'\n")
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}", "--latency", "-s"]
        command += [script.name, *(f"-H{header}" for header in headers), url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return Load(
        requests_per_s=float(_find(r"Requests/sec:\s+([\d.]+)", output)[0]),
        p50_ms=_milliseconds(*_find(r"50%\s+([\d.]+)(us|ms|s)", output)),
        p99_ms=_milliseconds(*_find(r"99%\s+([\d.]+)(us|ms|s)", output)),
        num_failed=int(failed[1]) if failed else 0,
    )


def _lua(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _find(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"wrk's answer can't be read:\n{text}")
    return match.groups()


def _milliseconds(value: str, unit: str) -> float:
    return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
