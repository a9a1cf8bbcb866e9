"""Our server against the limit: the same work in process, on the same cores, alternating.

    python benchmarks/serving/limits.py [--quick]

Protocol: `latency` is one connection, one seed a POST, the article's generator, over latents, model
and PNG in this process. `dcgan64` is images/s at 64 connections, DCGAN-64 (ngf 64), over the best
of ONNX Runtime alone: batches of 1 to 128 in one run on all threads (`one_run`), or 4 to 32 in as
many runs at once as there are cores, a thread each (`many_runs`). `npy` and `json` are one POST of
256 seeds to the article's generator, over the same latents, model and encoding here. Each pair
alternates; figures are medians over rounds.
"""

import base64
import http.client
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from _harness import Running, figure, make_repository, parser, saddlepoint, scratch_folder, wrk

from models.bundle.generator import CpuGenerator
from models.latents import latents
from models.repository import Repository
from serving.encoding.formats import encode_npy
from serving.encoding.png import encode_png, encode_pngs
from serving.inference.devices import num_cpus

NUM_SEEDS = 256

Latents = npt.NDArray[np.float32]


def seconds_each(work: Callable[[], object], seconds: float) -> float:
    """Median time of one call, over calls that fill `seconds`."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def generator_of(repository: Repository) -> tuple[CpuGenerator, int]:
    """The only model of a repository, and its z_dim."""
    bundle = repository.bundle(repository.names()[0])
    return CpuGenerator(bundle.model_path), bundle.manifest.z_dim


def latency(repository: Repository, folder: Path, seconds: float, rounds: int) -> None:
    """What HTTP and two processes add to one image."""
    generate, z_dim = generator_of(repository)
    added = []
    with saddlepoint(repository, folder) as server:
        for _ in range(rounds):
            here_s = seconds_each(
                lambda: encode_png(generate(latents([42], z_dim))[0]), seconds / 2
            )
            load = wrk(
                server.url + "/v1/generate", '{"seeds":[42]}', connections=1, seconds=seconds
            )
            added.append(load.p50_ms - here_s * 1e3)
    figure("latency_in_process", here_s * 1e3, "ms")
    figure("latency_added_p50", statistics.median(added), "ms")


def rate_of(generate: CpuGenerator, z: Latents, num_runs: int, seconds: float) -> float:
    """Images a second of so many runs at once."""
    generate(z)
    began = time.perf_counter()

    def repeat() -> int:
        num = 0
        while time.perf_counter() < began + seconds:
            generate(z)
            num += len(z)
        return num

    with ThreadPoolExecutor(num_runs) as pool:
        made = sum(run.result() for run in [pool.submit(repeat) for _ in range(num_runs)])
    return made / (time.perf_counter() - began)


def best_rates(path: Path, z_dim: int, seconds: float) -> tuple[float, float]:
    """Images a second of ONNX Runtime alone: one run on all threads, and one a core at once."""
    rates: dict[int, list[float]] = {1: [], num_cpus(): []}
    one, many = (1, 4, 16, 32, 64, 128), (4, 8, 16, 32)
    for num_runs, sizes in ((1, one), (num_cpus(), many)):
        generate = CpuGenerator(path, num_threads=0 if num_runs == 1 else 1)
        for size in sizes:
            z = latents(list(range(size)), z_dim)
            rates[num_runs].append(rate_of(generate, z, num_runs, seconds / len(one + many)))
    return max(rates[1]), max(rates[num_cpus()])


def dcgan(repository: Repository, folder: Path, seconds: float, rounds: int) -> None:
    """How much of the arithmetic limit reaches the clients."""
    bundle = repository.bundle(repository.names()[0])
    ratios: dict[str, list[float]] = {"one_run": [], "many_runs": []}
    for _ in range(rounds):
        limits = best_rates(bundle.model_path, bundle.manifest.z_dim, 2 * seconds)
        with saddlepoint(repository, folder) as server:
            url = server.url + "/v1/generate"
            wrk(url, '{"seeds":[42]}', connections=64, seconds=2)
            load = wrk(url, '{"seeds":[42]}', connections=64, seconds=seconds)
        for name, limit in zip(ratios, limits, strict=True):
            ratios[name].append(load.requests_per_s / limit)
    figure("dcgan64_served", load.requests_per_s, "images/s")
    for name, limit in zip(ratios, limits, strict=True):
        figure(f"dcgan64_{name}", limit, "images/s")
        figure(f"dcgan64_over_{name}", statistics.median(ratios[name]), "x")


def many(repository: Repository, folder: Path, seconds: float, rounds: int) -> None:
    """One POST of many seeds."""
    generate, z_dim = generator_of(repository)
    seeds = list(range(NUM_SEEDS))

    def npy() -> bytes:
        return encode_npy(generate(latents(seeds, z_dim)))

    def as_json() -> bytes:
        images = generate(latents(seeds, z_dim))
        data = [base64.b64encode(file).decode() for file in encode_pngs(images)]
        return json.dumps(data).encode()

    with saddlepoint(repository, folder) as server:
        for name, work, extra in (("npy", npy, {"format": "npy"}), ("json", as_json, {})):
            body = json.dumps({"seeds": seeds, **extra})
            ratios = []
            for _ in range(rounds):
                here_s = seconds_each(work, seconds / 2)
                there_s = posts(server, body, seconds / 2)
                ratios.append(here_s / there_s)
            figure(f"post_{NUM_SEEDS}_{name}_in_process", here_s * 1e3, "ms")
            figure(f"post_{NUM_SEEDS}_{name}_ratio", statistics.median(ratios), "x")


def posts(server: Running, body: str, seconds: float) -> float:
    """Median time of a POST on one connection."""
    host = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host)

    def post() -> None:
        connection.request("POST", "/v1/generate", body)
        reply = connection.getresponse()
        if reply.status != 200:
            raise SystemExit(f"status {reply.status}: {reply.read()[:300]!r}")
        reply.read()

    try:
        return seconds_each(post, seconds)
    finally:
        connection.close()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--only", choices=("latency", "many", "dcgan64"), help="one of the parts"
    )
    options = arguments.parse_args()
    seconds, rounds = (2.0, 1) if options.quick else (6.0, 5)
    with scratch_folder() as folder:
        article = make_repository(folder / "article", "article")
        if options.only in (None, "latency"):
            latency(article, folder, seconds, rounds)
        if options.only in (None, "many"):
            many(article, folder, seconds, rounds)
        if options.only in (None, "dcgan64"):
            dcgan(make_repository(folder / "dcgan64", "dcgan64"), folder, seconds, rounds)


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
