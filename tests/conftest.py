"""Fixtures that more than one room's tests use: tiny real bundles, real server processes."""

import contextlib
import fcntl
import gc
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.bundle import Bundle, Golden, write_bundle
from models.bundle.directions import DIRECTIONS, Directions, DirectionSet, GoldenSteps
from models.bundle.generator import CpuGenerator
from models.bundle.manifest import Dataset, ImageSpec, Manifest, Parity, tensor_specs
from models.latents import latents
from tests import real_images
from tests.support import HTTP
from tests.tiny_parts import tiny_styles, tiny_units

# A forked child collects no garbage that earlier tests have left: the end of a session of ONNX
# Runtime waits for its threads, which the parent alone has.
os.register_at_fork(after_in_child=gc.freeze)

READY_TIMEOUT_S = 180
_NUMBERS = itertools.count()

# A loaded machine is no failure: how long an example takes is nothing that a test measures. Cases
# are the same in every run, so that a change is judged by what it changes; FUZZ_RANDOM=1 draws
# others.
hypothesis.settings.register_profile(
    "ours",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize=not os.environ.get("FUZZ_RANDOM"),
)
hypothesis.settings.load_profile("ours")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks this small lose by a second thread, in this process and in those that it starts.

    Two tests run at once, so a second thread would also wait for a core.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that run alone come last: nobody waits for them in the middle."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Waits, before its time-out counts, until the test may run beside those of other workers."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    folder = Path(item.config.option.basetemp).parent
    with turn(folder, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextlib.contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Holds a place among the tests of all workers of a run, or the only one.

    Who comes locks the door until there is a place, so whoever wants to be alone is overtaken by
    nobody. What was locked is unlocked, not only closed: processes that a test forked have it too.
    """
    with (folder / "door").open("w") as door, (folder / "room").open("w") as room:
        try:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(door, fcntl.LOCK_UN)
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)


def tiny_weights(
    z_dim: int, image: ImageSpec, num_classes: int, weights_seed: int, scale: float = 40
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """The weights of `tiny_graph`, and its table of classes."""
    rng = np.random.default_rng(weights_seed)
    num_pixels = image.height * image.width * image.channels
    weight = (rng.standard_normal((z_dim, num_pixels)) * scale).astype(np.float32)
    if not num_classes:
        return weight, None
    return weight, (rng.standard_normal((num_classes, num_pixels)) * scale).astype(np.float32)


def tiny_graph(
    z_dim: int, image: ImageSpec, num_classes: int, weights_seed: int, scale: float = 40
) -> onnx.ModelProto:
    """A linear generator by hand, with the bundle's contract: no torch needed to serve it."""
    weight, table = tiny_weights(z_dim, image, num_classes, weights_seed, scale)
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
    if table is not None:
        constants["table"] = table
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


def tiny_directions(
    generate: CpuGenerator, z_dim: int, num_classes: int, num: int = 3
) -> Directions:
    """Directions by hand: the first axes of z, half a unit each; each class's go the other way."""
    steps = np.eye(num, z_dim, dtype=np.float32) / 2
    concepts, amounts = ("area", "slant"), np.array([-1, 0, 1], np.float32)
    seeds = np.arange(2, dtype=np.uint64)
    labels = (seeds % np.uint64(num_classes)).astype(np.int64) if num_classes else None
    golden_amounts = np.eye(2, num, dtype=np.float32)
    images = generate(latents(seeds, z_dim) + golden_amounts @ steps, labels)

    def of(steps: npt.NDArray[np.float32], names: list[str]) -> DirectionSet:
        leading = steps.shape[:-1]
        picture = np.zeros((*leading, 3, *images.shape[1:]), np.uint8)
        return DirectionSet(
            steps=steps,
            eigenvalues=np.ones(leading, np.float32),
            names=np.broadcast_to(np.array(names), leading).copy(),
            evidence=np.full((*leading, 2), 0.7, np.float32),
            pictures=picture,
        )

    sets = {"z": of(steps, ["slant", "", "ink above"])}
    if num_classes:
        factors = -1 - np.arange(num_classes, dtype=np.float32)
        sets["class"] = of(factors[:, None, None] * steps[:2], ["", ""])
    golden = GoldenSteps(seeds=seeds, labels=labels, amounts=golden_amounts, images=images)
    return Directions(sets=sets, concepts=concepts, amounts=amounts, golden=golden)


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Makes a complete, valid bundle of a tiny generator in a folder of its own."""

    def make(
        *,
        z_dim: int = 6,
        size: int | tuple[int, int] = 8,
        channels: int = 1,
        num_classes: int = 0,
        weights_seed: int = 0,
        directions: bool = False,
        units: bool = False,
        styles: bool = False,
        encoder: str = "",
        scale: float = 40,
    ) -> Bundle:
        # encoder: of tests.real_images. scale: of the weights; small ones clip nothing.
        folder = tmp_path_factory.mktemp("bundle")
        height, width = (size, size) if isinstance(size, int) else size
        image = ImageSpec(height=height, width=width, channels=channels)
        model = folder / "model.onnx"
        onnx.save(tiny_graph(z_dim, image, num_classes, weights_seed, scale), model)
        seeds = np.arange(8, dtype=np.uint64)
        labels = np.arange(8, dtype=np.int64) % num_classes if num_classes else None
        images = CpuGenerator(model)(latents(seeds, z_dim), labels)
        inputs, outputs = tensor_specs(z_dim, image, conditional=num_classes > 0)
        manifest = Manifest(
            schema_version=image.schema_version,
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
        if directions:
            made = tiny_directions(CpuGenerator(model), z_dim, num_classes)
            files[DIRECTIONS] = made.to_bytes()
        if units:
            files |= tiny_units(model.read_bytes(), z_dim, num_classes)
        if styles:
            files |= tiny_styles(model.read_bytes(), z_dim)
        if encoder:
            weight, table = tiny_weights(z_dim, image, num_classes, weights_seed, scale)
            files |= real_images.parts_of(encoder, weight, table, image)
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
        return HTTP.get(self.url + path, **kwargs)  # type: ignore[arg-type]

    def post(self, path: str, **kwargs: object) -> httpx.Response:
        """POST to it."""
        return HTTP.post(self.url + path, **kwargs)  # type: ignore[arg-type]

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


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pytest's own, with a short name: the path of a socket in it has 107 bytes at most.

    And with a number that is counted here: pytest looks at all folders that there are, each time.
    """
    folder = tmp_path_factory.getbasetemp() / f"t{next(_NUMBERS)}"
    folder.mkdir(mode=0o700)
    return folder


@contextlib.contextmanager
def server_process(
    repository: Path,
    folder: Path,
    *flags: str,
    ready: bool = True,
    prefix: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    output: int | None = None,
    command: Sequence[str] = (sys.executable, "-m", "serving.run"),
    cwd: Path | None = None,
) -> Iterator[ServerProcess]:
    """A server on a free port; killed at the end if it still runs.

    Args:
        repository: what is served.
        folder: for its log and its own folder.
        flags: further settings.
        ready: False doesn't wait until it is.
        prefix: a command that runs it.
        environ: further variables.
        output: a descriptor that it writes to instead of the log.
        command: what is run.
        cwd: where.
    """
    port = free_port()
    log = folder / f"server-{port}.log"
    variables = {k: v for k, v in os.environ.items() if not k.startswith("SADDLEPOINT_")}
    variables |= {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", **(environ or {})}
    # One process, unless a test asks for more: what it counts is then all in one place.
    one = ("--api-processes", "1")
    arguments = ["--repository", str(repository), "--port", str(port), *one, *flags]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*prefix, *command, *arguments],
            cwd=cwd,
            stdout=file if output is None else output,
            stderr=subprocess.STDOUT,
            text=True,
            env=variables,
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

        def start(repository: Path, *flags: str, **options: Any) -> ServerProcess:
            return stack.enter_context(server_process(repository, tmp_path, *flags, **options))

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
