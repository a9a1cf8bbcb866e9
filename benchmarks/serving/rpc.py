"""Inference over gRPC beside the same over HTTP with binary tensors: one server, alternating.

    python benchmarks/serving/rpc.py [--quick]

Protocol: one server with both, the generator of the `digits` recipe's size, untrained; one new seed
a request, no cache; 64 requests in flight from one client process by asyncio (grpc.aio with the
protocol's messages; raw HTTP/1.1 connections), in turn for two seconds. `grpc_ratio` is the median
over rounds of requests/s over gRPC over those over HTTP; `grpc_cpu_ratio` is the server's CPU time
for a request over HTTP over that over gRPC, which a busy machine disturbs less.

A client in Python takes more of the machine than the server does, and more over gRPC than over
HTTP. So where h2load is installed (Debian: nghttp2-client) it asks, too, with a latent in place of
a seed, as each of its requests is the same: over one connection of 64 gRPC calls, over 8 of 8, and
over 64 connections of HTTP/1.1. `h2load_ratio` and `h2load_8_ratio` are of requests/s.
"""

import asyncio
import itertools
import json
import re
import shutil
import statistics
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
from _harness import (
    Running,
    figure,
    free_port,
    make_repository,
    parser,
    saddlepoint,
    scratch_folder,
)

from serving.rpc.protocol import Protocol

IN_FLIGHT = 64
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_seeds = itertools.count(1)


async def over_grpc(address: str, seconds: float) -> int:
    """Requests that were answered."""
    protocol = Protocol("inference.proto")
    kind = protocol.message("ModelInferRequest")

    async with grpc.aio.insecure_channel(address) as channel:
        infer = channel.unary_unary(
            _INFER,
            request_serializer=kind.SerializeToString,
            response_deserializer=protocol.message("ModelInferResponse").FromString,
        )

        async def ask() -> None:
            request = kind(
                model_name="digits", raw_input_contents=[struct.pack("<Q", next(_seeds))]
            )
            request.inputs.add(name="SEED", datatype="UINT64", shape=[1])
            answer = await infer(request)
            assert answer.raw_output_contents[0]

        return await closed_loop(lambda: repeat(ask), seconds)


async def over_http(port: int, seconds: float) -> int:
    """Requests that were answered."""
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "SEED",
                    "datatype": "UINT64",
                    "shape": [1],
                    "parameters": {"binary_data_size": 8},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    start = (
        b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
        b"Inference-Header-Content-Length: %d\r\n\r\n" % (len(head) + 8, len(head))
    ) + head

    def connection() -> Callable[[], Awaitable[None]]:
        streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

        async def ask() -> None:
            if not streams:
                streams.append(await asyncio.open_connection("127.0.0.1", port))
            reader, writer = streams[0]
            writer.write(start + struct.pack("<Q", next(_seeds)))
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            body = await reader.readexactly(length_in(answer, b"content-length"))
            json.loads(body[: length_in(answer, b"inference-header-content-length")])

        return ask

    return await closed_loop(connection, seconds)


def length_in(head: bytes, name: bytes) -> int:
    """The number in a header of an answer."""
    return int(head.lower().partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0])


