"""Bulk runs against the limit: latents, ONNX Runtime and PNG on all cores, nothing written.

    python benchmarks/serving/bulk.py [--quick] [--ray]

Protocol: `raw` is one process a core, a session with one thread each, batches of 64, images encoded
and dropped. `local` is `python -m serving.bulk --format tar` over the same images, `ray` the same
with `--ray local`. Each is timed from its first shard to its last: starting processes is left out,
printed as `start`. Rounds alternate; figures are medians. `cpu` is the workers' CPU time an image
in the same span, which other programs on the machine disturb less than rates, and `cpu_of_raw` is
the limit's over it. `memory` is the largest resident set of a worker (VmHWM). `digits` is a DCGAN
of 32x32 grey images (ngf 16), `dcgan64` one of 64x64 RGB (ngf 64); their weights are untrained,
which PNG sizes depend on and rates hardly do.
"""

import contextlib
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _harness import figure, make_repository, parser, scratch_folder

from models.bundle import Bundle
from models.latents import latents
from serving.bulk.maker import load
from serving.encoding.png import encode_pngs
from serving.inference.devices import num_cpus

BATCH = 64
NUM_IMAGES = {"digits": (1_000_000, 40_000), "dcgan64": (100_000, 3_000)}
"""In full, and with --quick."""
SHARD = {"digits": 5_000, "dcgan64": 250}


def make_raw(path: Path, start: int, stop: int, ready: Any, go: Any, took: Any) -> None:
    """One process of the limit; took: a queue for its CPU seconds."""
    bundle = Bundle.open(path)
    engine = load(bundle, BATCH, "cpu")
    ready.release()
    go.wait()
    began = time.process_time()
    for first in range(start, stop, BATCH):
        seeds = list(range(first, min(first + BATCH, stop)))
        encode_pngs(engine(latents(seeds, bundle.manifest.z_dim)))
    took.put(time.process_time() - began)


def raw(bundle: Bundle, num_images: int) -> dict[str, float]:
    """The limit: images a second, and CPU time an image in microseconds."""
    context = multiprocessing.get_context("spawn")
    ready, go, took = context.Semaphore(0), context.Event(), context.Queue()
    each = num_images // num_cpus()
    processes = [
        context.Process(
            target=make_raw, args=(bundle.path, i * each, (i + 1) * each, ready, go, took)
        )
        for i in range(num_cpus())
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    began = time.perf_counter()
    go.set()
    for process in processes:
        process.join()
    rate = each * num_cpus() / (time.perf_counter() - began)
    cpu_s = sum(took.get() for _ in processes)
    return {"rate": rate, "cpu": cpu_s / (each * num_cpus()) * 1e6}


def workers_of(pid: int) -> Iterator[int]:
    """The workers of a run: its children, or Ray's actors below it."""
    left = [pid]
    while left:
        for children in Path(f"/proc/{left.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for child in children.read_text().split():
                    left.append(int(child))
                    command = Path(f"/proc/{child}/cmdline").read_bytes()
                    if b"spawn_main" in command or b"MapWorker" in command:
                        yield int(child)


class Watch(threading.Thread):
    """Notes when the first shard came, and how large workers have grown."""

    def __init__(self, out: Path, pid: int) -> None:
        super().__init__(daemon=True)
        self._out, self._pid = out, pid
        self.first_s: float | None = None
        self.first_shards = self.last_shards = 0
        self.last_s = 0.0
        self.first_cpu_s = self.last_cpu_s = 0.0
        self.memory_mb = 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            num, cpu_s = len(list(self._out.glob("data/*.tar"))), 0.0
            for pid in workers_of(self._pid):
                with contextlib.suppress(OSError):
                    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                    cpu_s += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
                    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
                    self.memory_mb = max(self.memory_mb, int(found[1]) / 1024 if found else 0)
            if num and self.first_s is None:
                self.first_s, self.first_shards = time.perf_counter(), num
                self.first_cpu_s = cpu_s
            if not (self._out / "manifest.json").exists():
                self.last_s = time.perf_counter()
            if cpu_s >= self.last_cpu_s:  # a worker that has ended takes its time with it
                self.last_cpu_s, self.last_shards = cpu_s, num


def bulk(bundle: Bundle, out: Path, num_images: int, shard: int, *options: str) -> dict[str, float]:
    """A run of the command: images a second after the first shard, seconds of start, memory."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "serving.bulk", str(bundle.path), "--out", str(out)]
    length = ["--count", str(num_images), "--shard-images", str(shard), "--format", "tar"]
    began = time.perf_counter()
    process = subprocess.Popen([*command, *length, *options], stdout=subprocess.DEVNULL)
    watch = Watch(out, process.pid)
    watch.start()
    if process.wait():
        raise RuntimeError(f"{command} ended with {process.returncode}")
    watch.ended.set()
    watch.join()
    assert watch.first_s is not None
    images = num_images - watch.first_shards * shard
    return {
        "rate": images / (watch.last_s - watch.first_s),
        "start": watch.first_s - began,
        "memory": watch.memory_mb,
        "cpu": (watch.last_cpu_s - watch.first_cpu_s)
        / (max(1, watch.last_shards - watch.first_shards) * shard)
        * 1e6,
    }


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--ray", action="store_true", help="also on a Ray cluster of this machine")
    options = made.parse_args()
    kinds = {"local": [], **({"ray": ["--ray", "local"]} if options.ray else {})}
    for name, sizes in NUM_IMAGES.items():
        num_images = sizes[options.quick]
        found: dict[str, list[float]] = {}
        with scratch_folder() as folder:
            bundle = make_repository(folder, name).bundle(name)
            for _ in range(1 if options.quick else 3):
                for key, value in raw(bundle, num_images).items():
                    found.setdefault(f"raw_{key}", []).append(value)
                for kind, flags in kinds.items():
                    result = bulk(bundle, folder / "out", num_images, SHARD[name], *flags)
                    for key, value in result.items():
                        found.setdefault(f"{kind}_{key}", []).append(value)
        figure(f"{name}_raw", statistics.median(found["raw_rate"]), "images/s")
        figure(f"{name}_raw_cpu", statistics.median(found["raw_cpu"]), "us/image")
        for kind in kinds:
            rates = found[f"{kind}_rate"]
            ratio = statistics.median(a / b for a, b in zip(rates, found["raw_rate"], strict=True))
            figure(f"{name}_{kind}", statistics.median(rates), "images/s")
            figure(f"{name}_{kind}_of_raw", ratio, "")
            cpu = found[f"{kind}_cpu"]
            saved = statistics.median(a / b for a, b in zip(found["raw_cpu"], cpu, strict=True))
            figure(f"{name}_{kind}_cpu", statistics.median(cpu), "us/image")
            figure(f"{name}_{kind}_cpu_of_raw", saved, "")
            figure(f"{name}_{kind}_start", statistics.median(found[f"{kind}_start"]), "s")
            figure(f"{name}_{kind}_memory", max(found[f"{kind}_memory"]), "MB")


if __name__ == "__main__":
    main()
