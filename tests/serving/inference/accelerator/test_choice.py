"""Which devices are chosen, with a driver that a C compiler makes: what CUDA says, in words."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from models.bundle.runtime import ort
from serving.errors import DeviceError
from serving.inference.accelerator import choice, probe
from serving.inference.accelerator.choice import (
    VISIBLE,
    Devices,
    choose_devices,
    claim,
    visible_name,
)
from serving.inference.accelerator.probe import MODEL, ProbeError

HAS_GPU = Path("/dev/nvidia0").exists()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Stands for the children: which questions were asked of which GPU; a GPU called 1 fails."""
    seen: list[tuple[str, str]] = []

    def ask(what: str, environ: dict[str, str]) -> dict[str, Any]:
        seen.append((what, environ.get(VISIBLE, "")))
        if what == "count":
            return {"count": 3}
        if environ[VISIBLE] == "1":
            raise ProbeError("an uncorrectable ECC error was encountered")
        return {}

    monkeypatch.setattr(probe, "ask", ask)
    monkeypatch.setattr(choice.ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [choice.CUDA])
    monkeypatch.delenv(VISIBLE, raising=False)
    return seen


def test_one_card_that_fails_costs_no_other(asked: list[tuple[str, str]]) -> None:
    assert choose_devices("auto") == Devices("cuda", ("0", "2"))
    assert asked[0] == ("count", "")
    assert sorted(asked[1:]) == [("session", "0"), ("session", "1"), ("session", "2")]


def test_cards_that_are_named_must_work(asked: list[tuple[str, str]]) -> None:
    assert choose_devices("cuda", ("MIG-a", "2")) == Devices("cuda", ("MIG-a", "2"))
    assert ("count", "") not in asked
    for device in ("auto", "cuda"):
        with pytest.raises(DeviceError, match=r"--devices is 0,1, but .*1: an uncorrectable ECC"):
            choose_devices(device, ("0", "1"))


def test_numbers_are_those_of_what_is_visible(
    asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "5, GPU-x,1")
    assert [visible_name(index) for index in range(3)] == ["5", "GPU-x", "1"]
    assert choose_devices("auto").visible == ("5", "GPU-x")


def test_a_process_sees_the_card_alone_that_is_its_own() -> None:
    environ = {VISIBLE: "0,1"}
    assert claim("GPU-x", environ) == "cuda:0"
    assert environ == {VISIBLE: "GPU-x", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(DeviceError, match="--device is cuda, but"):
        choose_devices("cuda")
    assert choose_devices("auto") == choose_devices("cpu") == Devices("cpu")


@pytest.mark.parametrize(
    ("code", "num", "words"),
    [
        (100, 0, "sees no CUDA device"),
        (802, 1, "fabric manager"),
        (803, 1, "of different versions; restart the node"),
        (999, 1, "nvidia-uvm"),
        (0, 0, "sees no CUDA device"),
    ],
)
def test_what_the_driver_says_is_told_in_words(
    make_driver: Callable[[int, int], Path], code: int, num: int, words: str
) -> None:
    driver = choice.ctypes.CDLL(str(make_driver(code, num) / "libcuda.so.1"))
    with pytest.raises(ProbeError, match=words):
        probe.count(driver)


def test_a_driver_without_what_cuda_needs_serves_on_the_cpu(
    make_driver: Callable[[int, int], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The real children: one that counts, and one whose session does not come up."""
    folder = str(make_driver(0, 1))
    monkeypatch.setenv("LD_LIBRARY_PATH", folder)
    monkeypatch.setattr(
        choice.ctypes, "CDLL", lambda name, load=choice.ctypes.CDLL: load(f"{folder}/{name}")
    )
    assert choose_devices("auto") == Devices("cpu")
    assert "models run on the CPU: " in caplog.text
    with pytest.raises(DeviceError, match=r"--device is cuda, but .*; use --device cpu"):
        choose_devices("cuda")


def test_a_child_that_crashes_or_hangs_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child = tmp_path / "child"
    monkeypatch.setattr(probe.sys, "executable", str(child))
    for script, words in {
        "echo unlucky >&2; kill -11 $$": "ended with signal 11: unlucky",
        'echo {\\"fault\\": \\"no kernel image\\"}': "no kernel image",
        "exec sleep 60": "did not answer within 0.3 s",
    }.items():
        child.write_text(f"#!/bin/sh\n{script}\n")
        child.chmod(0o755)
        monkeypatch.setattr(probe, "TIMEOUT_S", 0.3 if "sleep" in script else 30.0)
        with pytest.raises(ProbeError, match=words):
            probe.ask("session", dict(os.environ))


def test_the_tried_graph_is_one_convolution() -> None:
    model = onnx.load_from_string(MODEL)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    session = ort.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": np.full((1, 1, 3, 3), 2.0, np.float32)})
    assert found.item() == 18.0
