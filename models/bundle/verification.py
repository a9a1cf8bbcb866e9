"""Verifies a whole bundle on the CPU: its files, golden images, batches, encoder, directions.

The server checks files and golden images itself, on the device that will run the model.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.bundle.anomaly import verify_score
from models.bundle.bundle import GOLDEN_TOLERANCE, Bundle
from models.bundle.directions import verify_directions
from models.bundle.generator import CpuGenerator, Generate, Images, Sampler
from models.bundle.inversion import verify_encoder
from models.bundle.manifest import ImageSpec
from models.bundle.styles import verify_styles
from models.bundle.units import verify_units
from models.errors import BundleError

MAX_BATCH_ROWS = 64
"""The most rows of a batch, unless a server's --max-batch-rows says otherwise."""
_ODD_SIZES = (3, 7, 13)  # a server on the CPU runs as many rows as have come


def verify(bundle: Bundle, *, max_batch_rows: int = MAX_BATCH_ROWS) -> int:
    """Verifies a bundle and returns the largest difference of its golden images in 8-bit steps.

    max_batch_rows: the largest batch that is tried.

    Raises:
        BundleError: the bundle must not be used.
    """
    bundle.verify_files()
    generate = CpuGenerator(bundle.model_path)
    difference = bundle.verify_golden(generate)
    check_batches(bundle, generate, batch_sizes(max_batch_rows))
    verify_encoder(bundle)
    verify_score(bundle)
    parts = verify_directions(bundle, generate), verify_styles(bundle), verify_units(bundle)
    return max(difference, *parts)


def batch_sizes(max_rows: int) -> tuple[int, ...]:
    """Batches to try, rising: every bucket that a server pads to, and odd numbers of rows."""
    powers = [1 << power for power in range(max_rows.bit_length()) if 1 << power < max_rows]
    return tuple(sorted({*powers, *(n for n in _ODD_SIZES if n < max_rows), max_rows}))


def check_batches(bundle: Bundle, generate: Generate, sizes: Sequence[int]) -> None:
    """Makes batches of several sizes: each must run, and rows must not depend on those beside them.

    Args:
        bundle: whose model it is.
        generate: the model.
        sizes: rows of each batch, rising.

    Raises:
        BundleError: a batch can't be made, has another shape, or a row differs by more than
            GOLDEN_TOLERANCE from the same row in another batch.
    """
    manifest = bundle.manifest
    num_classes = len(manifest.labels or ())
    sampler = Sampler(generate, z_dim=manifest.z_dim, num_classes=num_classes)
    check_sampler(sampler, manifest.image, sizes, where=str(bundle.model_path))


def check_sampler(sampler: Sampler, image: ImageSpec, sizes: Sequence[int], *, where: str) -> None:
    """The same of a model that is not in a bundle yet; image and where: its shape and its name.

    Raises:
        BundleError: as `check_batches`.
    """
    seeds = np.arange(sizes[-1], dtype=np.uint64)
    expected = _batch(sampler, seeds, image, where)
    for size in sizes[:-1]:
        _compare(_batch(sampler, seeds[:size], image, where), expected[:size], len(seeds), where)
    if len(seeds) > 1:  # the last row alone; the first one was, as a batch of 1
        _compare(_batch(sampler, seeds[-1:], image, where), expected[-1:], len(seeds), where)


def _batch(sampler: Sampler, seeds: npt.NDArray[np.uint64], image: ImageSpec, where: str) -> Images:
    try:
        images = sampler(seeds)
    except Exception as error:  # a runtime's errors share no base
        raise BundleError(
            f"{where}: can't make a batch of {len(seeds)}: {error}; export the model again, with a "
            "batch of any size"
        ) from error
    shape = (len(seeds), image.height, image.width, image.channels)
    if images.shape != shape or images.dtype != np.uint8:
        raise BundleError(
            f"{where}: a batch of {len(seeds)} gave {images.dtype} images {list(images.shape)}, "
            f"must give uint8 {list(shape)}; export the model again, with a batch of any size"
        )
    return images


def _compare(found: Images, expected: Images, num_rows: int, where: str) -> None:
    difference = int(np.abs(found.astype(np.int16) - expected).max())
    if difference > GOLDEN_TOLERANCE:
        raise BundleError(
            f"{where}: images of the same seeds differ by up to {difference}/255 between batches "
            f"of {len(found)} and of {num_rows}, allowed are {GOLDEN_TOLERANCE}/255; the model "
            "mixes the images of a batch: remove the layer that does (batch statistics, a "
            "minibatch layer)"
        )
