"""The engine and the server on one NVIDIA GPU, against torch and against the arithmetic floor.

    python benchmarks/serving/gpu.py [--quick] [--device cpu] [--models dcgan64,dcgan256]
                                     [--only fp32_engine] [--budget-s 180]

Protocol: untrained generators, DCGAN-64 and DCGAN-256 (ngf 64), latents on the host to uint8 pixels
on the host, median over repetitions. `floor` is the operations of the convolutions over what a
square matrix product of the same precision reaches on this device; `torch` is eager, `compiled` is
torch.compile ("reduce-overhead" on CUDA). fp16 is `--cuda-math fp16`. `http` is the server with one
seed a POST at 256 connections (wrk), PNG, and one POST of up to 1,024 seeds as npy. `differing`
counts images whose bytes depend on the bucket, of 256 seeds, `max_abs_diff` compares them with the
CPU. --device cpu runs the same code without a GPU, in fp32, with 16 seeds.
"""

import argparse
import http.client
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _harness import (
    NETWORKS,
    Budget,
    figure,
    make_repository,
    parser,
    saddlepoint,
    scratch_folder,
    wrk,
)
from torch.utils.flop_counter import FlopCounterMode

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator, Images
from models.latents import latents
from models.repository import Repository
from serving.errors import DeviceError
from serving.inference.accelerator.choice import choose_devices
from serving.inference.accelerator.fixed_runs import FixedRuns
from serving.inference.accelerator.owner import NoOwner
from serving.inference.sessions import Compute, CpuRun

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
NUM_SEEDS = {"cuda": 256, "cpu": 16}
"""Images that are compared."""
MOST_POSTED, POST_S = 1024, 2.0
"""Images of one POST: as many as take so long, by what was made a moment before."""

Run = Callable[[np.ndarray], Images]


def seconds_each(work: Callable[[], object], seconds: float) -> float:
    """Median time of a call, after two that don't count."""
    work(), work()
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def products_per_s(
    device: torch.device, dtype: torch.dtype, *, tf32: bool, seconds: float
) -> float:
    """Floating-point operations a second of a large square matrix product."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)

    def multiply() -> None:
        a @ a
        synchronize(device)

    return 2 * size**3 / seconds_each(multiply, seconds)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def operations_of(G: torch.nn.Module, z_dim: int) -> int:
    """Floating-point operations of one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        G(torch.zeros(1, z_dim))
    return int(counter.get_total_flops())


def torch_run(G: torch.nn.Module, device: torch.device) -> Run:
    """The generator in torch: z from the host, uint8 NHWC back to the host."""

    def run(z: np.ndarray) -> Images:
        with torch.no_grad():
            img = G(torch.from_numpy(z).to(device))
            pixels = (img * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
            return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    return run


def sweep(
    label: str,
    run_for: Callable[[int], Run],
    z_dim: int,
    rows: tuple[int, ...],
    s: float,
    budget: Budget,
) -> None:
    """Images a second at every number of rows."""
    for num in rows:
        if not budget.allows(f"{label}_{num}_rows"):
            continue
        z = latents(list(range(num)), z_dim)
        run = run_for(num)
        figure(f"{label}_{num}_rows", num / seconds_each(lambda: run(z), s), "images/s")  # noqa: B023


def engine_runs(bundle: Bundle, compute: Compute) -> Callable[[int], Run]:
    """A bound run at a fixed number of rows; on the CPU what the server uses there."""
    if compute.on_cpu:
        alone = CpuRun(bundle.model_path, compute)
        return lambda num: lambda z: alone({"z": z}, alone=True)

    def for_rows(num: int) -> Run:
        fixed = FixedRuns(bundle, (num,), compute, NoOwner())
        return lambda z: fixed({"z": z})

    return for_rows


def sameness(
    label: str, bundle: Bundle, run_for: Callable[[int], Run], largest: int, num_seeds: int
) -> None:
    """Do an image's bytes depend on the bucket, and how far from the CPU are they?"""
    z = latents(list(range(num_seeds)), bundle.manifest.z_dim)
    made = []
    for num in (1, 8, 64, 256):
        if num <= min(largest, num_seeds):
            run = run_for(num)
            made.append(np.concatenate([run(z[i : i + num]) for i in range(0, num_seeds, num)]))
    differing = np.zeros(num_seeds, bool)
    for other in made[1:]:
        differing |= (other != made[0]).any(axis=(1, 2, 3))
    reference = CpuGenerator(bundle.model_path)(z)
    figure(f"{label}_differing", int(differing.sum()), f"of {num_seeds} images")
    worst = max(int(np.abs(images.astype(np.int16) - reference).max()) for images in made)
    figure(f"{label}_max_abs_diff", worst, "of 255")


def over_http(name: str, repository: Repository, folder: Path, flags: list[str], s: float) -> None:
    """What clients get."""
    with saddlepoint(repository, folder, *flags) as server:
        url = server.url + "/v1/generate"
        wrk(url, '{"seeds":[42]}', connections=64, seconds=1)
        load = wrk(url, '{"seeds":[42]}', connections=256, seconds=max(1, s * 4))
        figure(f"{name}_http_one_seed", load.requests_per_s, "images/s")
        num = max(8, min(MOST_POSTED, round(load.requests_per_s * POST_S)))
        body = json.dumps({"seeds": list(range(num)), "format": "npy"})
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))

        def post() -> None:
            connection.request("POST", "/v1/generate", body)
            reply = connection.getresponse()
            assert reply.status == 200, reply.read()
            reply.read()

        figure(f"{name}_http_npy", num / seconds_each(post, s), "images/s")
        connection.close()


