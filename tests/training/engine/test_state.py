import copy

import pytest
import torch
from torch import nn

from models.networks import ImageShape
from training.cli.command import parse
from training.engine.averages import Average
from training.engine.state import PlayerState, State
from training.optim.optimizers import OptimizerConfig
from training.optim.schedules import Timetable

CPU = torch.device("cpu")
SHAPE = ImageShape(resolution=16, channels=1, num_classes=2)


def test_adam_moves_as_the_paper_says() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    player = PlayerState(network, OptimizerConfig(lr=0.1, betas=(0.5, 0.9), eps=1e-8))
    for expected in (1.9, 1.8):  # a constant gradient moves by lr, whatever its size
        player.move((torch.full((1, 1), 30.0),), torch.zeros(()))
        assert network.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_raised_flag_keeps_weights_and_moments() -> None:
    network = nn.Linear(1, 1, bias=False)
    player = PlayerState(network, OptimizerConfig())
    player.move((torch.ones(1, 1),), torch.zeros(()))
    before = network.weight.item()
    moments = {
        name: value.clone() for name, value in player.optimizer.state[network.weight].items()
    }
    player.move((torch.full((1, 1), torch.nan),), torch.ones(()))
    assert network.weight.item() == before
    for name, value in player.optimizer.state[network.weight].items():
        assert torch.equal(value, moments[name]), name


def test_a_gradient_in_another_layout_moves_the_same_weights() -> None:
    """A double backward through convolutions gives channels-last gradients now and then."""
    gradient = torch.randn(4, 3, 2, 2)
    strange = gradient.to(memory_format=torch.channels_last)
    assert strange.stride() != gradient.stride()
    ends = []
    for given in (gradient, strange):
        torch.manual_seed(0)
        network = nn.Conv2d(3, 4, 2, bias=False)
        player = PlayerState(network, OptimizerConfig(lr=0.1))
        player.move((given,), torch.zeros(()))
        ends.append(network.weight.detach().clone())
    assert torch.equal(*ends)


def test_layers_that_are_not_in_use_take_no_step() -> None:
    """A step of 0 would shrink Adam's second moment: the first true one would be far too long."""
    network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    for method in ("adam", "optimistic-adam"):
        player = PlayerState(network, OptimizerConfig(method=method, lr=0.1, betas=(0.0, 0.99)))
        later = [parameter.detach().clone() for parameter in network[1].parameters()]
        for _ in range(3):
            gradients = player.gradients(network[0](torch.ones(1, 1)).sum())
            assert [gradient is None for gradient in gradients] == [False, False, True, True]
            player.move(gradients, torch.zeros(()))
        for before, after in zip(later, network[1].parameters(), strict=True):
            assert torch.equal(before, after)
        player.move(player.gradients(network(torch.ones(1, 1)).sum()), torch.zeros(()))
        scale = 2 if method == "optimistic-adam" else 1
        moved = (network[1].bias - later[1]).abs().item()
        assert moved == pytest.approx(0.1 * scale, rel=1e-4)


def test_the_average_loses_half_in_its_half_life() -> None:
    config = parse(["--ema-kimg", "0.64", "--ema-rampup", "0", "--batch-size", "64"]).config
    G, G_ema = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    nn.init.constant_(G.weight, 1.0)
    nn.init.constant_(G_ema.weight, 0.0)
    G.running_mean = torch.ones(1)
    average = Average(G, G_ema, config, Timetable())
    for step in range(1, 11):
        average.update(step * 64)
    assert G_ema.weight.item() == pytest.approx(0.5)
    assert G_ema.running_mean is not None
    assert G_ema.running_mean.item() == 1  # statistics are copied, as the references do


def test_a_uniform_average_has_uniform_averages_of_the_statistics() -> None:
    config = parse(["--average", "uniform", "--batch-size", "64"]).config
    G, G_ema = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    average = Average(G, G_ema, config, Timetable())
    assert G.running_mean is not None
    for step in range(1, 5):
        G.running_mean.fill_(step)
        average.update(step * 64)
    assert G_ema.running_mean is not None
    assert G_ema.running_mean.item() == pytest.approx(2.5)


def test_the_half_life_grows_with_the_images_seen() -> None:
    config = parse(["--ema-kimg", "10", "--ema-rampup", "0.5", "--batch-size", "64"]).config
    average = Average(nn.Linear(1, 1), nn.Linear(1, 1), config, Timetable())
    assert average.decay(128) == pytest.approx(0.5)
    assert average.decay(10**6) == pytest.approx(0.5 ** (64 / 10_000))


def test_without_half_life_the_average_is_the_last_iterate() -> None:
    config = parse(["--ema-kimg", "0"]).config
    G, G_ema = nn.Linear(1, 1), nn.Linear(1, 1)
    Average(G, G_ema, config, Timetable()).update(10**6)
    assert torch.equal(G.weight, G_ema.weight)


def test_fresh_states_follow_the_seed() -> None:
    words = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4"]
    states = [
        State.fresh(parse([*words, "--seed", seed]).config, SHAPE, CPU) for seed in ("1", "1", "2")
    ]
    first, same, other = (state.D.network.state_dict()["layers.0.weight"] for state in states)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    for name, value in states[0].G.network.state_dict().items():
        assert torch.equal(value, states[0].G_ema.state_dict()[name])
    assert not states[0].G_ema.training


@pytest.mark.parametrize("method", ["adam", "optimistic-adam", "rmsprop", "sgd"])
@pytest.mark.parametrize("to_last", [False, True])
def test_moments_of_another_layout_go_on_as_they_were(method: str, to_last: bool) -> None:
    """A run of the CPU is resumed on a GPU, with channels last: fused kernels ignore strides."""
    betas = (0.5, 0.0 if method == "sgd" else 0.9)
    optim = OptimizerConfig(method=method, lr=0.1, betas=betas)

    def player(channels_last: bool) -> PlayerState:
        torch.manual_seed(0)
        network = nn.Conv2d(3, 4, 2, bias=False)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return PlayerState(network.to(memory_format=layout), optim)

    first, second = player(not to_last), player(to_last)
    gradients = [torch.randn(4, 3, 2, 2) for _ in range(2)]
    first.move((gradients[0],), torch.zeros(()))
    second.network.load_state_dict(first.network.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for each in (first, second):
        each.move((gradients[1],), torch.zeros(()))
    torch.testing.assert_close(first.parameters[0], second.parameters[0], rtol=1e-6, atol=1e-6)
    assert first.parameters[0].stride() != second.parameters[0].stride()
