"""What the benchmarks of training share: a game on noise, sides that take turns, figures.

Knows no recipe. Noise does for images, since the time of a step doesn't depend on what is in a
pixel.
"""

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.networks import ImageShape
from training.config.training import TrainingConfig
from training.data import Batches, ImageSet
from training.engine.state import State
from training.engine.stepper import Stepper

Side = Callable[[int], None]
"""Plays that many rounds, to their end."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a short look, no figure for the record")
    return made


def figure(name: str, value: float, unit: str) -> None:
    print(f"figure {name} {value:.4g} {unit}", flush=True)


class Budget:
    """Seconds that a benchmark may take; what there is no time for is said to be left out."""

    def __init__(self, seconds: float, only: str = "") -> None:
        """only: what a label must hold to be measured; empty for everything."""
        self._seconds, self._only = seconds, only
        self._end = time.monotonic() + seconds

    def allows(self, label: str) -> bool:
        """True where what the label names may begin."""
        if self._only not in label:
            return False
        if time.monotonic() < self._end:
            return True
        print(f"{label} is left out: the budget of {self._seconds:g} s is used up", flush=True)
        return False


def noise(shape: ImageShape, num: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    size = (num, shape.channels, shape.height, shape.width)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return ImageSet("noise", images, None, None, fingerprint="noise", skipped=())


def stepper(config: TrainingConfig, image_set: ImageSet) -> Stepper:
    """A stepper of the configuration, on the device where the images are."""
    device = image_set.images.device
    config.compute.set_up(device)
    state = State.fresh(config, image_set.shape, device)
    batches = Batches(image_set, batch_size=config.batch_size, seed=config.seed)
    return Stepper(config, state, batches)


def side(stepper: Stepper) -> Side:
    """Rounds of a stepper, with the loop's test for values that are not finite."""

    def play(num: int) -> None:
        for _ in range(num):
            stepper.step()
        if non_finite := stepper.non_finite():
            raise SystemExit(f"{', '.join(non_finite.terms)} is not finite; nothing was measured")

    return play


def elsewhere(make: Callable[..., Side], *args: object) -> Side:
    """A side in a process of its own, which another one's settings can't help or harm."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(theirs, make, args), daemon=True).start()
    theirs.close()

    def play(num: int) -> None:
        ours.send(num)
        ours.recv()

    return play


def _serve(pipe: Connection, make: Callable[..., Side], args: tuple[object, ...]) -> None:
    play = make(*args)
    with contextlib.suppress(EOFError):  # the measuring one has ended
        while True:
            play(pipe.recv())
            pipe.send(None)


class _NoModules:
    """Stands in for the counter's record of modules, which refuses images with gradients."""

    parents = frozenset({"Global"})

    def __enter__(self) -> "_NoModules":
        return self

    def __exit__(self, *error: object) -> None:
        return None


def operations(work: Callable[[], object]) -> int:
    """Floating point operations of products and convolutions, as torch counts them."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:
        work()
    return counter.get_total_flops()


def take_turns(
    sides: Mapping[str, Side],
    *,
    num_turns: int,
    num_rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds a round of each side, one for each turn, after a round that doesn't count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for play in sides.values():
        play(1)
    for _ in range(num_turns):
        for name, play in sides.items():
            start = clock()
            play(num_rounds)
            seconds[name].append((clock() - start) / num_rounds)
    return seconds
