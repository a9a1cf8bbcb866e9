"""The first minutes on a GPU: does what was written without one hold?

    python benchmarks/gpu_first.py [--device cpu] [--budget-s 420] [STEP ...]

Each step prints `figure NAME VALUE UNIT` or `check NAME ok|BROKEN WHY`, and none stops the others.
A step that the budget has no time for is said to be left out. Exit code 1 where a check is broken.

    start    is CUDA chosen, which card, which driver
    engine   golden images, graphs captured, images a second by bucket, in fp32, TF32 and fp16
    threads  versions are loaded while another one serves: nothing fails
    reload   a server under load serves four more versions, with 200 alone
    resume   a checkpoint of the CPU goes on in another layout
    syncs    rounds that wait for the device
    train    rounds of three games, and the share of the time that launching them takes
    http     PNG and npy over HTTP, by the number of HTTP processes
    same     two trainings of one seed, plain and with --compute.deterministic

On an H100 about 5 minutes were estimated, 1 of them for the first start of everything. --device cpu
runs the same code without a GPU, smaller.
"""

import argparse
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
for folder in ("serving", "training", ".."):
    sys.path.insert(0, str(ROOT / "benchmarks" / folder))

import gpu as training_gpu  # noqa: E402 - benchmarks/training/gpu.py
from _harness import figure, make_repository, saddlepoint, wrk  # noqa: E402
from _rounds import noise, stepper  # noqa: E402

from models.bundle import Bundle  # noqa: E402
from models.bundle.runtime import ort  # noqa: E402
from models.latents import latents  # noqa: E402
from models.networks import DCGAN, ImageShape  # noqa: E402
from models.repository import Repository  # noqa: E402
from serving.inference.accelerator.choice import choose_devices  # noqa: E402
from serving.inference.accelerator.owner import DeviceOwner  # noqa: E402
from serving.inference.engine import Engine  # noqa: E402
from serving.inference.sessions import Compute  # noqa: E402
from training.config.compute import ComputeConfig  # noqa: E402
from training.engine.checkpoint import Checkpoints, read, restore  # noqa: E402
from training.engine.state import State  # noqa: E402
from training.recipes import RECIPES  # noqa: E402

NUM_VERSIONS = 5


@dataclass
class First:
    """What the steps share, and what became of them."""

    cuda: bool
    folder: Path
    num_broken: int = 0

    def __post_init__(self) -> None:
        self.device = torch.device("cuda" if self.cuda else "cpu")
        self.owner = DeviceOwner(lambda reason: self.check("device", False, reason))
        self._repository: Repository | None = None

    def check(self, name: str, holds: bool, why: str = "") -> None:
        self.num_broken += not holds
        print(f"check {name} {'ok' if holds else 'BROKEN'} {why}".rstrip(), flush=True)

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    @property
    def repository(self) -> Repository:
        """One with a generator: DCGAN-64, on the CPU the small one of the digits."""
        if self._repository is None:
            name = "dcgan64" if self.cuda else "digits"
            self._repository = make_repository(self.folder / name, name)
        return self._repository

    @property
    def bundle(self) -> Bundle:
        return self.repository.bundle(self.repository.names()[0])

    def engine(self, rows: int, buckets: tuple[int, ...] = (), **options: Any) -> Engine:
        compute = Compute(device="cuda:0" if self.cuda else "cpu", **options)
        owner = self.owner if self.cuda else None
        return Engine(self.bundle, compute, max_rows=rows, buckets=buckets, owner=owner)


