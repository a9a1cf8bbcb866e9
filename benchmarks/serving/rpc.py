"""Inference over gRPC beside the same over HTTP with binary tensors: one server, alternating.

    python benchmarks/serving/rpc.py [--quick]

Protocol: one server with both, the generator of the `digits` recipe's size, untrained; one new seed
a request, no cache; 64 requests in flight from one client process by asyncio (grpc.aio with the
protocol's messages; raw HTTP/1.1 connections), in turn for two seconds. `grpc_ratio` is the median
over rounds of requests/s over gRPC over those over HTTP; `grpc_cpu_ratio` is the server's CPU time
for a request over HTTP over that over gRPC, which a busy machine disturbs less.
"""

import asyncio
import itertools
import json
import statistics
import struct
import time
from collections.abc import Awaitable, Callable

import grpc
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