def repeat(ask: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """The same for every worker."""
    return ask


async def closed_loop(make: Callable[[], Callable[[], Awaitable[None]]], seconds: float) -> int:
    """Asks from IN_FLIGHT workers, each again when it was answered; counts the answers."""
    until = time.perf_counter() + seconds
    num = 0

    async def work() -> None:
        nonlocal num
        ask = make()
        while time.perf_counter() < until:
            await ask()
            num += 1

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return num


class H2load:
    """Asks for one latent, the same for both protocols, by nghttp2's client in C."""

    def __init__(self, folder: Path, z_dim: int, http_url: str, grpc_port: int) -> None:
        """Writes the two bodies into a folder."""
        z = np.random.default_rng(0).normal(size=(1, z_dim)).astype("<f4").tobytes()
        kind = Protocol("inference.proto").message("ModelInferRequest")
        request = kind(model_name="digits", raw_input_contents=[z])
        request.inputs.add(name="z", datatype="FP32", shape=[1, z_dim])
        message = request.SerializeToString()
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            assert channel.unary_unary(_INFER)(message)  # raises where h2load would see 200
        sized = {"binary_data_size": len(z)}
        tensor = {"name": "z", "datatype": "FP32", "shape": [1, z_dim], "parameters": sized}
        binary = {"binary_data_output": True}
        head = json.dumps({"inputs": [tensor], "parameters": binary}).encode()
        grpc_body, http_body = folder / "grpc.bin", folder / "http.bin"
        grpc_body.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
        http_body.write_bytes(head + z)
        size = f"Inference-Header-Content-Length: {len(head)}"
        rpc = [f"-d{grpc_body}", "-Hcontent-type: application/grpc", "-Hte: trailers"]
        rpc.append(f"http://127.0.0.1:{grpc_port}{_INFER}")
        self.ways = {
            "h2load_grpc": ["-c1", f"-m{IN_FLIGHT}", *rpc],
            "h2load_grpc_8": ["-c8", f"-m{IN_FLIGHT // 8}", *rpc],
            "h2load_http": [
                *("--h1", f"-c{IN_FLIGHT}", "-m1", f"-d{http_body}", f"-H{size}"),
                f"{http_url}/v2/models/digits/infer",
            ],
        }

    def __call__(self, way: str, seconds: float) -> float:
        """Requests a second."""
        command = ["h2load", "-t1", "-D", str(max(1, round(seconds))), *self.ways[way]]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rate, failed = re.search(r"([\d.]+) req/s", said), re.search(r"(\d+) failed", said)
        if rate is None or failed is None or int(failed[1]):
            raise SystemExit(f"h2load says:\n{said}")
        return float(rate[1])


def by_h2load(ask: H2load, rounds: int, seconds: float) -> None:
    """The figures of its clients, which take turns."""
    rates: dict[str, list[float]] = {way: [] for way in ask.ways}
    for number in range(rounds):
        for way in rates if number % 2 else reversed(rates):
            rates[way].append(ask(way, seconds))
    for way, each in rates.items():
        figure(f"{way}_requests", statistics.median(each), "1/s")
    for name, way in (("h2load_ratio", "h2load_grpc"), ("h2load_8_ratio", "h2load_grpc_8")):
        over = zip(rates[way], rates["h2load_http"], strict=True)
        figure(name, statistics.median(a / b for a, b in over), "x")


def measured(running: Running, ask: Callable[[], int], seconds: float) -> tuple[float, float]:
    """Requests a second, and the server's CPU seconds for each."""
    before, began = running.cpu_s(), time.perf_counter()
    num = ask()
    return num / (time.perf_counter() - began), (running.cpu_s() - before) / num


def main() -> None:
    quick = parser(__doc__).parse_args().quick
    rounds, seconds = (3, 1.0) if quick else (10, 2.0)
    port = free_port()
    with scratch_folder() as folder:
        repository = make_repository(folder, "digits")
        with saddlepoint(repository, folder, "--grpc-port", str(port)) as running:
            http_port = int(running.url.rpartition(":")[2])

            def grpc_run() -> int:
                return asyncio.run(over_grpc(f"127.0.0.1:{port}", seconds))

            def http_run() -> int:
                return asyncio.run(over_http(http_port, seconds))

            found: dict[str, list[tuple[float, float]]] = {"grpc": [], "http": []}
            if shutil.which("h2load"):
                z_dim = repository.bundle("digits").manifest.z_dim
                by_h2load(H2load(folder, z_dim, running.url, port), rounds, seconds)
            for number in range(rounds):
                order = [("grpc", grpc_run), ("http", http_run)]
                for name, ask in order if number % 2 else reversed(order):
                    found[name].append(measured(running, ask, seconds))
    for name, values in found.items():
        figure(f"{name}_requests", statistics.median(rate for rate, _ in values), "1/s")
        figure(f"{name}_cpu", statistics.median(cpu for _, cpu in values) * 1e6, "us")
    pairs = list(zip(found["grpc"], found["http"], strict=True))
    figure("grpc_ratio", statistics.median(a[0] / b[0] for a, b in pairs), "x")
    figure("grpc_cpu_ratio", statistics.median(b[1] / a[1] for a, b in pairs), "x")


if __name__ == "__main__":
    main()
