"""What an audit costs: images per second of a folder, and the search for near duplicates alone.

The folder holds JPEG files of 320x240 pixels, soft blobs of colour, one in fifty of them a smaller
copy of another. The search runs on twice as many images in memory, up to 100,000, since that is the
part whose cost could grow with the square; the ratio of the two times says whether it does: 2 for
proportional, 4 for quadratic. Every planted copy must be found, or the script fails.

Run: python benchmarks/training/audit.py [--quick]
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.audit import audit, duplicates
from training.audit.inspection import MAX_BITS, MIN_CORRELATION
from training.data import DataConfig, load

ONE_IN = 50


def write(folder: Path, num: int) -> int:
    """Writes the files; returns how many are copies."""
    rng = np.random.default_rng(0)
    copies = 0
    for i in range(num):
        if i % ONE_IN == 1:
            with Image.open(folder / f"{i - 1:06}.jpg") as image:
                image.resize((240, 180)).save(folder / f"{i:06}.jpg", quality=80)
            copies += 1
            continue
        pixels = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC)
        image.save(folder / f"{i:06}.jpg", quality=90)
    return copies


def blobs(num: int) -> Tensor:
    """[num, 1, 32, 32] uint8; every fiftieth is a little brighter copy of the one before."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(num, 1, 6, 6, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic")
    images = (images * 40 + 128).clamp(0, 250)
    images[1::ONE_IN] = images[0::ONE_IN][: len(images[1::ONE_IN])] + 4
    return images.to(torch.uint8)


def search_s(images: Tensor) -> float:
    """Seconds; fails unless exactly the planted copies are found."""
    start = time.perf_counter()
    groups = duplicates.alike(images, max_bits=MAX_BITS, min_correlation=MIN_CORRELATION)
    taken = time.perf_counter() - start
    expected = [[i - 1, i] for i in range(1, len(images), ONE_IN)]
    found = [group.tolist() for group in groups]
    if found != expected:
        raise SystemExit(f"{len(found)} groups found, {len(expected)} planted")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    quick = parser.parse_args().quick
    num_files, num_images = (500, 10_000) if quick else (5_000, 100_000)
    with tempfile.TemporaryDirectory() as name:
        copies = write(Path(name), num_files)
        start = time.perf_counter()
        image_set = load(
            DataConfig(
                dataset="folder", path=Path(name), resolution=64, channels=3, conditional=False
            )
        )
        loaded = time.perf_counter()
        report = audit(image_set, name)
        audited = time.perf_counter()
    if report.counts != {"near-duplicate": copies}:
        raise SystemExit(f"{copies} copies planted, found {report.counts}")
    print(f"figure audit_load {num_files / (loaded - start):.0f} images/s")
    print(f"figure audit_inspect {num_files / (audited - loaded):.0f} images/s")
    images = blobs(num_images)
    half, whole = search_s(images[: num_images // 2]), search_s(images)
    print(f"figure audit_near_duplicates_{num_images} {whole:.1f} s")
    print(f"figure audit_near_duplicates_doubled {whole / half:.2f} x")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"figure audit_peak_memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
