"""An engine on a pretended GPU: its thread, its graphs, ways that fail, memory that is short."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from models.errors import BundleError
from models.latents import latents
from serving.errors import DeviceError, DeviceMemoryError
from serving.inference.accelerator.fixed_runs import FixedRuns
from serving.inference.accelerator.owner import DeviceOwner
from serving.inference.devices import CPU
from serving.inference.engine import Engine
from serving.inference.faults import is_passing, words_for_clients
from serving.inference.sessions import Compute, CpuRun
from tests.serving.inference.accelerator.fake_cuda import FakeCuda

CUDA_0 = Compute(device="cuda:0")
LOST = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=node-7"
FULL = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : /onnxruntime_src/bfc_arena.cc:359 Failed to "
    "allocate memory for requested buffer of size 5242880"
)

MakeBundle = Callable[..., Bundle]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = FakeCuda()
    made.install(monkeypatch)
    return made


@pytest.fixture
def lost() -> list[str]:
    return []


@pytest.fixture
def owner(lost: list[str]) -> DeviceOwner:
    return DeviceOwner(lost.append)


def feed(bundle: Bundle, num: int) -> dict[str, np.ndarray]:
    return {"z": latents(list(range(num)), bundle.manifest.z_dim), "label": np.arange(num) % 3}


def add(engine: Engine, z: Any, label: Any, made: list[np.ndarray]) -> None:
    made.append(engine.make(z, label))


def check_bytes(runs: Callable[..., np.ndarray], bundle: Bundle, most: int) -> None:
    reference = CpuRun(bundle.model_path, Compute(device="cpu", num_threads=1))
    kept = []
    for num in (most, 1, 3, most - 1):
        given = feed(bundle, num)
        images = runs(given)
        kept.append((images, images.copy()))
        assert (images == reference(given, alone=True)).all()
    assert all((images == copy).all() for images, copy in kept)  # no run writes into another's


def test_one_thread_owns_the_device_and_one_session_replays_every_bucket(
    make_bundle: MakeBundle, fake: FakeCuda, owner: DeviceOwner
) -> None:
    bundle = make_bundle(num_classes=3)
    engine = Engine(bundle, CUDA_0, max_rows=8, owner=owner)
    made: list[np.ndarray] = []
    z, label = feed(bundle, 11).values()
    threads = [threading.Thread(target=add, args=(engine, z, label, made)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reference = CpuRun(bundle.model_path, Compute(device="cpu", num_threads=1))
    assert all((images == reference({"z": z, "label": label}, alone=True)).all() for images in made)
    assert engine.replays
    assert len(fake.opened) == 1  # the weights lie on the device once
    assert fake.opened[0]["cudnn_conv_algo_search"] == "HEURISTIC"
    assert fake.graphs == {"1", "2", "3", "4"}  # of 1, 2, 4 and 8 rows
    assert not engine.is_steady  # else the event loop would wait for the owner
    threads.clear()
    del engine
    owner.call(lambda: None)
    assert fake.num_alive == 0
    assert fake.threads == {"device"}


def test_a_graph_that_can_not_be_captured_runs_without_from_a_session_a_bucket(
    make_bundle: MakeBundle, fake: FakeCuda, owner: DeviceOwner, lost: list[str]
) -> None:
    def on_run(options: dict[str, str]) -> None:
        if options["enable_cuda_graph"] == "1":
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")

    fake.on_run = on_run
    bundle = make_bundle(num_classes=3)
    runs = FixedRuns(bundle, (1, 4, 6), CUDA_0, owner)
    assert not runs.way.replays
    check_bytes(runs, bundle, 6)
    told = [(each["enable_cuda_graph"], each["cudnn_conv_algo_search"]) for each in fake.opened]
    assert told == [("1", "HEURISTIC"), ("1", "EXHAUSTIVE"), *[("0", "EXHAUSTIVE")] * 3]
    assert fake.num_alive == 3
    assert not lost  # a capture that fails is no lost device


def test_an_algorithm_that_fails_is_looked_for_by_trying(
    make_bundle: MakeBundle, fake: FakeCuda, owner: DeviceOwner
) -> None:
    def on_run(options: dict[str, str]) -> None:
        if options["cudnn_conv_algo_search"] == "HEURISTIC":
            raise RuntimeError("CUDNN_FE failure 11: CUDNN_BACKEND_API_FAILED")

    fake.on_run = on_run
    FixedRuns(make_bundle(), (1, 2), CUDA_0, owner)
    assert [each["enable_cuda_graph"] for each in fake.opened] == ["1", "1"]


@pytest.mark.parametrize("stage", ["on_open", "on_run"])
def test_what_no_way_can_run_is_refused_and_leaves_nothing_on_the_device(
    make_bundle: MakeBundle, fake: FakeCuda, owner: DeviceOwner, lost: list[str], stage: str
) -> None:
    def fail(options: dict[str, str]) -> None:
        raise RuntimeError("Exception during initialization at /onnxruntime_src/cuda.cc:1")

    setattr(fake, stage, fail)
    bundle = make_bundle()
    with pytest.raises(BundleError, match=r"model\.onnx") as caught:
        FixedRuns(bundle, (1, 2), CUDA_0, owner)
    assert "onnxruntime_src" not in words_for_clients(caught.value, bundle.path.parent)
    assert not is_passing(caught.value)
    del caught
    owner.call(lambda: None)
    assert fake.num_alive == 0
    assert not lost


def test_a_provider_that_did_not_come_up_is_said_at_once(
    make_bundle: MakeBundle, fake: FakeCuda, owner: DeviceOwner
) -> None:
    fake.providers = [CPU]
    with pytest.raises(DeviceError, match="CUDA 13 and cuDNN 9 are needed"):
        FixedRuns(make_bundle(), (1, 2), CUDA_0, owner)
    assert len(fake.opened) == 1


@pytest.mark.parametrize("during", ["load", "run"])
def test_a_lost_device_ends_the_process(
    make_bundle: MakeBundle, fake: FakeCuda, owner: DeviceOwner, lost: list[str], during: str
) -> None:
    bundle = make_bundle()

    def fail(options: dict[str, str]) -> None:
        raise RuntimeError(LOST)

    if during == "load":
        fake.on_run = fail
        with pytest.raises(BundleError):
            FixedRuns(bundle, (1,), CUDA_0, owner)
        assert len(fake.opened) == 1  # no other way is tried on it
    else:
        runs = FixedRuns(bundle, (1,), CUDA_0, owner)
        fake.on_run = fail
        with pytest.raises(RuntimeError):
            runs.try_one()
    assert set(lost) == {"the device is lost (CUDA failure 700)"}


def test_memory_that_is_too_small_passes_and_is_told_without_foreign_words(
    make_bundle: MakeBundle, fake: FakeCuda, owner: DeviceOwner, lost: list[str]
) -> None:
    def fail(options: dict[str, str]) -> None:
        raise RuntimeError(FULL)

    fake.on_run = fail
    bundle = make_bundle()
    with pytest.raises(DeviceMemoryError, match="needs 5 MB more on cuda:0") as caught:
        FixedRuns(bundle, (1, 2), CUDA_0, owner)
    assert len(fake.opened) == 1
    assert is_passing(caught.value)
    assert "onnxruntime" not in words_for_clients(caught.value, bundle.path.parent)
    assert not lost


def test_a_shrunk_engine_gives_the_same_bytes(
    make_bundle: MakeBundle, fake: FakeCuda, owner: DeviceOwner
) -> None:
    bundle = make_bundle(num_classes=3)
    compute = Compute(device="cuda:0", cuda_graphs=False, memory_mb=7)
    runs = FixedRuns(bundle, (1, 2, 5), compute, owner)
    assert {each["gpu_mem_limit"] for each in fake.opened} == {str(7 << 20)}
    assert fake.num_alive == 3
    assert runs.shrink()
    assert not runs.shrink()
    assert fake.num_alive == 1
    assert runs.padded(1) == 5
    check_bytes(runs, bundle, 5)
