import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from training.cli.command import parse
from training.config.compute import ComputeConfig
from training.config.training import TrainingConfig
from training.data import Batches, load
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import ConfigError, meaning_of
from training.game.forward import parameters_of

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
CPU = torch.device("cpu")


def config(*words: str) -> TrainingConfig:
    return parse(["digits", *TINY, *words]).config


def trained(config: TrainingConfig, num: int) -> tuple[State, dict[str, float]]:
    images = load(config.data)
    state = State.fresh(config, images.shape, CPU)
    stepper = Stepper(
        config, state, Batches(images, batch_size=config.batch_size, seed=config.seed)
    )
    for _ in range(num):
        stepper.step()
    assert stepper.non_finite() is None
    return state, stepper.meters.means()


def test_fp16_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"compute\.precision is 'fp16'.*65,504.*bf16"):
        ComputeConfig(precision="fp16")


def test_a_precision_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="allowed: fp32, tf32, bf16"):
        ComputeConfig(precision="int8")


def test_bf16_trains_with_float32_weights_and_losses() -> None:
    """Near to float32's losses, and not the same: the networks did run in bfloat16."""
    state, means = trained(config("--compute.precision", "bf16"), 4)
    _, full = trained(config(), 4)
    assert all(parameter.dtype == torch.float32 for parameter in state.parameters())
    for name, value in full.items():
        assert means[name] == pytest.approx(value, rel=0.1), name
    assert means["loss_D.adversarial"] != full["loss_D.adversarial"]


def test_bf16_is_what_the_layers_see() -> None:
    network = nn.Sequential(nn.Linear(2, 3))
    player = ComputeConfig(precision="bf16").player(network, twice=True)
    assert player(torch.zeros(2, 2)).dtype == torch.bfloat16
    assert len(parameters_of(player)) == len(list(network.parameters()))


def test_channels_last_trains_alike() -> None:
    state, means = trained(config("--compute.channels-last"), 3)
    _, plain = trained(config(), 3)
    (convolution, *_) = [m for m in state.D.network.modules() if isinstance(m, nn.Conv2d)][1:]
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in plain.items():
        assert means[name] == pytest.approx(value, rel=1e-3), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's own tracing
def test_compiled_networks_train_alike() -> None:
    words = ["article", "--data.dataset", "digits", "--data.resolution", "8", "--network.dropout"]
    words += ["0", "--network.hidden", "8", "--batch-size", "16"]
    _, compiled = trained(parse([*words, "--compute.compile"]).config, 2)
    _, plain = trained(parse(words).config, 2)
    for name, value in plain.items():
        assert compiled[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_what_is_differentiated_twice_is_not_compiled() -> None:
    network = nn.Linear(1, 1)
    compute = ComputeConfig(compile=True)
    assert compute.player(network, twice=True) is network
    assert compute.player(network, twice=False) is not network


def test_bf16_is_what_an_unrolled_network_sees_too() -> None:
    given = config("--compute.precision", "bf16", "--unrolled-steps", "2", "--regularizers")
    images, seen = load(given.data), []
    state = State.fresh(given, images.shape, CPU)
    state.D.network.layers[0].register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    batches = Batches(images, batch_size=given.batch_size, seed=given.seed)
    Stepper(given, state, batches).step()
    assert len(seen) >= 4  # D's move, two steps ahead, G's
    assert set(seen) == {torch.bfloat16}


FAULTS = """
import resource, sys, torch
from training.config.compute import ComputeConfig
if sys.argv[1:]:
    ComputeConfig().set_up(torch.device("cpu"))
for _ in range(20):
    torch.ones(64, 1024, 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc's malloc")
def test_freed_memory_is_kept_for_the_next_round() -> None:
    """Twenty maps of 256 MiB, one after the other: the kernel gives pages for a few of them."""
    plain, ours = (
        int(subprocess.run([sys.executable, "-c", FAULTS, *words], capture_output=True).stdout)
        for words in ([], ["set up"])
    )
    pages = 64 * 2**20 * 4 // 4096
    assert plain > 19 * pages
    assert ours < 9 * pages


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Stands for torch.cuda: the devices it was told, and whether the card has bfloat16."""
    seen = SimpleNamespace(devices=[], bf16=True)
    monkeypatch.setattr(torch.cuda, "set_device", seen.devices.append)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: seen.bf16 or including_emulation,
    )
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    fills = torch.utils.deterministic.fill_uninitialized_memory
    yield seen
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fills


def test_the_second_gpu_is_the_process_s_own_before_anything_is_made(cuda: SimpleNamespace) -> None:
    ComputeConfig().set_up(torch.device("cuda:1"))
    assert cuda.devices == [torch.device("cuda:1")]
    assert torch.backends.cudnn.benchmark


def test_a_gpu_without_a_number_is_the_one_that_is_current(cuda: SimpleNamespace) -> None:
    """torch.cuda.set_device raises ValueError for it, and --device auto says no more than cuda."""
    ComputeConfig().set_up(torch.device("cuda"))
    assert cuda.devices == []


def test_bfloat16_that_a_card_only_emulates_is_refused(cuda: SimpleNamespace) -> None:
    cuda.bf16 = False
    ComputeConfig(precision="tf32").set_up(torch.device("cuda:0"))
    with pytest.raises(ConfigError, match=r"precision is 'bf16', allowed: fp32, tf32.*emulates"):
        ComputeConfig(precision="bf16").set_up(torch.device("cuda:0"))


def test_deterministic_operations_are_chosen_and_those_that_are_not_are_named(
    cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    ComputeConfig(deterministic=True).set_up(torch.device("cuda:0"))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    state, _ = trained(config("--compute.deterministic"), 1)
    again, _ = trained(config("--compute.deterministic"), 1)
    for a, b in zip(state.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    error = RuntimeError(
        "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but ..."
    )
    meaning = meaning_of(error)
    assert isinstance(meaning, ConfigError)
    assert "adaptive_avg_pool2d_backward_cuda" in str(meaning)
