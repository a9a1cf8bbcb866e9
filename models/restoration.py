"""What turns answers of a generator into a restored image: pure functions of NumPy arrays.

Training and server use the same ones, so that an image filled offline is that of the server. Images
are uint8 [N, H, W, C]; masks uint8 [N, H, W], 1 where a pixel is known.
"""

import itertools

import numpy as np
import numpy.typing as npt

from models.bundle.generator import Images

Mask = npt.NDArray[np.uint8]
FEATHER = 2
"""Pixels over which a filled region comes in, counted inwards from its edge."""


def filled(original: Images, made: Images, mask: Mask, *, feather: int = FEATHER) -> Images:
    """Puts made pixels where the mask is 0; where it is 1, every byte is the original's.

    Near the edge, within the unknown region, the difference between made and known pixels is
    spread inwards over `feather` pixels, so that no seam shows.
    """
    unknown = mask == 0
    # What made and original differ by beside the edge, carried inwards a pixel a step.
    gap = np.where(unknown[..., None], 0.0, original.astype(np.float32) - made)
    known = ~unknown
    total = np.zeros_like(gap)
    for step in range(feather):
        spread, reached = _grown(gap, known)
        fresh = reached & ~known
        gap = np.where(fresh[..., None], spread, gap)
        total = np.where(fresh[..., None], spread * (1 - (step + 1) / (feather + 1)), total)
        known |= fresh
    smooth = (made + total).round().clip(0, 255).astype(np.uint8)
    return np.where(unknown[..., None], smooth, original)


def edited(original: Images, before: Images, after: Images) -> Images:
    """Adds what an edit changed, after - before, to the original; bytes it didn't change stay.

    before, after: the reconstruction, and the same with its latent moved.
    """
    change = after.astype(np.int16) - before
    moved: Images = (original + change).clip(0, 255).astype(np.uint8)
    return moved


def repeated(images: Images, factor: int) -> Images:
    """Enlarges images [N, h, w, C] by repeating each pixel factor x factor times."""
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def shrunk(images: npt.NDArray[np.generic], factor: int) -> npt.NDArray[np.float32]:
    """Averages each factor x factor block: [N, H / factor, W / factor, C] float32, same range.

    Raises:
        ValueError: height or width is no multiple of factor.
    """
    num, height, width, channels = images.shape
    if height % factor or width % factor:
        raise ValueError(f"factor is {factor}, which must divide {height} and {width}")
    blocks = images.reshape(num, height // factor, factor, width // factor, factor, channels)
    means: npt.NDArray[np.float32] = blocks.astype(np.float32).mean(axis=(2, 4))
    return means


def spread(images: Images) -> npt.NDArray[np.float32]:
    """How far K answers [K, H, W, C] differ: standard deviation of each pixel, [H, W], in steps."""
    deviation: npt.NDArray[np.float32] = images.astype(np.float32).std(axis=0).mean(axis=-1)
    return deviation


def _grown(
    values: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """For every pixel: the mean over its known neighbours of eight, and whether it has any."""
    weight = np.pad(known.astype(np.float32), ((0, 0), (1, 1), (1, 1)))
    weighted = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0))) * weight[..., None]
    height, width = known.shape[1:]
    count, total = np.zeros(known.shape, np.float32), np.zeros_like(values)
    for y, x in itertools.product(range(3), range(3)):
        window = np.s_[:, y : y + height, x : x + width]
        count += weight[window]
        total += weighted[window]
    total /= np.maximum(count, 1)[..., None]
    return total, count > 0
