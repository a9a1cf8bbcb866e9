"""Writes scikit-learn's 1,797 handwritten digits as PNG files, a folder for each class.

    .venv/bin/python examples/digit_files.py photos

Makes photos/0/0000.png and so on, of 32x32 grey pixels: images of one's own to try the tutorial
(docs/tutorial.md) with. As people's own folders have them, there are a copy of an image under
another name and a file that was cut off, for the audit to find.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIDE = 32


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the files; 1 where the folder exists."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a new folder")
    folder: Path = parser.parse_args(argv).folder
    if folder.exists():
        print(f"error: {folder} exists; name a new folder")
        return 1
    digits = load_digits()
    for index, (values, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        small = Image.fromarray((values * (255 / 16)).astype(np.uint8))
        path = folder / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)
    first = (folder / "0" / "0000.png").read_bytes()
    (folder / "0" / "copy.png").write_bytes(first)
    (folder / "0" / "cut-off.png").write_bytes(first[:100])
    print(f"{len(digits.target)} digits, a copy and a damaged file are in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
