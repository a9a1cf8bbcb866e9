"""Images per second of the `article` recipe against the article's own loop, side by side.

Both train the same perceptrons with the same batch of 64 on the same 60,000 synthetic images in
MNIST's file format, which are written first. They take turns in rounds, so that whatever else the
machine does falls on both, and the figure is the median of the rounds' ratios.

    (a) the article: torchvision's MNIST with ToTensor and Normalize through a DataLoader, Sigmoid
        and BCELoss, Adam, one batch of fakes for D and another for G
    (b) `training.engine.loop.fit` as `python -m training.run article` calls it, metrics and tests
    for
        non-finite values included; without checkpoints and sample grids, which (a) has not

Run: python benchmarks/training/article.py [--quick]
"""

import argparse
import dataclasses
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from training.config.training import TrainingConfig
from training.data import Batches, load
from training.engine.loop import Hooks, fit
from training.engine.state import State
from training.engine.stepper import Stepper
from training.recipes import RECIPES

BATCH_SIZE = 64
NUM_IMAGES = 60_000


class Article:
    """The article's loop, in its own words."""

    def __init__(self, root: Path) -> None:
        to_range = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
        dataset = datasets.MNIST(str(root), train=True, transform=to_range)
        self.loader = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
        self.G = nn.Sequential(
            nn.Linear(100, 256),
            nn.ReLU(),
            nn.Linear(256, 784),
            nn.Tanh(),
            nn.Unflatten(1, (1, 28, 28)),
        )
        self.D = nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 256),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(256, 1),
            nn.Sigmoid(),
        )
        self.criterion = nn.BCELoss()
        self.optim_G = torch.optim.Adam(self.G.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.optim_D = torch.optim.Adam(self.D.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.batches = self._batches()

    def _batches(self) -> Iterator[Tensor]:
        while True:
            for real_img, _ in self.loader:
                yield real_img

    def steps(self, num: int) -> None:
        """Plays that many batches."""
        real, fake = torch.ones(BATCH_SIZE, 1), torch.zeros(BATCH_SIZE, 1)
        for _ in range(num):
            real_img = next(self.batches)
            self.optim_D.zero_grad()
            fake_img = self.G(torch.randn(BATCH_SIZE, 100))
            loss_D = self.criterion(self.D(real_img), real)
            loss_D = loss_D + self.criterion(self.D(fake_img.detach()), fake)
            loss_D.backward()
            self.optim_D.step()
            self.optim_G.zero_grad()
            fake_img = self.G(torch.randn(BATCH_SIZE, 100))
            loss_G = self.criterion(self.D(fake_img), real)
            loss_G.backward()
            self.optim_G.step()


class Ours:
    """The recipe's loop."""

    def __init__(self, root: Path) -> None:
        recipe = RECIPES["article"].config
        self.config = dataclasses.replace(
            recipe, data=dataclasses.replace(recipe.data, path=root), total_kimg=1e-3
        )
        image_set = load(self.config.data)
        state = State.fresh(self.config, image_set.shape, torch.device("cpu"))
        batches = Batches(image_set, batch_size=BATCH_SIZE, seed=self.config.seed)
        self.stepper = Stepper(self.config, state, batches)
        self.hooks = Hooks(
            should_stop=lambda: False,
            should_report=lambda: False,
            report=lambda cur_nimg, means: None,
            tick=lambda tick, state, means: None,
            last_good=lambda: "none",
        )

    def steps(self, num: int) -> None:
        """Plays that many batches."""
        nimg = self.stepper.state.cur_nimg + num * BATCH_SIZE
        self.stepper.config = longer(self.config, nimg)
        fit(self.stepper, self.hooks)


def longer(config: TrainingConfig, nimg: int) -> TrainingConfig:
    return dataclasses.replace(config, total_kimg=nimg / 1000)


def write_idx(root: Path) -> None:
    """Noise in the format of MNIST: the time of a step does not depend on what is in a pixel."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, num in (("train", NUM_IMAGES), ("t10k", 10_000)):
        images = rng.integers(0, 256, (num, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, num, dtype=np.uint8)
        header = struct.pack(">IIII", 2051, num, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 2049, num)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def images_per_s(side: Article | Ours, num_steps: int) -> float:
    start = time.perf_counter()
    side.steps(num_steps)
    return num_steps * BATCH_SIZE / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    quick = parser.parse_args().quick
    num_rounds, num_steps = (3, 150) if quick else (9, 500)
    with tempfile.TemporaryDirectory() as folder:
        write_idx(Path(folder))
        article, ours = Article(Path(folder)), Ours(Path(folder))
        for side in (article, ours):
            side.steps(50)
        rates: list[tuple[float, float]] = []
        for index in range(num_rounds):
            rates.append((images_per_s(article, num_steps), images_per_s(ours, num_steps)))
            print(
                f"round {index + 1}: article {rates[-1][0]:,.0f}, ours {rates[-1][1]:,.0f} images/s"
            )
    print(f"figure article_own_loop {statistics.median(a for a, _ in rates):.0f} images/s")
    print(f"figure article_recipe {statistics.median(b for _, b in rates):.0f} images/s")
    print(f"figure article_ratio {statistics.median(b / a for a, b in rates):.2f} x")


if __name__ == "__main__":
    main()
