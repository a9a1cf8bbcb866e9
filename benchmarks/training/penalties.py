"""What each gradient penalty costs a round, against the passes that it adds.

Counted in passes of one batch through D, a forward one, a backward one by the images and one by the
weights being alike: a round without a penalty has two of each for D's move (real and generated
images), and one forward and one by the images for G's, with three passes of G; what a pass of G is
to one of D follows from the operations of their forward passes, counted by torch. A penalty adds

    3   for images that D judges anyway (r1: real, r2: generated): the gradient by the images, and
        to differentiate that again one pass like a forward one and one by the weights
    4   for images of its own (wgan-gp, zero-gp, dragan): a forward pass besides

Rounds with and without take turns on the digits' DCGAN and on a DCGAN of 64 pixels (ngf = ndf =
64), batch norm off. `factor` is the median of the turns' ratios of time; `excess` is factor over
expected: 1 where the penalty costs its passes and no more. torch's
own rectifiers would add to that: their second derivative is a tensor of zeros, which torch sends
back through D (`models/networks/activations.py`).

Run: python benchmarks/training/penalties.py [--quick] [--cpu-time]
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from _rounds import figure, noise, operations, parser, side, stepper, take_turns

from models.networks import DCGAN, ImageShape
from training.config.training import TrainingConfig
from training.engine.state import State
from training.game.regularizers import Term
from training.recipes import RECIPES

PASSES_D = 8
PASSES_G = 3
EXTRA = {
    "r1=1": 3,
    "r2=1": 3,
    "r1=1 r2=1": 6,
    "wgan-gp=10": 4,
    "zero-gp=10": 4,
    "dragan=10": 4,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    config: TrainingConfig
    shape: ImageShape
    num_rounds: int


def cases(*, quick: bool) -> list[Case]:
    recipe = RECIPES["dcgan"].config
    small = replace(recipe, network=replace(recipe.network, d_norm="none"))
    wide = replace(recipe, network=DCGAN(ngf=64, ndf=64), batch_size=4 if quick else 16)
    shapes = ImageShape(resolution=32, channels=1), ImageShape(resolution=64, channels=3)
    return [
        Case(name="digits", config=small, shape=shapes[0], num_rounds=3 if quick else 20),
        Case(name="dcgan64", config=wide, shape=shapes[1], num_rounds=1 if quick else 2),
    ]


def forward_operations(case: Case) -> tuple[int, int]:
    """Of a forward pass of G and of D on one batch."""
    state = State.fresh(case.config, case.shape, torch.device("cpu"))
    size = (case.config.batch_size, case.shape.channels, case.shape.height, case.shape.width)
    z, img = torch.zeros(case.config.batch_size, case.config.network.z_dim), torch.zeros(size)
    return operations(lambda: state.G.network(z)), operations(lambda: state.D.network(img))


def measure(case: Case, clock: Callable[[], float], num_turns: int) -> None:
    image_set = noise(case.shape, 8 * case.config.batch_size)
    sides = {"none": side(stepper(case.config, image_set))}
    for words in EXTRA:
        terms = tuple(Term.parse(word) for word in words.split())
        sides[words] = side(stepper(replace(case.config, regularizers=terms), image_set))
    seconds = take_turns(sides, num_turns=num_turns, num_rounds=case.num_rounds, clock=clock)
    of_G, of_D = forward_operations(case)
    figure(f"{case.name}_none", statistics.median(seconds["none"]) * 1e3, "ms/round")
    for words, extra in EXTRA.items():
        name = case.name + "_" + "_".join(word.split("=")[0] for word in words.split())
        ratios = [a / b for a, b in zip(seconds[words], seconds["none"], strict=True)]
        factor = statistics.median(ratios)
        expected = 1 + extra * of_D / (PASSES_D * of_D + PASSES_G * of_G)
        figure(f"{name}_factor", factor, "x")
        figure(f"{name}_expected", expected, "x")
        figure(f"{name}_excess", factor / expected, "x")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--cpu-time", action="store_true", help="CPU seconds, on one thread")
    args = options.parse_args()
    if args.cpu_time:
        torch.set_num_threads(1)
    clock = time.process_time if args.cpu_time else time.perf_counter
    for case in cases(quick=args.quick):
        measure(case, clock, num_turns=3 if args.quick else 9)


if __name__ == "__main__":
    main()
