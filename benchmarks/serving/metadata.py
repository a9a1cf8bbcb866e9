"""What it costs that image files say how they were made: bytes, and time beside encoding.

    python benchmarks/serving/metadata.py [--quick]

Protocol: real digits enlarged to 28x28 grey, and smooth colour noise at 64x64 and 512x512, in each
format of the server; encoding with and without the words, alternating. Medians over rounds.
"""

import statistics
import time

from _harness import figure, parser
from png import digits, noise

from models.image_metadata import origin
from serving.encoding.formats import FORMATS


def main() -> None:
    rounds = 3 if parser(__doc__).parse_args().quick else 30
    sets = {"digits_28": digits(), "noise_64": noise(64, 20), "noise_512": noise(512, 2)}
    for name, images in sets.items():
        for kind, entry in FORMATS.items():
            plain: list[float] = []
            told: list[float] = []
            more: list[int] = []
            sizes: list[int] = []
            seed = 0
            for _ in range(rounds):
                began = time.perf_counter()
                files = [entry.encode(image) for image in images]
                plain.append((time.perf_counter() - began) / len(images))
                began = time.perf_counter()
                for data in files:
                    seed += 1  # never the same words
                    made_by = origin("digits", 1, "d" * 64, 1.0)
                    more.append(len(made_by.told(data, kind, seed * 7919, seed % 10)) - len(data))
                    sizes.append(len(data))
                told.append((time.perf_counter() - began) / len(images))
            figure(f"{name}_{kind}_encode", statistics.median(plain) * 1e6, "us")
            figure(f"{name}_{kind}_words", statistics.median(told) * 1e6, "us")
            figure(f"{name}_{kind}_size", statistics.mean(sizes), "bytes")
            figure(f"{name}_{kind}_words_size", statistics.mean(more), "bytes")


if __name__ == "__main__":
    main()
