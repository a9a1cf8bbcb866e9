"""What the watchdog reads, and that it catches failures planted in the code that trains."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.cli.command import parse
from training.config.training import TrainingConfig
from training.data import Batches, DataConfig, ImageSet, load
from training.engine.loop import Hooks, fit
from training.engine.state import State
from training.engine.stepper import Stepper
from training.game.objectives import OBJECTIVES
from training.watchdog import diagnostics
from training.watchdog.detectors import Alarm
from training.watchdog.diagnostics import (
    CopySearch,
    DiagnosticsReader,
    downsampled,
    logit_diagnostics,
    mean_distance,
    nearest_other,
    periodicity,
)
from training.watchdog.watchdog import Watchdog

CPU = torch.device("cpu")
MLP = "article --data.dataset digits --data.resolution 8 --network.hidden 64 --batch-size 32"


def config(words: str) -> TrainingConfig:
    return parse([*MLP.split(), "--tick-kimg", "1", *words.split()]).config


def alarms_of(
    game: TrainingConfig, images: ImageSet, plant: Callable[[State], None] = lambda state: None
) -> list[Alarm]:
    """Every alarm of a training. plant: done to it before the first step."""
    state = State.fresh(game, images.shape, CPU)
    plant(state)
    batches = Batches(images, batch_size=game.batch_size, seed=game.seed)
    stepper, watchdog = Stepper(game, state, batches), Watchdog(game, images, state)
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
    assert alarms_of(game, digits) == []


def test_a_saturated_d_is_caught(digits: ImageSet) -> None:
    game = config("--total-kimg 9 --optim-D.lr 2e-2 --optim-G.lr 1e-6")
    assert "saturation" in failures(alarms_of(game, digits))


def test_the_articles_equation_vanishes_where_d_wins(digits: ImageSet) -> None:
    game = config("--total-kimg 4 --objective minimax --optim-D.lr 2e-2 --optim-G.lr 1e-6")
    assert "vanishing" in failures(alarms_of(game, digits))


def test_a_frozen_g_is_caught(digits: ImageSet) -> None:
    (alarm, *_) = alarms_of(config("--total-kimg 3 --optim-G.lr 1e-30"), digits)
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

    assert "collapse" in failures(alarms_of(config("--total-kimg 9"), digits, plant))


def test_duplicated_data_is_memorised_and_caught(digits: ImageSet) -> None:
    game = config("--total-kimg 20 --optim-G.lr 2e-3 --optim-D.lr 1e-3 --regularizers r1=1")
    assert "memorisation" in failures(alarms_of(game, few(digits, 4)))


def test_a_d_that_knows_its_data_by_heart_is_caught(digits: ImageSet) -> None:
    game = config("--total-kimg 12 --optim-D.lr 5e-3 --optim-G.lr 1e-6")
    assert "overfitting" in failures(alarms_of(game, few(digits, 64)))


def test_a_g_that_explodes_before_the_first_tick_is_caught(digits: ImageSet) -> None:
    alarms = alarms_of(config("--total-kimg 1 --optim-G.lr 1e4"), digits)
    assert [(alarm.failure, alarm.player) for alarm in alarms] == [("divergence", "G")]


def test_looking_changes_nothing_that_trains(digits: ImageSet) -> None:
    """Batch norm's running means and spectral norm's vectors included."""
    words = "--network dcgan --network.ngf 4 --network.ndf 4 --network.d-norm batch"
    words = f"digits --data.resolution 16 {words} --init-D family --regularizers spectral=1"
    game = parse(words.split()).config
    images = load(game.data)
    state = State.fresh(game, images.shape, CPU)
    batches = Batches(images, batch_size=game.batch_size, seed=0)
    stepper, watchdog = Stepper(game, state, batches), Watchdog(game, images, state)
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
    assert periodicity(wave(512, 64)) > 0.95
    assert periodicity(wave(512, 64, noise=0.5)) > 0.8
    assert periodicity([value + 0.01 * index for index, value in enumerate(wave(512, 64))]) > 0.9
    rng = np.random.default_rng(1)
    assert max(periodicity(list(1 + rng.normal(size=512))) for _ in range(200)) < 0.5
    assert periodicity(wave(512, 4)) < 0.1  # from one step to the next: no cycle of the game
    assert periodicity(wave(512, 400)) < 0.5  # one and a bit
    assert periodicity([1 + 0.02 * value for value in wave(512, 64)]) == 0  # too faint to matter
    assert periodicity([0.7] * 200) == 0


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
    assert periodicity(series[0.0]) > 0.8
    assert periodicity(series[1.0]) == 0


def test_what_logits_say() -> None:
    real, fake = torch.tensor([5.0, 1.0, 5.0, -1.0]), torch.tensor([-5.0, -1.0, -1.0, 1.0])
    found = logit_diagnostics(OBJECTIVES["minimax"], real.double(), fake.double())
    assert found["margin"] == pytest.approx(4.0)
    assert found["logits"] == pytest.approx(2.5)
    assert found["sure"] == pytest.approx(3 / 8)
    assert found["r_t"] == 0.5
    assert found["slope"] == pytest.approx(fake.sigmoid().mean().item())
    critic = logit_diagnostics(OBJECTIVES["wasserstein"], real, fake)
    assert critic["logit_spread"] == pytest.approx(torch.cat([real, fake]).std(correction=0).item())
    assert set(critic) == {"margin", "logits", "logit_spread", "slope"}
    assert critic["slope"] == 1
    assert logit_diagnostics(OBJECTIVES["relativistic"], real, fake)["sure"] == 0.5


def test_spread_twins_and_copies(digits: ImageSet) -> None:
    img = digits.images[:64].float() / 127.5 - 1
    assert mean_distance(torch.zeros(3, 1, 4, 4)) == 0
    assert mean_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])) == pytest.approx(
        10 / 3
    )
    twice = torch.cat([img[:5], img[:5]])
    assert nearest_other(downsampled(twice, 16)).max() == 0
    assert nearest_other(downsampled(img, 16)).min() > 0
    copies = CopySearch(digits)
    assert copies.share(img) == 1
    generator = torch.Generator().manual_seed(0)
    assert copies.share(img + torch.randn(img.shape, generator=generator)) == 0
    assert (
        CopySearch(replace(digits, images=digits.images[:1].repeat(9, 1, 1, 1))).share(img) is None
    )


def test_large_images_are_searched_a_few_at_a_time(
    digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CopySearch(digits)
    monkeypatch.setattr(diagnostics, "_CHUNK_VALUES", 100 * digits.images[0].numel())
    assert torch.equal(CopySearch(digits)._rows, whole._rows)


def test_held_out_images_stand_where_the_players_do() -> None:
    image_set = load(DataConfig(resolution=8))
    img, label = diagnostics._first_images(image_set, 4, torch.device("meta"))
    assert label is not None
    assert img.device.type == label.device.type == "meta"


def test_points_have_no_side() -> None:
    points: Tensor = torch.randn(5, 2)
    assert torch.equal(downsampled(points, 8), points)


class KnowsByHeart(nn.Module):
    """A D that says 1 of the images that it has seen, and -1 of all others."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._seen = {image.numpy().tobytes() for image in images}

    def forward(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        pixels = ((img + 1) * 127.5).round().byte()
        return torch.tensor([1.0 if i.numpy().tobytes() in self._seen else -1.0 for i in pixels])


def test_the_held_out_gap_tells_what_d_knows_by_heart() -> None:
    game = config("--total-kimg 1 --data.held-out 0.3")
    images = load(game.data)
    assert images.held_out is not None
    state = State.fresh(game, images.shape, CPU)
    reader = DiagnosticsReader(game, images)
    means = {"gradient_G": 1.0, "gradient_D": 1.0}
    both = torch.cat([images.images, images.held_out.images])
    for seen, gap in ((images.images, 1.0), (both, 0.0)):
        state.D.network = KnowsByHeart(seen)
        assert reader.read(state, means, {})["held_out_gap"] == pytest.approx(gap)
    without = config("--total-kimg 1")
    plain = DiagnosticsReader(without, load(without.data))
    assert "held_out_gap" not in plain.read(state, means, {})
