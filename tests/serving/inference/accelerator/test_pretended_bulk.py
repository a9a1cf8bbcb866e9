"""`saddlepoint bulk` on two GPUs that a C compiler and a changed ONNX Runtime pretend."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from models.bundle import Bundle
from tests.serving.bulk.conftest import ROOT, command, contents, make
from tests.serving.inference.accelerator.test_pretended_server import PRETENDED, sessions

OPTIONS = ("--count", "230", "--shard-images", "50", "--batch-rows", "16", "--format", "tar")


@pytest.mark.slow
def test_gpus_make_the_same_shards_with_a_session_of_one_bucket_a_worker(
    make_driver: Callable[[int, int], Path], make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle(size=16, channels=3, num_classes=3)
    out, told = tmp_path / "out", tmp_path / "told"
    told.mkdir()
    environ = {name: os.environ[name] for name in os.environ if name != "CUDA_VISIBLE_DEVICES"}
    environ |= {
        "LD_LIBRARY_PATH": str(make_driver(0, 2)),
        "PRETENDED": str(told),
        "PYTHONPATH": os.pathsep.join([str(PRETENDED), os.environ.get("PYTHONPATH", "")]),
    }
    words = command(bundle, out, *OPTIONS, "--device", "cuda", "--workers-per-gpu", "1")
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = sessions(told)
    assert {gpu for _, gpu, *_ in lines} == {"0", "1"}
    # Each process sees one GPU: two probes, the plan's estimate, and a worker for each GPU.
    assert len({pid for pid, *_ in lines}) == len({(pid, gpu) for pid, gpu, *_ in lines}) >= 4
    assert len(lines) == len({pid for pid, *_ in lines})  # one session, as there is one bucket
    make(bundle, str(tmp_path / "cpu"), *OPTIONS)
    # The device is part of the plan, whose digest is in the names; the images don't differ here.
    made, expected = (
        [data for name, data in contents(folder).items() if name.startswith("data/")]
        for folder in (out, tmp_path / "cpu")
    )
    assert len(expected) == 5
    assert made == expected
    assert b'"device":"cuda"' in (out / "plan.json").read_bytes().replace(b" ", b"")
