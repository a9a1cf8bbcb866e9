"""A whole server on two GPUs that a C compiler and a changed ONNX Runtime pretend."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.inference.worker import STUCK_EXIT_CODE
from tests.conftest import server_process
from tests.support import metric, wait_for

PRETENDED = Path(__file__).parent / "pretended"


def sessions(folder: Path) -> list[list[str]]:
    """Process, visible GPUs, thread and TF32's override of each session that was opened on CUDA."""
    return [line.split() for line in (folder / "sessions").read_text().splitlines()]


@pytest.mark.chaos
def test_a_worker_a_gpu_and_a_lost_one_is_replaced_while_clients_get_their_images(
    make_driver: Callable[[int, int], Path],
    tiny_repository: Path,
    server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "LD_LIBRARY_PATH": str(make_driver(0, 2)),
        "PRETENDED": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(PRETENDED), os.environ.get("PYTHONPATH", "")]),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    flags = ("--device", "cuda", "--max-batch-rows", "8", "--cache-bytes", "0")
    request = {"model": "colour", "seeds": list(range(20)), "labels": [1] * 20, "format": "npy"}
    expected = np.load(io.BytesIO(server.generate(**request).content))
    with server_process(tiny_repository, tmp_path, *flags) as pretended:

        def generate() -> None:
            reply = pretended.generate(**request)
            assert reply.status_code == 200, reply.text
            assert (np.load(io.BytesIO(reply.content)) == expected).all()

        generate()
        lost = tmp_path / "lost"
        lost.touch()
        while lost.exists():
            generate()
        wait_for(lambda: metric(pretended, "saddlepoint_worker_restarts_total") == 1)
        wait_for(
            lambda: (
                len({pid for pid, _, thread, _ in sessions(tmp_path) if thread == "device"}) == 3
            )
        )
        generate()
        log = pretended.log.read_text()
        assert "the device is lost (CUDA failure 700)" in log
        assert f"ended with exit code {STUCK_EXIT_CODE}" in log
        assert pretended.stop() == 0
    lines = sessions(tmp_path)
    probes = [line for line in lines if line[2] == "MainThread"]
    workers = [line for line in lines if line[2] != "MainThread"]
    assert sorted(gpu for _, gpu, _, _ in probes) == ["0", "1"]
    assert {thread for _, _, thread, _ in workers} == {"device"}  # which alone touches the GPU
    assert {gpu for _, gpu, _, _ in workers} == {"0", "1"}
    assert {override for *_, override in workers} == {"0"}  # fp32 is what was asked for
    seen: dict[str, set[str]] = {}
    for pid, gpu, _, _ in workers:
        seen.setdefault(pid, set()).add(gpu)
    assert all(len(gpus) == 1 for gpus in seen.values())
