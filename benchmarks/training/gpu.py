"""Thousands of images a second of the recipes on one NVIDIA GPU, against the arithmetic floor.

    python benchmarks/training/gpu.py [--quick] [--device cpu] [--games article,dcgan-64]
                                      [--peak-tflops fp32=67,tf32=495,bf16=989]
                                      [--only style-128_bf16] [--budget-s 180]

Protocol: `training.engine.stepper` on noise images that lie on the device, untrained networks,
batches of the sizes below; a warm-up of 5 rounds (compilers and cuDNN's search included), then the
median over 5 windows of half a second that end with the device. Precisions fp32, tf32 and bf16,
each eager and with --compute.compile; channels_last wherever there are convolutions. Eager ones
come first, 15 of about 4 s on a fast card; compiled ones take up to a minute each, and come as the
budget allows.

    article         the article's perceptrons, 28 pixels, grey, batch 64
    dcgan-64        ngf = ndf = 64, batch norm, RGB, batch 128
    rpgan-r1r2-32   R3GAN's residual pair at its family's default width, R1 and R2, RGB, batch 64
    rpgan-r1r2-64   the same at 64 pixels
    style-128       the style-based pair at its family's default width, RGB, batch 32

`kimg_s` is real images shown, `gflop` the operations of a round's products and convolutions as
torch counts them, gradients and second derivatives included, and `floor` the share of --peak-tflops
that they reach, where the card's peak is given: 1 is the arithmetic floor. `peak` is the most
memory that was allocated. With --quick what hasn't begun after 20 s is left out, and named. What
differentiates twice isn't compiled (see `training.config.compute`), so rpgan's compiled figures are
of G alone. --device cpu runs the same code without a GPU, fp32 and bf16 only.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from _rounds import Budget, figure, noise, operations, parser, side, stepper

from models.networks import DCGAN, R3GAN, ImageShape, Style
from training.config.compute import PRECISIONS, ComputeConfig
from training.config.training import TrainingConfig
from training.engine.stepper import Stepper
from training.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class Entry:
    config: TrainingConfig
    shape: ImageShape
    convolutions: bool = True


WINDOW_S = 0.5
FULL_S, QUICK_S = 180.0, 20.0


def _entry(recipe: str, resolution: int, batch_size: int, **options: object) -> Entry:
    config = replace(RECIPES[recipe].config, batch_size=batch_size, **options)  # type: ignore[arg-type]
    return Entry(config=config, shape=ImageShape(resolution=resolution, channels=3))


GAMES: dict[str, Entry] = {
    "article": Entry(
        config=RECIPES["article"].config,
        shape=ImageShape(resolution=28, channels=1),
        convolutions=False,
    ),
    "dcgan-64": _entry("dcgan", 64, 128, network=DCGAN(d_norm="batch")),
    "rpgan-r1r2-32": _entry("rpgan-r1r2", 32, 64, network=R3GAN()),
    "rpgan-r1r2-64": _entry("rpgan-r1r2", 64, 64, network=R3GAN()),
    "style-128": _entry("style", 128, 32, network=Style()),
}


def peaks(text: str) -> dict[str, float]:
    """PRECISION=TFLOPS,... as a table.

    Raises:
        argparse.ArgumentTypeError: it is not of this form.
    """
    allowed = f"allowed: PRECISION=TFLOPS,... with {', '.join(PRECISIONS)}"
    table = {}
    for word in text.split(","):
        name, _, value = word.partition("=")
        try:
            table[name] = float(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{word!r} holds no number, {allowed}") from None
        if name not in PRECISIONS or table[name] <= 0:
            raise argparse.ArgumentTypeError(f"{word!r} is no peak, {allowed}")
    return table


def games(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted(set(names) - set(GAMES)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: allowed are {', '.join(GAMES)}")
    return names


def seconds_each(played: Stepper, *, quick: bool) -> float:
    play = side(played)  # its test for finite values waits for the device
    play(1 if quick else 5)
    start = time.perf_counter()
    play(1)
    one_s = time.perf_counter() - start
    num_rounds = 1 if quick else max(1, round(WINDOW_S / one_s))
    times = [one_s] if quick else []
    for _ in range(0 if quick else 5):
        start = time.perf_counter()
        play(num_rounds)
        times.append((time.perf_counter() - start) / num_rounds)
    return statistics.median(times)


def measure(
    name: str,
    compute: ComputeConfig,
    device: torch.device,
    peak_tflops: Mapping[str, float],
    *,
    quick: bool,
) -> None:
    entry = GAMES[name]
    batch_size = 4 if quick else entry.config.batch_size
    compute = replace(compute, channels_last=entry.convolutions)
    config = replace(entry.config, compute=compute, batch_size=batch_size)
    image_set = noise(entry.shape, 8 * batch_size).to(device)
    plain = replace(config, compute=replace(compute, compile=False))
    flops = operations(stepper(plain, image_set).step)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    seconds = seconds_each(stepper(config, image_set), quick=quick)
    label = f"{name}_{compute.precision}_{'compiled' if compute.compile else 'eager'}"
    nimg = batch_size * config.steps_D
    figure(f"{label}_kimg_s", nimg / seconds / 1000, "kimg/s")
    figure(f"{label}_gflop", flops / 1e9, "GFLOP/round")
    if compute.precision in peak_tflops:
        share = flops / seconds / (peak_tflops[compute.precision] * 1e12)
        figure(f"{label}_floor", share, "of 1")
    if device.type == "cuda":
        figure(f"{label}_peak", torch.cuda.max_memory_allocated(device) / 2**20, "MiB")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--games", type=games, default=list(GAMES))
    options.add_argument("--peak-tflops", type=peaks, default={})
    options.add_argument("--only", default="", help="part of a label: dcgan-64_bf16, _eager ...")
    words = "begin nothing after that; 180, or 20 with --quick"
    options.add_argument("--budget-s", type=float, help=words)
    args = options.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            "no NVIDIA GPU here, nothing was measured; --device cpu runs the same code on the CPU"
        )
        return
    device = torch.device(args.device)
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device))
    precisions = PRECISIONS if device.type == "cuda" else ("fp32", "bf16")
    modes = (False, True) if device.type == "cuda" else (False,)
    default = QUICK_S if args.quick else FULL_S
    budget = Budget(default if args.budget_s is None else args.budget_s, args.only)
    for compiled in modes:
        for name in args.games:
            for precision in precisions:
                if budget.allows(f"{name}_{precision}_{'compiled' if compiled else 'eager'}"):
                    compute = ComputeConfig(precision=precision, compile=compiled)
                    measure(name, compute, device, args.peak_tflops, quick=args.quick)


if __name__ == "__main__":
    main()
