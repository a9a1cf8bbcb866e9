"""Trains a generator on a folder of images and publishes it.

    .venv/bin/python examples/train_on_folder.py --images photos
    .venv/bin/python examples/train_on_folder.py --images photos --total-kimg 500 --network.ngf 32

Every option but --images goes to the training; `saddlepoint train folder --help` lists them.
Without --images the script draws 500 coloured discs into `discs/` and trains on those for a few
minutes. The model is published under the folder's name in model-repository/; pictures of samples
lie in runs/.
"""

import argparse
import random
from pathlib import Path

from PIL import Image, ImageDraw

from training.run import main as train

SMALL = ["--data.resolution", "32", "--total-kimg", "20", "--tick-kimg", "2"]


def draw_discs(folder: Path, num: int = 500) -> None:
    """Writes discs of random colour, size and place on black, as PNG files of 32x32 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for index in range(num):
        image = Image.new("RGB", (32, 32))
        radius = draw.uniform(4, 12)
        x, y = (draw.uniform(radius, 31 - radius) for _ in range(2))
        colour = tuple(draw.randrange(64, 256) for _ in range(3))
        box = (x - radius, y - radius, x + radius, y + radius)
        ImageDraw.Draw(image).ellipse(box, fill=colour)
        image.save(folder / f"disc-{index:03d}.png")


def main(argv: list[str] | None = None) -> int:
    """Runs the example and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--images", type=Path, help="folder of images, at any depth")
    options, training = parser.parse_known_args(argv)
    folder = options.images
    if folder is None:
        folder = Path("discs")
        draw_discs(folder)
    # What is given later wins: the small settings are defaults here.
    return train(["folder", "--data.path", str(folder), *SMALL, *training])


if __name__ == "__main__":
    raise SystemExit(main())
