import pytest
import torch
from torch import nn

from models.networks import ImageShape
from training.averages import Average
from training.command import parse
from training.optimizers import OptimizerConfig
from training.state import Seat, State

CPU = torch.device("cpu")
SHAPE = ImageShape(resolution=16, channels=1, num_classes=2)


def test_adam_moves_as_the_paper_says() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    seat = Seat(network, OptimizerConfig(lr=0.1, betas=(0.5, 0.9), eps=1e-8))
    for expected in (1.9, 1.8):  # a constant gradient moves by lr, whatever its size
        seat.move((torch.full((1, 1), 30.0),), torch.zeros(()))
        assert network.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_raised_flag_keeps_weights_and_moments() -> None:
    network = nn.Linear(1, 1, bias=False)
    seat = Seat(network, OptimizerConfig())
    seat.move((torch.ones(1, 1),), torch.zeros(()))
    before = network.weight.item()
    moments = {name: value.clone() for name, value in seat.optimizer.state[network.weight].items()}
    seat.move((torch.full((1, 1), torch.nan),), torch.ones(()))
    assert network.weight.item() == before
    for name, value in seat.optimizer.state[network.weight].items():
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
        seat = Seat(network, OptimizerConfig(lr=0.1))
        seat.move((given,), torch.zeros(()))
        ends.append(network.weight.detach().clone())
    assert torch.equal(*ends)


def test_layers_that_are_not_in_use_take_no_step() -> None:
    """A step of 0 would shrink Adam's second moment: the first true one would be far too long."""
    network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    for method in ("adam", "optimistic-adam"):
        seat = Seat(network, OptimizerConfig(method=method, lr=0.1, betas=(0.0, 0.99)))
        later = [parameter.detach().clone() for parameter in network[1].parameters()]
        for _ in range(3):
            gradients = seat.gradients(network[0](torch.ones(1, 1)).sum())
            assert [gradient is None for gradient in gradients] == [False, False, True, True]
            seat.move(gradients, torch.zeros(()))
        for before, after in zip(later, network[1].parameters(), strict=True):
            assert torch.equal(before, after)
        seat.move(seat.gradients(network(torch.ones(1, 1)).sum()), torch.zeros(()))
        scale = 2 if method == "optimistic-adam" else 1
        moved = (network[1].bias - later[1]).abs().item()
        assert moved == pytest.approx(0.1 * scale, rel=1e-4)


def test_the_average_loses_half_in_its_half_life() -> None:
    config = parse(["--ema-kimg", "0.64", "--ema-rampup", "0", "--batch-size", "64"]).config
    G, G_ema = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    nn.init.constant_(G.weight, 1.0)
    nn.init.constant_(G_ema.weight, 0.0)
    G.running_mean = torch.ones(1)
    average = Average(G, G_ema, config)
    for step in range(1, 11):
        average.update(step * 64)
    assert G_ema.weight.item() == pytest.approx(0.5)
    assert G_ema.running_mean is not None
    assert G_ema.running_mean.item() == pytest.approx(0.5)


def test_the_half_life_grows_with_the_images_seen() -> None:
    config = parse(["--ema-kimg", "10", "--ema-rampup", "0.5", "--batch-size", "64"]).config
    average = Average(nn.Linear(1, 1), nn.Linear(1, 1), config)
    assert average.decay(128) == pytest.approx(0.5)
    assert average.decay(10**6) == pytest.approx(0.5 ** (64 / 10_000))


def test_without_half_life_the_average_is_the_last_iterate() -> None:
    config = parse(["--ema-kimg", "0"]).config
    G, G_ema = nn.Linear(1, 1), nn.Linear(1, 1)
    Average(G, G_ema, config).update(10**6)
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
