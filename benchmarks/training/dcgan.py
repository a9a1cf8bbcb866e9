"""Images per second of a 64-pixel DCGAN against a plain PyTorch loop that does the same updates.

Both train the recipe `dcgan` at its paper's width (ngf = ndf = 64, RGB, batch norm in both players)
from the same weights, with the same losses and Adam, on one batch of noise images a round and one
batch of G's images for both players. Sides take turns, so that whatever else the machine does
falls on all; the figures are medians of the turns' ratios.

    plain   zero_grad, backward, step, as in PyTorch's tutorial; NCHW, float32; images are there
            already as float32 tensors; no average, no metrics, no test for non-finite values
    fp32    `training.engine.stepper` with --compute.channels-last, everything included
    bf16    the same with --compute.precision bf16
    nchw    the same without either, to tell what the layout does

Each side is a process of its own, since a training also tells malloc to keep what is freed
(`training/config/compute.py`), which would help the plain loop too.

Run: python benchmarks/training/dcgan.py [--quick] [--batch-size N]
"""

import re
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from _rounds import Side, elsewhere, figure, noise, parser, side, stepper, take_turns
from torch.nn.functional import binary_cross_entropy_with_logits

from models.networks import DCGAN, ImageShape
from training.config.compute import ComputeConfig
from training.config.training import TrainingConfig
from training.engine.state import State
from training.recipes import RECIPES

SHAPE = ImageShape(resolution=64, channels=3)
COMPUTE = {
    "fp32": ComputeConfig(channels_last=True),
    "bf16": ComputeConfig(channels_last=True, precision="bf16"),
    "nchw": ComputeConfig(),
}
SIDES = ("plain", *COMPUTE)


def config_of(batch_size: int) -> TrainingConfig:
    network = DCGAN(ngf=64, ndf=64, d_norm="batch")
    return replace(RECIPES["dcgan"].config, network=network, batch_size=batch_size)


def plain(config: TrainingConfig) -> Side:
    """The tutorial's loop on the recipe's networks."""
    state = State.fresh(config, SHAPE, torch.device("cpu"))
    G, D = state.G.network, state.D.network
    optim_G = torch.optim.Adam(G.parameters(), lr=config.optim_G.lr, betas=config.optim_G.betas)
    optim_D = torch.optim.Adam(D.parameters(), lr=config.optim_D.lr, betas=config.optim_D.betas)
    pixels = noise(SHAPE, 8 * config.batch_size).images
    batches = (pixels.float() / 127.5 - 1).split(config.batch_size)
    real, fake = torch.ones(config.batch_size), torch.zeros(config.batch_size)
    loss_of = binary_cross_entropy_with_logits

    def play(num: int) -> None:
        for index in range(num):
            real_img = batches[index % len(batches)]
            optim_D.zero_grad()
            fake_img = G(torch.randn(config.batch_size, config.network.z_dim))
            loss_of(D(real_img), real).backward()
            loss_of(D(fake_img.detach()), fake).backward()
            optim_D.step()
            optim_G.zero_grad()
            loss_of(D(fake_img), real).backward()
            optim_G.step()

    return play


def make(name: str, batch_size: int) -> Side:
    config = config_of(batch_size)
    if name == "plain":
        return plain(config)
    step = stepper(replace(config, compute=COMPUTE[name]), noise(SHAPE, 8 * batch_size))
    return side(step)


def peak_of(name: str, batch_size: int) -> float:
    """The peak of a process that plays two rounds of one side."""
    command = [sys.executable, __file__, "--side", name, "--batch-size", str(batch_size)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(ended.stdout.split()[-1])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--side", choices=SIDES, help="only this one's peak of memory, in MiB")
    args = options.parse_args()
    if args.side:
        make(args.side, args.batch_size)(2)
        # Not getrusage's: that starts from the peak of the process that started this one.
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        print(int(peak) / 1024)
        return
    batch_size = min(args.batch_size, 16) if args.quick else args.batch_size
    seconds = take_turns(
        {name: elsewhere(make, name, batch_size) for name in SIDES},
        num_turns=3 if args.quick else 7,
        num_rounds=1 if args.quick else 3,
    )
    for name, each in seconds.items():
        figure(f"dcgan64_{name}", batch_size / statistics.median(each), "images/s")
    for name in COMPUTE:
        ratios = [a / b for a, b in zip(seconds["plain"], seconds[name], strict=True)]
        figure(f"dcgan64_{name}_ratio", statistics.median(ratios), "x")
    for name in SIDES:
        figure(f"dcgan64_{name}_peak", peak_of(name, batch_size), "MiB")


if __name__ == "__main__":
    main()
