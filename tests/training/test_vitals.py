"""What the watchdog reads, and that it catches failures planted in the code that trains."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.command import parse
from training.config import TrainingConfig
from training.data import Batches, ImageSet, load
from training.loop import Hooks, fit
from training.objectives import OBJECTIVES
from training.stability.signs import Alarm
from training.stability.vitals import Copies, judged, nearest_other, small, spread, swing
from training.stability.watchdog import Watchdog
from training.state import State
from training.stepper import Stepper

CPU = torch.device("cpu")
MLP = "article --data.dataset digits --data.resolution 8 --network.hidden 64 --batch-size 32"


def config(words: str) -> TrainingConfig:
    return parse([*MLP.split(), "--tick-kimg", "1", *words.split()]).config


def play(
    game: TrainingConfig, images: ImageSet, plant: Callable[[State], None] = lambda state: None
) -> list[Alarm]:
    """Every alarm of a training. plant: done to it before the first step."""
    state = State.fresh(game, images.shape, CPU)
    plant(state)
    deal = Batches(images, batch_size=game.batch_size, seed=game.seed)
    stepper, watchdog = Stepper(game, state, deal), Watchdog(game, images)
    found: list[Alarm] = []

    def tick(number: int, state: State, means: dict[str, float]) -> None:
        watchdog.read(state, means, stepper.meters)
        found.extend(watchdog.alarms(state))

    def quiet(*given: Any) -> bool:
        return False

    hooks = Hooks(
        should_stop=quiet,
        should_report=quiet,
        report=lambda cur_nimg, means: None,
        tick=tick,
        last_good=lambda: "none",
    )
    fit(stepper, hooks)
    return found


def failures(alarms: list[Alarm]) -> set[str]:
    return {alarm.failure for alarm in alarms}


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load(config("--total-kimg 1").data)


def few(digits: ImageSet, num: int) -> ImageSet:
    """The first images, each as often as it takes to fill 512."""
    return replace(digits, images=digits.images[:num].repeat(512 // num, 1, 1, 1))


def test_a_healthy_training_raises_no_alarm(digits: ImageSet) -> None:
    game = config("--total-kimg 12 --regularizers r1=1 --optim-G.lr 1e-3 --optim-D.lr 1e-3")
    assert play(game, digits) == []


def test_a_saturated_d_is_caught(digits: ImageSet) -> None:
    game = config("--total-kimg 9 --optim-D.lr 2e-2 --optim-G.lr 1e-6")
    assert "saturation" in failures(play(game, digits))


def test_the_articles_equation_vanishes_where_d_wins(digits: ImageSet) -> None:
    game = config("--total-kimg 4 --objective minimax --optim-D.lr 2e-2 --optim-G.lr 1e-6")
    assert "vanishing" in failures(play(game, digits))


def test_a_frozen_g_is_caught(digits: ImageSet) -> None:
    (alarm, *_) = play(config("--total-kimg 3 --optim-G.lr 1e-30"), digits)
    assert (alarm.failure, alarm.value) == ("vanishing", 0.0)


def test_a_g_of_one_image_is_caught(digits: ImageSet) -> None:
    def plant(state: State) -> None:
        first = next(
            module for module in state.G.network.modules() if isinstance(module, nn.Linear)
        )
        with torch.no_grad():
            first.weight.zero_()

        def no_gradient(module: nn.Module, given: Any) -> tuple[Any, ...]:
            return (torch.zeros_like(given[0]), *given[1:])

        first.register_forward_pre_hook(no_gradient)

    assert "collapse" in failures(play(config("--total-kimg 9"), digits, plant))


def test_duplicated_data_is_memorised_and_caught(digits: ImageSet) -> None:
    game = config("--total-kimg 20 --optim-G.lr 2e-3 --optim-D.lr 1e-3 --regularizers r1=1")
    assert "memorisation" in failures(play(game, few(digits, 4)))


def test_a_d_that_knows_its_data_by_heart_is_caught(digits: ImageSet) -> None:
    game = config("--total-kimg 12 --optim-D.lr 5e-3 --optim-G.lr 1e-6")
    assert "overfitting" in failures(play(game, few(digits, 64)))


def test_looking_changes_nothing_that_trains(digits: ImageSet) -> None:
    """Batch norm's running means and spectral norm's vectors included."""
    words = "--network dcgan --network.ngf 4 --network.ndf 4 --network.d-norm batch"
    words = f"digits --data.resolution 16 {words} --init-D family --regularizers spectral=1"
    game = parse(words.split()).config
    images = load(game.data)
    state = State.fresh(game, images.shape, CPU)
    deal = Batches(images, batch_size=game.batch_size, seed=0)
    stepper, watchdog = Stepper(game, state, deal), Watchdog(game, images)
    stepper.step()
    before = [
        value.clone()
        for network in (state.G.network, state.D.network)
        for value in network.state_dict().values()
    ]
    first = watchdog.read(state, stepper.meters.means(), stepper.meters)
    second = watchdog.read(state, stepper.meters.means(), stepper.meters)
    after = [
        value
        for network in (state.G.network, state.D.network)
        for value in network.state_dict().values()
    ]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert first == second
    assert state.history == [first, second]


def wave(num: int, period: float, noise: float = 0.0) -> list[float]:
    rng = np.random.default_rng(0)
    return list(1 + np.sin(np.arange(num) * 2 * np.pi / period) + noise * rng.normal(size=num))


def test_a_wave_swings_and_noise_does_not() -> None:
    assert swing(wave(512, 64)) > 0.95
    assert swing(wave(512, 64, noise=0.5)) > 0.8
    assert swing([value + 0.01 * index for index, value in enumerate(wave(512, 64))]) > 0.9
    rng = np.random.default_rng(1)
    assert max(swing(list(1 + rng.normal(size=512))) for _ in range(200)) < 0.5
    assert swing(wave(512, 4)) < 0.1  # from one step to the next: no cycle of the game
    assert swing(wave(512, 400)) < 0.5  # one and a bit
    assert swing([1 + 0.02 * value for value in wave(512, 64)]) == 0  # too faint to matter
    assert swing([0.7] * 200) == 0


def test_players_that_circle_swing_and_damped_ones_do_not() -> None:
    """The Dirac-GAN's equations, and with R1: theta' = -psi c, psi' = theta c - gamma psi."""
    series: dict[float, list[float]] = {}
    for gamma in (0.0, 1.0):
        theta, psi, losses = 1.0, 0.0, []
        for _ in range(600):
            psi += 0.2 * (-theta / (1 + np.exp(-psi * theta)) - gamma * psi)
            theta += 0.2 * psi / (1 + np.exp(-psi * theta))
            losses.append(float(-np.log1p(np.exp(psi * theta))))
        series[gamma] = losses[88:]
    assert swing(series[0.0]) > 0.8
    assert swing(series[1.0]) == 0


