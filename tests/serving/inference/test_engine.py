"""The engine: what it refuses, and that batch and bucket never change a byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from models.errors import BundleError
from models.latents import latents
from serving.errors import DeviceError
from serving.inference.accelerator.providers import cuda_options, tensorrt_options
from serving.inference.engine import Engine
from serving.inference.sessions import Compute
from tests.support import wait_for

CPU = Compute(device="cpu", num_threads=1)


@pytest.mark.parametrize("padded", [False, True])
def test_rows_do_not_depend_on_their_batch(
    make_bundle: Callable[..., Bundle], padded: bool
) -> None:
    sizes = (1, 3, 16) if padded else ()
    compute = Compute(device="cpu", num_threads=2, lanes=2)
    engine = Engine(make_bundle(num_classes=3), compute, max_rows=16, buckets=sizes)
    assert engine.buckets == sizes
    z = latents(list(range(40)), 6)
    label = np.arange(40) % 3
    whole = engine(z, label)  # larger than max_rows: split
    assert whole.shape == (40, 8, 8, 1)
    for start, stop in [(0, 1), (3, 8), (7, 23), (39, 40)]:
        for alone in (True, False):
            rows = engine.make(z[start:stop], label[start:stop], alone=alone)
            assert (rows == whole[start:stop]).all()


def test_a_bundle_that_does_not_verify_is_refused(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(weights_seed=5)
    (bundle.path / "card.md").write_text("altered")
    with pytest.raises(BundleError, match=r"card\.md"):
        Engine(bundle, CPU, max_rows=4)


def test_what_the_providers_are_told(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    compute = Compute(device="cuda:1", math="tf32", tensorrt_cache=tmp_path)
    assert cuda_options(compute)["device_id"] == "1"
    assert cuda_options(compute)["use_tf32"] == "1"
    bundle = make_bundle(num_classes=3)
    told = tensorrt_options(bundle, 8, compute)
    assert told["trt_profile_opt_shapes"] == "z:8x6,label:8"
    assert told["trt_engine_cache_path"] == str(tmp_path)
    others = [
        tensorrt_options(bundle, 8, Compute(device="cuda:1", math=math, tensorrt_cache=tmp_path))
        for math in ("fp32", "fp16")
    ]
    keys = {each["trt_engine_cache_prefix"] for each in (told, *others)}
    assert len(keys) == 3  # else an engine of another precision would be taken
    assert [each["trt_fp16_enable"] for each in (told, *others)] == ["0", "0", "1"]


def test_a_server_asked_for_cuda_without_one_says_so_and_ends(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    server = start_server(tiny_repository, "--device", "cuda", ready=False)
    assert server.process.wait(30) == DeviceError.exit_code
    wait_for(lambda: "error: --device is cuda, but" in server.log.read_text())