def measure(name: str, device: torch.device, folder: Path, options: argparse.Namespace) -> None:
    """One generator, every way."""
    cuda = device.type == "cuda"
    s, rows = (0.1, ROWS[:7:3]) if options.quick else (0.5, ROWS)
    budget: Budget = options.budget
    repository = make_repository(folder / name, name)
    bundle = repository.bundle(name)
    z_dim = bundle.manifest.z_dim
    family, shape = NETWORKS[name]
    G = family.generator(shape).eval()
    operations = operations_of(G, z_dim)
    figure(f"{name}_operations", operations / 1e9, "Gflop an image")
    G = G.to(device)
    floors = {"fp32": (torch.float32, False), "tf32": (torch.float32, True)}
    floors["fp16"] = (torch.float16, False)
    for math, (dtype, tf32) in floors.items() if cuda else [("fp32", (torch.float32, False))]:
        rate = products_per_s(device, dtype, tf32=tf32, seconds=s)
        figure(f"{name}_{math}_floor", rate / operations, "images/s")
        torch.backends.cudnn.allow_tf32 = tf32
        if math != "fp16":
            sweep(f"{name}_{math}_torch", lambda _: torch_run(G, device), z_dim, rows, s, budget)
            if budget.allows(f"{name}_{math}_compiled") and not (options.quick and not cuda):
                compiled = torch.compile(G, mode="reduce-overhead" if cuda else "default")
                run_compiled = torch_run(compiled, device)
                sweep(f"{name}_{math}_compiled", lambda _: run_compiled, z_dim, rows, s, budget)  # noqa: B023
        compute = Compute(device="cuda:0" if cuda else "cpu", math=math)
        run_for = engine_runs(bundle, compute)
        sweep(f"{name}_{math}_engine", run_for, z_dim, rows, s, budget)
        if budget.allows(f"{name}_{math}_sameness"):
            sameness(f"{name}_{math}", bundle, run_for, rows[-1], NUM_SEEDS[device.type])
        flags = ["--device", device.type, "--max-batch-rows", "256"]
        if cuda:
            flags += ["--cuda-math", math, "--api-processes", "4"]
        if budget.allows(f"{name}_{math}_http"):
            over_http(f"{name}_{math}", repository, folder, flags, s)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments.add_argument(
        "--models",
        help="comma separated; by default dcgan64,dcgan256, and dcgan64 with --device cpu --quick",
    )
    arguments.add_argument("--only", default="", help="part of a label: fp32_engine, _http ...")
    arguments.add_argument("--budget-s", type=float, default=180.0, help="begin nothing after that")
    options = arguments.parse_args()
    if options.models is None:
        brief = options.device == "cpu" and options.quick
        options.models = "dcgan64" if brief else "dcgan64,dcgan256"
    options.budget = Budget(options.budget_s, options.only)
    try:
        choose_devices(options.device)
    except DeviceError as error:
        sys.exit(f"error: {error}")
    device = torch.device(options.device)
    if options.device == "cuda":
        print(torch.cuda.get_device_name(), flush=True)
    with scratch_folder() as folder:
        for name in options.models.split(","):
            measure(name, device, folder, options)


if __name__ == "__main__":
    main()
