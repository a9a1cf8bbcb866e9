"""Speed of packing images, and of training on packed images against images in memory.

Noise is written as PNG files, packed, and loaded both ways. Two games train on both, in turns of
one process, from the same weights: `article`, whose rounds are so short that the data counts, and
`dcgan` at 64 pixels. The figures are medians of the turns' ratios. `cold` is packed with the pages
of images.bin dropped before each turn, so that every image comes from the disk.

Run: python benchmarks/training/packing.py [--quick]
"""

import io
import os
import re
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from _rounds import Side, figure, parser, side, stepper, take_turns
from PIL import Image

from training.config.training import TrainingConfig
from training.data import DataConfig, load
from training.data.listing.outputs import PACKED_IMAGES
from training.data.pack import pack
from training.recipes import RECIPES


def write(folder: Path, num: int, resolution: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(num):
        pixels = rng.integers(0, 256, (resolution, resolution, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:06d}.png", compress_level=1)


def anonymous_mib() -> float:
    """Memory of this process that is no file's."""
    (size,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(size) / 1024


def cold(play: Side, file: Path) -> Side:
    """A side whose file is dropped from the page cache before each turn."""

    def play_cold(num: int) -> None:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        play(num)

    return play_cold


def measure(
    name: str, config: TrainingConfig, root: Path, *, num: int, turns: int, rounds: int
) -> None:
    data = config.data
    photos, packed = root / f"{name}-photos", root / f"{name}-packed"
    write(photos, num, data.width)
    start = time.perf_counter()
    pack(replace(data, path=photos), packed, stream=io.StringIO())
    figure(f"{name}_packing", num / (time.perf_counter() - start), "images/s")
    before, start = anonymous_mib(), time.perf_counter()
    mapped = load(replace(data, path=packed))
    figure(f"{name}_opening_packed", time.perf_counter() - start, "s")
    figure(f"{name}_memory_packed", anonymous_mib() - before, "MiB")
    before, start = anonymous_mib(), time.perf_counter()
    kept = load(replace(data, path=photos))
    figure(f"{name}_decoding", num / (time.perf_counter() - start), "images/s")
    figure(f"{name}_memory_kept", anonymous_mib() - before, "MiB")
    assert mapped.is_mapped
    assert mapped.fingerprint == kept.fingerprint
    sides = {"memory": side(stepper(config, kept)), "packed": side(stepper(config, mapped))}
    sides["cold"] = cold(side(stepper(config, mapped)), packed / PACKED_IMAGES)
    seconds = take_turns(sides, num_turns=turns, num_rounds=rounds)
    for each, times in seconds.items():
        figure(f"{name}_{each}", config.batch_size / statistics.median(times), "images/s")
    for each in ("packed", "cold"):
        ratios = [a / b for a, b in zip(seconds["memory"], seconds[each], strict=True)]
        figure(f"{name}_{each}_ratio", statistics.median(ratios), "x")


def main() -> None:
    args = parser(__doc__).parse_args()
    any_folder = DataConfig(dataset="folder", path=Path("photos"), conditional=False)
    article = replace(any_folder, resolution=28, channels=1)
    dcgan = replace(any_folder, resolution=64, channels=3)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        measure(
            "article",
            replace(RECIPES["article"].config, data=article),
            root,
            num=1_000 if args.quick else 20_000,
            turns=5 if args.quick else 15,
            rounds=20 if args.quick else 100,
        )
        measure(
            "dcgan64",
            replace(RECIPES["dcgan"].config, data=dcgan),
            root,
            num=500 if args.quick else 5_000,
            turns=3 if args.quick else 7,
            rounds=1 if args.quick else 4,
        )


if __name__ == "__main__":
    main()
