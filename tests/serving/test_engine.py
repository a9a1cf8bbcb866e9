"""The engine: what it refuses, and that batch and bucket never change a byte."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle import Bundle
from models.errors import BundleError
from models.latents import latents
from serving.devices import choose_device
from serving.engine import Engine, powers_of_two
from serving.errors import DeviceError
from serving.sessions import Compute, CpuRun, FixedRun, cuda_options, tensorrt_options

CPU = Compute(device="cpu", num_threads=1)


@given(st.integers(1, 3000))
def test_buckets_are_powers_of_two_up_to_the_largest(max_rows: int) -> None:
    sizes = powers_of_two(max_rows)
    assert sizes[0] == 1
    assert sizes[-1] == max_rows
    assert all(a < b <= 2 * a for a, b in itertools.pairwise(sizes))


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


def test_a_fixed_shape_gives_the_bytes_of_any_other(make_bundle: Callable[..., Bundle]) -> None:
    """What CUDA runs, on the CPU: bound inputs and output, rows padded with zeros."""
    bundle = make_bundle(num_classes=3)
    reference = CpuRun(bundle.model_path, CPU)
    fixed = FixedRun(bundle.model_path, bundle.manifest, 8, CPU)
    kept = []
    for num in (8, 1, 5, 8, 3):
        feed = {"z": latents(list(range(num)), 6), "label": np.arange(num) % 3}
        images = fixed(feed)
        kept.append((images, images.copy()))
        assert (images == reference(feed, alone=True)).all()
    assert all((images == copy).all() for images, copy in kept)  # no run writes into another's


def test_what_the_providers_are_told(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    compute = Compute(device="cuda:1", tf32=True, tensorrt_cache=tmp_path)
    assert cuda_options(compute)["device_id"] == "1"
    assert cuda_options(compute)["use_tf32"] == "1"
    told = tensorrt_options(make_bundle(num_classes=3).manifest, 8, compute)
    assert told["trt_profile_opt_shapes"] == "z:8x6,label:8"
    assert told["trt_engine_cache_path"] == str(tmp_path)


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="--device is cuda, but"):
        choose_device("cuda")
    assert choose_device("auto") == ("cpu", 1)


def test_a_server_asked_for_cuda_without_one_says_so_and_ends(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    server = start_server(tiny_repository, "--device", "cuda", ready=False)
    assert server.process.wait(30) == DeviceError.exit_code
    assert "error: --device is cuda, but" in server.log.read_text()