def seconds_each(work: Callable[[], object], seconds: float = 0.5) -> float:
    """Median time of a call, after two that don't count."""
    times: list[float] = []
    work(), work()
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def smi(query: str) -> str:
    """nvidia-smi's answer for every card, or why there is none."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        return "; ".join(subprocess.check_output(command, text=True).split("\n")).strip("; ")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no nvidia-smi ({error})"


def step_start(first: First) -> None:
    print(smi("name,driver_version,memory.total,mig.mode.current,ecc.mode.current"))
    print("torch", torch.__version__, "onnxruntime", ort.__version__, torch.version.cuda)
    began = time.perf_counter()
    found = choose_devices("auto" if first.cuda else "cpu")
    figure("probe", time.perf_counter() - began, "s")
    first.check("choose_devices", found.kind == first.device.type, str(found))


def step_engine(first: First) -> None:
    golden = first.bundle.golden
    for math in ("fp32", "tf32", "fp16") if first.cuda else ("fp32",):
        for rows in (1, 64, 256) if first.cuda else (1, 16):
            label = f"engine_{math}_{rows}"
            began = time.perf_counter()
            engine = first.engine(rows, (rows,), math=math)  # refuses what is too far
            figure(f"{label}_up", time.perf_counter() - began, "s")
            z = latents(list(range(rows)), first.bundle.manifest.z_dim)
            figure(label, rows / seconds_each(lambda: engine(z)), "images/s")  # noqa: B023
            made = engine(latents(golden.seeds, z.shape[1])).astype(int)
            far = int(np.abs(made - golden.images).max())
            most = {"fp32": 1, "tf32": 2, "fp16": 16}[math]
            first.check(f"{label}_golden", far <= most, f"{far}/255")
            first.check(f"{label}_graph", engine.replays or not first.cuda)
    began = time.perf_counter()
    engine = first.engine(256 if first.cuda else 8)
    figure("engine_all_buckets_up", time.perf_counter() - began, "s")
    wanted = min(43, engine.max_rows)
    figure(f"engine_{wanted}_rows_computed_as", engine.padded(wanted), "rows")


def step_threads(first: First) -> None:
    """Loads beside a version that serves, with graphs and without."""
    for graphs in (True, False):
        engine, failed, done = first.engine(16, cuda_graphs=graphs), [], threading.Event()
        z = latents(list(range(16)), first.bundle.manifest.z_dim)
        num_runs = 0

        def serve() -> None:
            nonlocal num_runs
            while not done.is_set():  # noqa: B023
                try:
                    engine(z)  # noqa: B023
                    num_runs += 1
                except Exception as error:
                    failed.append(str(error)[:160])  # noqa: B023

        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(5):
            try:
                first.engine(16, cuda_graphs=graphs)
            except Exception as error:
                failed.append(str(error)[:160])
        done.set()
        thread.join()
        words = f"{num_runs} runs meanwhile; {failed[:1]}"
        first.check(f"load_while_serving_graphs_{graphs}", not failed, words)


def step_reload(first: First) -> None:
    repository, bundle, codes = first.repository, first.bundle, dict[object, int]()
    name = bundle.manifest.name
    with server(first, "--max-batch-rows", "16") as running:
        figure("server_ready", running.ready_s, "s")
        stop = threading.Event()

        def load() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                body = json.dumps({"seeds": [number], "model": name}).encode()
                try:
                    reply = urllib.request.urlopen(f"{running.url}/v1/generate", body, timeout=30)
                    code: object = reply.status
                except Exception as error:
                    code = getattr(error, "code", type(error).__name__)
                codes[code] = codes.get(code, 0) + 1

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        served = 1
        for version in range(2, NUM_VERSIONS + 1):
            repository.publish(name, bundle)
            until = time.monotonic() + 60
            while served < version and time.monotonic() < until:
                time.sleep(0.2)
                found = json.load(urllib.request.urlopen(f"{running.url}/v1/models"))
                served = found["models"][0]["version"]
        stop.set()
        for thread in threads:
            thread.join()
    holds = set(codes) == {200} and served == NUM_VERSIONS
    first.check("reload_under_load", holds, f"{codes}, version {served} of {NUM_VERSIONS}")


def step_resume(first: First) -> None:
    shape = ImageShape(resolution=32, channels=3)

    def config(channels_last: bool) -> Any:
        compute = ComputeConfig(channels_last=channels_last)
        return replace(RECIPES["dcgan"].config, network=DCGAN(ngf=8, ndf=8), compute=compute)

    def move(state: State, seed: int) -> None:
        draws = torch.Generator().manual_seed(seed)
        place = state.G.parameters[0].device
        gradients = tuple(
            torch.randn(p.shape, generator=draws).to(place) for p in state.G.parameters
        )
        state.G.move(gradients, torch.zeros((), device=place))

    here = State.fresh(config(False), shape, torch.device("cpu"))
    move(here, 1)
    path = Checkpoints(first.folder / "checkpoints").save(here, config(False), "first")
    there = State.fresh(config(True), shape, first.device)
    restore(read(path), there, config(True), "first")
    for state in (here, there):
        move(state, 2)
    pairs = zip(here.G.parameters, there.G.parameters, strict=True)
    far = max((a - b.cpu()).abs().max().item() for a, b in pairs)
    first.check("resume_other_layout", far < 1e-6, f"weights differ by {far:.2g}, a step is 2e-4")


def step_syncs(first: First) -> None:
    if not first.cuda:
        print("no GPU to wait for: tests/training/engine/test_waits.py counts on the CPU")
        return
    for name in ("dcgan", "cifar10", "wgan", "diffaugment", "ada", "style", "rpgan-r1r2"):
        config = replace(RECIPES[name].config, batch_size=16)
        data = config.data
        labels = 10 if data.conditional else 0
        shape = ImageShape(resolution=data.resolution, channels=data.channels, num_classes=labels)
        played = stepper(config, noise(shape, 256).to(first.device))
        played.step(), played.step()
        torch.cuda.synchronize()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            played.step()
            torch.cuda.set_sync_debug_mode("default")
        waits = [
            f"{Path(w.filename).name}:{w.lineno}" for w in seen if "synchron" in str(w.message)
        ]
        words = f"{len(waits)} a round: {sorted(set(waits))[:4]}" if waits else ""
        first.check(f"syncs_{name}", not waits, words)


def step_train(first: First) -> None:
    sizes = {"dcgan-64": 128, "style-128": 32, "rpgan-r1r2-32": 64} if first.cuda else {}
    for name, size in (sizes or {"dcgan-64": 4}).items():
        entry = training_gpu.GAMES[name]
        for precision in ("fp32", "tf32", "bf16") if first.cuda else ("fp32", "bf16"):
            compute = ComputeConfig(precision=precision, channels_last=entry.convolutions)
            config = replace(entry.config, batch_size=size, compute=compute)
            played = stepper(config, noise(entry.shape, 8 * size).to(first.device))
            num = 10 if first.cuda else 1
            for _ in range(3 if first.cuda else 1):
                played.step()
            first.synchronize()
            began = time.perf_counter()
            for _ in range(num):
                played.step()
            launched = time.perf_counter() - began
            first.synchronize()
            took = time.perf_counter() - began
            label = f"train_{name}_{precision}"
            figure(label, size * config.steps_D * num / took, "images/s")
            figure(f"{label}_launching", launched / took, "of the time (1: the CPU is the limit)")
            first.check(f"{label}_finite", played.non_finite() is None)


def step_http(first: First) -> None:
    for num in (1, 4, 12) if first.cuda else (1,):
        flags = ["--max-batch-rows", "256", "--max-waiting-rows", "65536"]
        with server(first, *flags, "--api-processes", str(num)) as running:
            url = f"{running.url}/v1/generate"
            wrk(url, '{"seeds":[42]}', connections=64, seconds=1)
            load = wrk(url, '{"seeds":[42]}', connections=256, seconds=3)
            figure(f"http_png_{num}_processes", load.requests_per_s, "images/s")
            first.check(f"http_png_{num}", not load.num_failed, f"{load.num_failed} failed")
            rows = 1024 if first.cuda else 64
            body = json.dumps({"seeds": list(range(rows)), "format": "npy"})
            load = wrk(url, body, connections=8, seconds=3)
            figure(f"http_npy_{num}_processes", rows * load.requests_per_s, "images/s")


def step_same(first: First) -> None:
    entry = training_gpu.GAMES["dcgan-64"]
    for deterministic in (False, True):
        ends = []
        for _ in range(2):
            compute = ComputeConfig(deterministic=deterministic)
            config = replace(entry.config, batch_size=16 if first.cuda else 4, compute=compute)
            played = stepper(config, noise(entry.shape, 128).to(first.device))
            for _ in range(20 if first.cuda else 1):
                played.step()
            ends.append(torch.cat([p.detach().flatten().cpu() for p in played.state.G.parameters]))
        far = (ends[0] - ends[1]).abs().max().item()
        if deterministic or not first.cuda:
            first.check(f"same_bits_deterministic_{deterministic}", far == 0, f"{far:.2g}")
        else:
            figure("two_trainings_differ_by", far, "(0: the same bits)")


def server(first: First, *flags: str) -> Any:
    return saddlepoint(first.repository, first.folder, "--device", first.device.type, *flags)


STEPS: dict[str, Callable[[First], None]] = {
    name.removeprefix("step_"): value
    for name, value in list(globals().items())
    if name.startswith("step_")
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--budget-s", type=float, default=420.0, help="begin no step after that")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    options = parser.parse_args()
    if unknown := sorted(set(options.steps) - STEPS.keys()):
        parser.error(f"STEP is {', '.join(unknown)}, allowed are {', '.join(STEPS)}")
    end = time.monotonic() + options.budget_s
    with tempfile.TemporaryDirectory(prefix="saddlepoint-first-") as folder:
        first = First(options.device == "cuda", Path(folder))
        for name in options.steps or STEPS:
            if time.monotonic() > end:
                print(f"-- {name} is left out: the budget of {options.budget_s:g} s is used up")
                continue
            began = time.perf_counter()
            try:
                STEPS[name](first)
            except BaseException as error:
                first.check(name, False, repr(error)[:300])
                traceback.print_exc(limit=-3)
                if isinstance(error, KeyboardInterrupt):
                    break
            gc.collect()
            with contextlib.suppress(Exception):
                torch.cuda.empty_cache()
            print(f"-- {name} took {time.perf_counter() - began:.1f} s", flush=True)
    print(f"{first.num_broken} checks are broken")
    return 1 if first.num_broken else 0


if __name__ == "__main__":
    sys.exit(main())
