import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from training.command import parse
from training.compute import ComputeConfig
from training.config import TrainingConfig
from training.data import Batches, load
from training.errors import ConfigError
from training.play import parameters_of
from training.state import State
from training.stepper import Stepper

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
CPU = torch.device("cpu")


def config(*words: str) -> TrainingConfig:
    return parse(["digits", *TINY, *words]).config


def play(config: TrainingConfig, num: int) -> tuple[State, dict[str, float]]:
    images = load(config.data)
    state = State.fresh(config, images.shape, CPU)
    stepper = Stepper(
        config, state, Batches(images, batch_size=config.batch_size, seed=config.seed)
    )
    for _ in range(num):
        stepper.step()
    assert stepper.trip() is None
    return state, stepper.meters.means()


def test_fp16_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"compute\.precision is 'fp16'.*65,504.*bf16"):
        ComputeConfig(precision="fp16")


def test_a_precision_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="allowed: fp32, tf32, bf16"):
        ComputeConfig(precision="int8")


def test_bf16_trains_with_float32_weights_and_losses() -> None:
    """Near to float32's losses, and not the same: the networks did run in bfloat16."""
    state, means = play(config("--compute.precision", "bf16"), 4)
    _, full = play(config(), 4)
    assert all(parameter.dtype == torch.float32 for parameter in state.parameters())
    for name, value in full.items():
        assert means[name] == pytest.approx(value, rel=0.1), name
    assert means["loss_D.adversarial"] != full["loss_D.adversarial"]


def test_bf16_is_what_the_layers_see() -> None:
    network = nn.Sequential(nn.Linear(2, 3))
    player = ComputeConfig(precision="bf16").player(network, twice=True)
    assert player(torch.zeros(2, 2)).dtype == torch.bfloat16
    assert len(parameters_of(player)) == len(list(network.parameters()))


def test_channels_last_is_the_same_game() -> None:
    state, means = play(config("--compute.channels-last"), 3)
    _, plain = play(config(), 3)
    (convolution, *_) = [m for m in state.D.network.modules() if isinstance(m, nn.Conv2d)][1:]
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in plain.items():
        assert means[name] == pytest.approx(value, rel=1e-3), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's own tracing
def test_compiled_networks_play_the_same_game() -> None:
    words = ["article", "--data.dataset", "digits", "--data.resolution", "8", "--network.dropout"]
    words += ["0", "--network.hidden", "8", "--batch-size", "16"]
    _, compiled = play(parse([*words, "--compute.compile"]).config, 2)
    _, plain = play(parse(words).config, 2)
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
    deal = Batches(images, batch_size=given.batch_size, seed=given.seed)
    Stepper(given, state, deal).step()
    assert len(seen) >= 4  # D's move, two steps ahead, G's
    assert set(seen) == {torch.bfloat16}


FAULTS = """
import resource, sys, torch
from training.compute import ComputeConfig
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
    assert ours < 6 * pages
