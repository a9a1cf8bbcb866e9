"""What an audit costs: images per second of a folder, and the search for near duplicates alone.

The folder holds JPEG files of 320x240 pixels, soft blobs of colour, one in fifty of them a smaller
copy of another. The search runs on twice as many images in memory, up to 100,000, since that is the
part whose cost could grow with the square; the ratio of the two times says whether it does: 2 for
proportional, 4 for quadratic. Every planted copy must be found, or the script fails.

--only recall: how many of 120 crops of photographs (scikit-learn's two) are found again after one
alteration each, at 64x64, and how many of the 120 are taken for copies of one another.

Run: python benchmarks/training/audit.py [--quick] [--only cost|recall]
"""

import argparse
import io
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from training.data import DataConfig, load
from training.data.audit import audit, duplicates
from training.data.audit.inspection import MAX_BITS, MIN_CORRELATION

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


Alter = Callable[[Image.Image], Image.Image]


def jpeg(quality: int) -> Alter:
    def alter(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return alter


def noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 10, (256, 256, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def marked(image: Image.Image) -> Image.Image:
    altered = image.copy()
    altered.paste((255, 255, 255), (180, 230, 250, 250))
    return altered


ALTERATIONS: dict[str, Alter] = {
    "half_size": lambda image: image.resize((128, 128)),
    "jpeg_50": jpeg(50),
    "jpeg_10": jpeg(10),
    "noise_of_10_steps": noisy,
    "grey": lambda image: image.convert("L"),
    "brightness_0.6": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "brightness_1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "contrast_1.3": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "mirrored": ImageOps.mirror,
    "cropped_1%_a_side": lambda image: image.crop((3, 3, 253, 253)),
    "cropped_2%_a_side": lambda image: image.crop((5, 5, 251, 251)),
    "cropped_4%_a_side": lambda image: image.crop((10, 10, 246, 246)),
    "shifted_2%": lambda image: image.crop((5, 0, 256, 251)),
    "rotated_2_degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "white_label_in_a_corner": marked,
}


def photographs(num: int) -> list[Image.Image]:
    """Squares of 256 pixels, cut out anywhere."""
    from sklearn.datasets import load_sample_images

    whole = [Image.fromarray(image) for image in load_sample_images().images]
    rng = np.random.default_rng(0)
    squares = []
    for i in range(num):
        side = int(rng.integers(120, 300))
        x, y = int(rng.integers(0, 640 - side)), int(rng.integers(0, 427 - side))
        square = whole[i % 2].crop((x, y, x + side, y + side))
        squares.append(square.resize((256, 256), Image.Resampling.BICUBIC))
    return squares


def at_64(pictures: list[Image.Image]) -> Tensor:
    small = [
        np.asarray(picture.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC))
        for picture in pictures
    ]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous()


def is_found(pair: Tensor) -> bool:
    return any(
        search(pair, max_bits=MAX_BITS, min_correlation=MIN_CORRELATION)
        for search in (duplicates.alike, duplicates.mirrored)
    )


def recall(num: int) -> None:
    pictures = photographs(num)
    images = at_64(pictures)
    for name, alter in ALTERATIONS.items():
        altered = at_64([alter(picture) for picture in pictures])
        found = sum(is_found(torch.stack(pair)) for pair in zip(images, altered, strict=True))
        print(f"figure audit_recall_{name} {found / num:.0%}", flush=True)
    groups = duplicates.alike(images, max_bits=MAX_BITS, min_correlation=MIN_CORRELATION)
    wrong = sum(len(group) - 1 for group in groups)
    print(f"figure audit_taken_for_copies {wrong} of {num}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    parser.add_argument("--only", choices=("cost", "recall"))
    given = parser.parse_args()
    if given.only != "cost":
        recall(30 if given.quick else 120)
    if given.only != "recall":
        cost(given.quick)


def cost(quick: bool) -> None:
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
