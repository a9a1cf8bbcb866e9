"""Trainings that the watchdog is measured on: failures that were planted, and healthy ones."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from training.config.training import TrainingConfig
from training.data import Batches, ImageSet
from training.engine.loop import Hooks, fit
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import NonFiniteError
from training.watchdog.detectors import DETECTORS, Alarm, Baseline
from training.watchdog.watchdog import Watchdog, alarm_of

MLP = "article --data.dataset digits --data.resolution 28 --tick-kimg 1"
DCGAN = (
    "digits --data.resolution 16 --network.ngf 8 --network.ndf 8 --network.z-dim 32 --tick-kimg 1"
)


@dataclass
class Watched:
    """A training with the watchdog beside it."""

    config: TrainingConfig
    images: ImageSet
    plant: Callable[[State], None] = lambda state: None
    players: Callable[[], tuple[nn.Module, nn.Module]] | None = None
    alarms: list[Alarm] = field(default_factory=list)
    looking_s: float = 0.0

    def __post_init__(self) -> None:
        config, images = self.config, self.images
        device = images.images.device
        if self.players is None:
            self.state = State.fresh(config, images.shape, device)
        else:
            self.state = State.of(config, *self.players(), device)
        self.plant(self.state)
        batches = Batches(images, batch_size=config.batch_size, seed=config.seed)
        self.stepper = Stepper(config, self.state, batches)
        self.watchdog = Watchdog(config, images, self.state) if config.watchdog.is_on else None

    def play(self, total_kimg: float | None = None) -> "Watched":
        """Plays to the end, or to total_kimg."""
        if total_kimg is not None:
            self.stepper.config = replace(self.config, total_kimg=total_kimg)
        hooks = Hooks(
            should_stop=lambda: False,
            should_report=lambda: False,
            report=lambda cur_nimg, means: None,
            tick=self._tick,
            last_good=lambda: "none",
        )
        try:
            fit(self.stepper, hooks)
        except NonFiniteError as error:
            self.alarms.append(alarm_of(error.non_finite, self.state))
        return self

    def _tick(self, tick: int, state: State, means: dict[str, float]) -> None:
        start = time.perf_counter()
        if self.watchdog is not None:
            self.watchdog.read(state, means, self.stepper.meters)
            self.alarms += [alarm for alarm in self.watchdog.alarms(state) if alarm.is_new]
        self.looking_s += time.perf_counter() - start


class Point(nn.Module):
    """G: theta, whatever the latent."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.theta.expand(len(z), 1, 1, 1)


class Slope(nn.Module):
    """D: psi x."""

    def __init__(self) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.zeros(()))

    def forward(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        return self.psi * img.flatten(1).sum(1)


def few(images: ImageSet, num: int) -> ImageSet:
    """The first images, each as often as it takes to fill 512."""
    return replace(images, images=images.images[:num].repeat(512 // num, 1, 1, 1))


def one_image(state: State) -> None:
    """G's first layer sees no latent any more."""
    first = next(module for module in state.G.network.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        first.weight.zero_()

    def no_latent(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (torch.zeros_like(given[0]), *given[1:])

    first.register_forward_pre_hook(no_latent)


def nan(state: State) -> None:
    """One weight of D."""
    with torch.no_grad():
        state.D.parameters[0].view(-1)[0] = torch.nan


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A failure that was put there on purpose."""

    name: str
    """What was put there, and how."""
    words: str
    """Of the command line."""
    failure: str
    """The detector that must fire."""
    images: Callable[[ImageSet], ImageSet] = lambda images: images
    plant: Callable[[State], None] = lambda state: None
    players: Callable[[], tuple[nn.Module, nn.Module]] | None = None


PLANTED = (
    Planted(
        name="saturated D: D's lr a hundred times the recipe's, G's a hundredth",
        words=f"{MLP} --total-kimg 20 --optim-D.lr 2e-2 --optim-G.lr 2e-6",
        failure="saturation",
    ),
    Planted(
        name="the article's own equation against such a D",
        words=f"{MLP} --total-kimg 20 --objective minimax --optim-D.lr 2e-2 --optim-G.lr 2e-6",
        failure="vanishing",
    ),
    Planted(
        name="frozen G", words=f"{MLP} --total-kimg 20 --optim-G.lr 1e-30", failure="vanishing"
    ),
    Planted(
        name="G of one image",
        words=f"{MLP} --total-kimg 20",
        failure="collapse",
        plant=one_image,
    ),
    Planted(name="NaN in D", words=f"{MLP} --total-kimg 20", failure="divergence", plant=nan),
    Planted(
        name="exploding lr of D",
        words=f"{DCGAN} --total-kimg 10 --optim-D.lr 1",
        failure="divergence",
    ),
    Planted(
        name="exploding lr of G",
        words=f"{DCGAN} --total-kimg 10 --optim-G.lr 1e4",
        failure="divergence",
    ),
    Planted(
        name="duplicated data: 4 images 128 times",
        words=f"{MLP} --total-kimg 60 --optim-G.lr 2e-3 --optim-D.lr 1e-3 --regularizers r1=1",
        failure="memorisation",
        images=lambda images: few(images, 4),
    ),
    Planted(
        name="64 images for a D that learns fast",
        words=f"{MLP} --total-kimg 20 --optim-D.lr 5e-3 --optim-G.lr 2e-6",
        failure="overfitting",
        images=lambda images: few(images, 64),
    ),
    Planted(
        name="players that circle: the Dirac-GAN, G a point and D a slope, undamped",
        words=f"{MLP} --total-kimg 60 --tick-kimg 5 --objective minimax --batch-size 8 "
        "--optim-G.method sgd --optim-D.method sgd --optim-G.betas 0 0 --optim-D.betas 0 0 "
        "--optim-G.lr 0.1 --optim-D.lr 0.1 --data.resolution 1",
        images=lambda images: replace(images, images=torch.full_like(images.images, 127)),
        players=lambda: (Point(), Slope()),
        failure="oscillation",
    ),
)


HEALTHY = {
    "digits": f"{DCGAN} --total-kimg 30",
    "digits-long-ticks": f"{DCGAN} --total-kimg 60 --tick-kimg 5",
    "article-r1": f"{MLP} --total-kimg 60 --tick-kimg 3 --optim-G.lr 1e-3 --optim-D.lr 1e-3 "
    "--regularizers r1=1",
}


def extremes(watched: Watched) -> Iterator[tuple[str, float]]:
    """The figures of each detector at every tick after its warm-up."""
    baseline, total = Baseline(), watched.config.total_nimg
    for diagnostics in watched.state.history:
        for failure, detector in DETECTORS.items():
            start = max(detector.warm_up * total, detector.after_nimg)
            value = detector.figure(diagnostics, baseline)
            if value is not None and diagnostics["cur_nimg"] > start:
                yield failure, value
        baseline.add(diagnostics)
