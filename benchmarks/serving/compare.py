"""Our server and its peers, in turn, on the same ONNX file, under wrk.

    python benchmarks/serving/compare.py [--quick] [--peers mosec,textbook,fastapi,bentoml,ray]

Protocol: the article's generator (100-256-784, untrained); every peer draws the same latents, runs
the same file on ONNX Runtime's CPU provider and encodes PNG with zlib level 1 and the run-length
strategy (the peers through Pillow). One seed a POST, wrk with one thread on the same machine,
closed loop. The servers take turns, `rounds` times; the figures are medians, the ratios medians of
the ratios within a round. mosec, BentoML and Ray Serve get a virtual environment each, made on
first use in .benchmarks/; the others run in this one.
"""

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from _harness import (
    Load,
    Running,
    figure,
    free_port,
    make_repository,
    parser,
    saddlepoint,
    scratch_folder,
    started,
    wrk,
)

from models.repository import Repository

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "serving" / "peers"
ENVIRONMENTS = ROOT / ".benchmarks"
BODY = '{"seeds":[42]}'
# Ours as it comes, and with one HTTP process alone.
OURS: dict[str, tuple[str, ...]] = {
    "saddlepoint": (),
    "saddlepoint_1_process": ("--api-processes", "1"),
}
CONNECTIONS = (1, 8, 64, 256)


@dataclass(frozen=True)
class Peer:
    """Another server: what it needs, how it starts, where it answers."""

    requirements: tuple[str, ...]
    arguments: tuple[str, ...]
    path: str = "/predict"
    ready: str = "/ready"

    def python(self, name: str) -> str:
        """Its interpreter; makes its virtual environment on first use."""
        if not self.requirements:
            return sys.executable
        folder = ENVIRONMENTS / name
        python = folder / "bin" / "python"
        if not (folder / "made").exists():
            print(f"making {folder.relative_to(ROOT)} ...", flush=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            needs = (*self.requirements, "onnxruntime", "numpy", "pillow")
            subprocess.run([python, "-m", "pip", "install", "-q", *needs], check=True)
            (folder / "made").touch()
        return str(python)


PEER = {
    "mosec": Peer(
        ("mosec",), ("mosec_app.py", "--port", "{port}", "--timeout", "60000"), "/inference", "/"
    ),
    "textbook": Peer((), ("textbook.py",), ready="/health"),
    "fastapi": Peer((), ("fastapi_app.py",)),
    "bentoml": Peer(
        ("bentoml",),
        ("-m", "bentoml", "serve", "bento_app:Generator", "--port", "{port}"),
        ready="/readyz",
    ),
    "ray": Peer(("ray[serve]",), ("ray_app.py",), ready="/predict"),
}


@contextlib.contextmanager
def peer(name: str, repository: Repository, folder: Path) -> Iterator[Running]:
    """A peer on a free port, serving the repository's only model."""
    entry, port = PEER[name], free_port()
    (model,) = repository.names()
    environ = {
        "MODEL": str(repository.bundle(model).model_path),
        "PORT": str(port),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{PEERS}",
        "BENTOML_DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    assignments = [f"{key}={value}" for key, value in environ.items()]
    arguments = [argument.format(port=port) for argument in entry.arguments]
    if arguments[0].endswith(".py"):
        arguments[0] = str(PEERS / arguments[0])
    command = ["env", "-C", str(PEERS), *assignments, entry.python(name), *arguments]
    url = f"http://127.0.0.1:{port}"
    with started(command, url, entry.ready, folder / f"{name}.log") as running:
        yield running


def measure(name: str, repository: Repository, folder: Path, seconds: float) -> dict[int, Load]:
    """One server's turn: warmed up, then each number of connections."""
    ours = OURS.get(name)
    serve = (
        peer(name, repository, folder) if ours is None else saddlepoint(repository, folder, *ours)
    )
    with serve as server:
        url = server.url + (PEER[name].path if ours is None else "/v1/generate")
        wrk(url, BODY, connections=8, seconds=1)
        loads = {num: wrk(url, BODY, connections=num, seconds=seconds) for num in CONNECTIONS}
    failed = sum(load.num_failed for load in loads.values())
    if failed:
        print(f"warning: {name} failed {failed} requests", file=sys.stderr)
    return loads


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--peers", default=",".join(PEER), help="comma separated")
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    names = [*OURS, *filter(None, options.peers.split(","))]
    seconds, rounds = (2, 1) if options.quick else (6, options.rounds)
    turns: dict[str, list[dict[int, Load]]] = {name: [] for name in names}
    with scratch_folder() as folder:
        repository = make_repository(folder, "article")
        for number in range(rounds):
            for name in names:
                print(f"round {number + 1} of {rounds}: {name}", flush=True)
                turns[name].append(measure(name, repository, folder, seconds))
    for name in names:
        for num in CONNECTIONS:
            loads = [turn[num] for turn in turns[name]]
            rate = statistics.median(load.requests_per_s for load in loads)
            figure(f"{name}_requests_{num}", rate, "1/s")
            figure(f"{name}_p50_{num}", statistics.median(load.p50_ms for load in loads), "ms")
            figure(f"{name}_p99_{num}", statistics.median(load.p99_ms for load in loads), "ms")
    for name in names[len(OURS) :]:
        for ours, connections in itertools.product(OURS, (64, 256)):
            ratios = [
                mine[connections].requests_per_s / theirs[connections].requests_per_s
                for mine, theirs in zip(turns[ours], turns[name], strict=True)
            ]
            figure(f"{ours}_over_{name}_{connections}", statistics.median(ratios), "x")


if __name__ == "__main__":
    main()
