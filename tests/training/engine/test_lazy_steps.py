"""Lazy penalties in a step of their own, against StyleGAN2's appendix written out with torch."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from models.networks import Style
from training.config.training import TrainingConfig, completed, to_builtins
from training.data import Batches, DataConfig, ImageSet
from training.engine.checkpoint import Checkpoints, restore
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import ConfigError
from training.optim.optimizers import OptimizerConfig, with_lazy_steps
from training.optim.schedules import Schedule
from training.recipes.recipe import terms

CPU = torch.device("cpu")
NETWORK = Style(z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=4, mbstd_group=2)
ADAM = OptimizerConfig(lr=2e-3, betas=(0.5, 0.99))
GAMMA, LENGTH, K_D, K_G = 3.0, 2.0, 4, 2
CONFIG = TrainingConfig(
    recipe="style",
    data=DataConfig(resolution=8, channels=1, conditional=False),
    network=NETWORK,
    regularizers=terms(f"r1={GAMMA}/{K_D}", f"path-length={LENGTH}/{K_G}"),
    optim_G=ADAM,
    optim_D=ADAM,
    lazy_steps=True,
    fresh_batch_G=True,
    batch_size=4,
    total_kimg=1.0,
    tick_kimg=1.0,
)


def start(config: TrainingConfig) -> Stepper:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 1, 8, 8), generator=draws, dtype=torch.uint8)
    data = ImageSet("noise", images, None, None, "0" * 64, ())
    state = State.fresh(config, data.shape, CPU)
    return Stepper(config, state, Batches(data, batch_size=config.batch_size, seed=0))


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_the_rates_are_those_of_the_appendix() -> None:
    lr, betas = with_lazy_steps(2e-3, (0.0, 0.99), 16)
    assert lr == pytest.approx(0.0018823529411764706, rel=1e-12)
    assert betas == pytest.approx((0.0, 0.9905854573074332), rel=1e-12)


class Reference:
    """StyleGAN2's loop for one player: the loss without the penalty, then the penalty alone."""

    def __init__(self, network: nn.Module, interval: int) -> None:
        self.network = network
        c = interval / (interval + 1)
        betas = (ADAM.betas[0] ** c, ADAM.betas[1] ** c)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=ADAM.lr * c, betas=betas)

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def test_five_rounds_are_the_reference_loop() -> None:
    stepper = start(CONFIG)
    state = stepper.state
    D = Reference(copy.deepcopy(state.D.network), K_D)
    G = Reference(copy.deepcopy(state.G.network), K_G)
    for index in range(5):
        (batch,) = (b.micro_batches[0].batch for b in stepper.batches_D())
        (round_G,) = stepper._batches.of_G(state)
        batch_G, game = round_G.micro_batches[0].batch, stepper._game
        fake_img = game.generate(G.network, batch).detach()
        real, fake = D.network(batch.real_img, None), D.network(fake_img, None)
        D.step(softplus(-real).mean() + softplus(fake).mean())
        if index % K_D == 0:
            img = batch.real_img.clone().requires_grad_()
            (grad,) = torch.autograd.grad(D.network(img, None).sum(), img, create_graph=True)
            D.step(K_D * GAMMA / 2 * grad.square().sum([1, 2, 3]).mean())
        G.step(softplus(-D.network(game.generate(G.network, batch_G), None)).mean())
        if index % K_G == 0:
            lazy = stepper._batches.afresh(round_G, "G").micro_batches[0].batch
            losses = game.losses("G", G.network, D.network, lazy, part="lazy")
            assert list(losses.terms) == ["path-length"]
            G.step(losses.total)
        stepper.step()
        for ours, theirs in ((state.D, D), (state.G, G)):
            for a, b in zip(ours.parameters, theirs.network.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-6)


def test_what_a_round_computes() -> None:
    stepper = start(CONFIG)
    seen: list[tuple[str, ...]] = []
    add = stepper.meters.add
    stepper.meters.add = lambda names, values: (seen.append(names), add(names, values))[1]  # type: ignore[method-assign]
    for _ in range(2):
        stepper.step()
    losses = [[name for name in names if name.startswith("loss_")] for names in seen]
    assert losses == [
        ["loss_D.adversarial"],
        ["loss_D.r1"],
        ["loss_G.adversarial"],
        ["loss_G.path-length"],
        ["loss_D.adversarial"],
        ["loss_G.adversarial"],
    ]
    # The watchdog's norms are of the objective's steps; D is not run for a path length.
    assert [names[-1] for names in seen[:2]] == ["gradient_D", "gradient_D.lazy"]
    assert not any(name.startswith("scores") for name in seen[1])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_goes_on_as_if_nothing_had_been(tmp_path: Any, accumulate: int) -> None:
    schedules = (Schedule(target="optim_D.lr", end=1e-3, kimg=0.02),)
    config = replace(CONFIG, accumulate=accumulate, schedules=schedules)
    whole = start(config)
    for _ in range(5):
        whole.step()
    first = start(config)
    for _ in range(3):
        first.step()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(first.state, config, "f")
    second = start(config)
    restore(checkpoints.latest(), second.state, config, "f")
    for _ in range(2):
        second.step()
    for a, b in zip(whole.state.parameters(), second.state.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update": "simultaneous", "fresh_batch_G": False}, "has one step of each a round"),
        ({"unrolled_steps": 1}, "unrolled_steps=1 are of D's whole loss"),
        (
            {"regularizers": terms("r1=1/4", "r2=1/8")},
            "lazy_steps is '4 and 8', allowed: one interval for D",
        ),
    ],
)
def test_what_has_no_lazy_steps(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **options)


def test_a_configuration_of_an_earlier_release_adds_penalties_to_their_step() -> None:
    values = to_builtins(CONFIG)
    del values["lazy_steps"]
    assert completed(values)["lazy_steps"] is False