def test_what_logits_say() -> None:
    real, fake = torch.tensor([5.0, 1.0, 5.0, -1.0]), torch.tensor([-5.0, -1.0, -1.0, 1.0])
    found = judged(OBJECTIVES["minimax"], real.double(), fake.double())
    assert found["margin"] == pytest.approx(4.0)
    assert found["logits"] == pytest.approx(2.5)
    assert found["sure"] == pytest.approx(3 / 8)
    assert found["r_t"] == 0.5
    assert found["slope"] == pytest.approx(fake.sigmoid().mean().item())
    critic = judged(OBJECTIVES["wasserstein"], real, fake)
    assert set(critic) == {"margin", "logits", "slope"}
    assert critic["slope"] == 1
    assert judged(OBJECTIVES["relativistic"], real, fake)["sure"] == 0.5


def test_spread_twins_and_copies(digits: ImageSet) -> None:
    img = digits.images[:64].float() / 127.5 - 1
    assert spread(torch.zeros(3, 1, 4, 4)) == 0
    assert spread(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])) == pytest.approx(10 / 3)
    twice = torch.cat([img[:5], img[:5]])
    assert nearest_other(small(twice, 16)).max() == 0
    assert nearest_other(small(img, 16)).min() > 0
    copies = Copies(digits)
    assert copies.share(img) == 1
    generator = torch.Generator().manual_seed(0)
    assert copies.share(img + torch.randn(img.shape, generator=generator)) == 0
    assert Copies(replace(digits, images=digits.images[:1].repeat(9, 1, 1, 1))).share(img) is None


def test_points_have_no_side() -> None:
    points: Tensor = torch.randn(5, 2)
    assert torch.equal(small(points, 8), points)
