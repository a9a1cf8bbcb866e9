"""Fixtures that more than one room's tests use: tiny real bundles, real server processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.bundle import Bundle, Golden, write_bundle
from models.generator import CpuGenerator
from models.latents import latents
from models.manifest import Dataset, ImageSpec, Manifest, Parity, tensor_specs

READY_TIMEOUT_S = 60


def tiny_graph(
    z_dim: int, image: ImageSpec, num_classes: int, weights_seed: int
) -> onnx.ModelProto:
    """A linear generator by hand, with the bundle's contract: no torch needed to serve it."""
    rng = np.random.default_rng(weights_seed)
    num_pixels = image.height * image.width * image.channels
    weight = (rng.standard_normal((z_dim, num_pixels)) * 40).astype(np.float32)
    constants = {
        "weight": weight,
        "bias": np.float32(127.5),
        "low": np.float32(0),
        "high": np.float32(255),
        "shape": np.array([-1, image.height, image.width, image.channels], np.int64),
    }
    nodes = [helper.make_node("MatMul", ["z", "weight"], ["linear"])]
    source = "linear"
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", z_dim])]
    if num_classes:
        constants["table"] = (rng.standard_normal((num_classes, num_pixels)) * 40).astype(
            np.float32
        )
        inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
        nodes += [
            helper.make_node("Gather", ["table", "label"], ["embedded"]),
            helper.make_node("Add", ["linear", "embedded"], ["conditioned"]),
        ]
        source = "conditioned"
    nodes += [
        helper.make_node("Add", [source, "bias"], ["shifted"]),
        helper.make_node("Clip", ["shifted", "low", "high"], ["clipped"]),
        helper.make_node("Round", ["clipped"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["bytes", "shape"], ["image"]),
    ]
    output = helper.make_tensor_value_info(
        "image", TensorProto.UINT8, ["n", image.height, image.width, image.channels]
    )
    initializers = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Makes a complete, valid bundle of a tiny generator in a folder of its own."""

    def make(
        *,
        z_dim: int = 6,
        size: int = 8,
        channels: int = 1,
        num_classes: int = 0,
        weights_seed: int = 0,
    ) -> Bundle:
        folder = tmp_path_factory.mktemp("bundle")
        image = ImageSpec(height=size, width=size, channels=channels)
        model = folder / "model.onnx"
        onnx.save(tiny_graph(z_dim, image, num_classes, weights_seed), model)
        seeds = np.arange(8, dtype=np.uint64)
        labels = np.arange(8, dtype=np.int64) % num_classes if num_classes else None
        images = CpuGenerator(model)(latents(seeds, z_dim), labels)
        inputs, outputs = tensor_specs(z_dim, image, conditional=num_classes > 0)
        manifest = Manifest(
            schema_version=1,
            name="tiny",
            version=1,
            created="2026-01-01T00:00:00+00:00",
            z_dim=z_dim,
            image=image,
            labels=tuple(f"class {i}" for i in range(num_classes)) or None,
            inputs=inputs,
            outputs=outputs,
            recipe="tiny",
            options={},
            dataset=Dataset(name="none", num_images=0, fingerprint=""),
            source_commit=None,
            metrics=(),
            parity=Parity(max_abs_diff=0, num_seeds=8),
            files={},
        )
        files = {
            "model.onnx": model.read_bytes(),
            "golden.npz": Golden(seeds=seeds, labels=labels, images=images).to_bytes(),
            "samples.png": b"not looked at by a server",
            "card.md": b"# tiny\n",
        }
        return write_bundle(folder / "bundle", manifest, files)

    return make


@dataclass
class ServerProcess:
    """A server that really runs."""

    process: "subprocess.Popen[str]"
    url: str
    log: Path

    def get(self, path: str, **kwargs: object) -> httpx.Response:
        """GET from it."""
        return httpx.get(self.url + path, timeout=30, **kwargs)  # type: ignore[arg-type]

    def post(self, path: str, **kwargs: object) -> httpx.Response:
        """POST to it."""
        return httpx.post(self.url + path, timeout=30, **kwargs)  # type: ignore[arg-type]

    def generate(self, **request: object) -> httpx.Response:
        """POST /v1/generate."""
        return self.post("/v1/generate", json=request)

    def wait_until(self, path: str, status: int, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Returns when GET path answers status."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.log.read_text()}")
            with contextlib.suppress(httpx.TransportError):
                if self.get(path).status_code == status:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{path} did not answer {status}:\n{self.log.read_text()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and gives the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def server_process(
    repository: Path,
    folder: Path,
    *flags: str,
    ready: bool = True,
    prefix: Sequence[str] = (),
) -> Iterator[ServerProcess]:
    """A server on a free port, run by `prefix` if given; killed at the end if it still runs."""
    port = free_port()
    log = folder / f"server-{port}.log"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SADDLEPOINT_")}
    environ |= {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    arguments = ["--repository", str(repository), "--port", str(port), *flags]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "serving.run", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ,
            start_new_session=True,
        )
    server = ServerProcess(process, f"http://127.0.0.1:{port}", log)
    try:
        if ready:
            server.wait_until("/readyz", 200)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers that end with the test."""
    with contextlib.ExitStack() as stack:

        def start(
            repository: Path, *flags: str, ready: bool = True, prefix: Sequence[str] = ()
        ) -> ServerProcess:
            return stack.enter_context(
                server_process(repository, tmp_path, *flags, ready=ready, prefix=prefix)
            )

        yield start


@pytest.fixture(scope="session")
def tiny_repository(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Bundle]
) -> Path:
    """grey: unconditional 8x8, versions 1 and 2; colour: conditional 16x16 RGB of 3 classes."""
    from models.repository import Repository

    root = tmp_path_factory.mktemp("repository")
    repository = Repository(root)
    for weights_seed in (1, 2):
        repository.publish("grey", make_bundle(weights_seed=weights_seed))
    repository.publish("colour", make_bundle(size=16, channels=3, num_classes=3, weights_seed=3))
    return root


@pytest.fixture(scope="session")
def server(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """One server over `tiny_repository` for every test that does it no harm."""
    folder = tmp_path_factory.mktemp("server")
    # Without a cache, so that what is compared is made anew; tests of the cache have their own.
    flags = ("--max-seeds", "300", "--max-body-bytes", "200000", "--cache-bytes", "0")
    with server_process(tiny_repository, folder, *flags) as running:
        yield running
