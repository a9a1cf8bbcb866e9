"""Our PNG writer against Pillow's: time and size, alternating.

    python benchmarks/serving/png.py [--quick]

Protocol: real digits enlarged to 28x28 grey, and smooth colour noise at 64x64 and 512x512; Pillow
at level 1 with run-length strategy (its fastest) and at its default, level 6. Medians over rounds.
"""

import io
import statistics
import time
from collections.abc import Callable

import numpy as np
from _harness import figure, parser
from PIL import Image
from sklearn.datasets import load_digits

from models.bundle.generator import Images
from serving.encoding.png import encode_png


def pillow(level: int, strategy: int) -> Callable[[Images], bytes]:
    def encode(image: Images) -> bytes:
        buffer = io.BytesIO()
        pixels = image[:, :, 0] if image.shape[2] == 1 else image
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=level, compress_type=strategy)
        return buffer.getvalue()

    return encode


def digits() -> list[Images]:
    made = []
    for image in load_digits().images[:50]:
        pixels = Image.fromarray((image / 16 * 255).astype(np.uint8))
        made.append(np.array(pixels.resize((28, 28), Image.Resampling.BICUBIC))[:, :, None])
    return made


def noise(size: int, num: int) -> list[Images]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(num):
        small = Image.fromarray(rng.integers(0, 255, (size // 8, size // 8, 3), dtype=np.uint8))
        made.append(np.array(small.resize((size, size), Image.Resampling.BICUBIC)))
    return made


def main() -> None:
    rounds = 5 if parser(__doc__).parse_args().quick else 40
    encoders = {"ours": encode_png, "pillow_1_rle": pillow(1, 3), "pillow_6": pillow(6, 0)}
    sets = {"digits_28": digits(), "noise_64": noise(64, 30), "noise_512": noise(512, 2)}
    for name, images in sets.items():
        times: dict[str, list[float]] = {encoder: [] for encoder in encoders}
        for _ in range(rounds):
            for encoder, encode in encoders.items():
                began = time.perf_counter()
                for image in images:
                    encode(image)
                times[encoder].append((time.perf_counter() - began) / len(images))
        for encoder, encode in encoders.items():
            figure(f"{name}_{encoder}", statistics.median(times[encoder]) * 1e6, "us")
            size = statistics.mean(len(encode(image)) for image in images)
            figure(f"{name}_{encoder}_size", size, "bytes")
        ratios = [a / b for a, b in zip(times["pillow_1_rle"], times["ours"], strict=True)]
        figure(f"{name}_ratio", statistics.median(ratios), "x")


if __name__ == "__main__":
    main()
