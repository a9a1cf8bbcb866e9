"""Generated images beside the real ones nearest to them, as one picture to look at.

What a figure of memorisation can't show: whether G's images are those of the data, or between them.
"""

import numpy as np
import torch
from PIL import Image

from models.bundle.generator import Sampler
from models.grid import grid
from training.data import ImageSet
from training.watchdog.diagnostics import downsampled

NAME = "neighbours.png"
NUM_ROWS = 8
NUM_NEAREST = 5
_SIDE = 16  # images are compared at this resolution at most
_MOST_REAL = 20_000  # evenly some of more
_CHUNK = 4096  # images that are made float at a time, fewer of more than 73x73 pixels
_CHUNK_VALUES = 2**26
_LEAST_PIXELS = 16  # points of the plane are no pictures


def neighbours(sampler: Sampler, image_set: ImageSet) -> Image.Image | None:
    """Draws rows of an image of G's and the real images nearest to it, nearest first.

    Distances are of pixels, at 16x16 at most. Of more than 20,000 images evenly some are searched.
    None where there are too few images, or they are no pictures.

    Args:
        sampler: G's images of seeds.
        image_set: the data.
    """
    shape = image_set.shape
    if shape.height * shape.width < _LEAST_PIXELS or len(image_set) <= NUM_NEAREST:
        return None
    made = sampler(np.arange(NUM_ROWS, dtype=np.uint64))
    rows = _rows(torch.from_numpy(made).permute(0, 3, 1, 2))
    real = image_set.images[:: -(-len(image_set) // _MOST_REAL)]
    size = max(1, min(_CHUNK, _CHUNK_VALUES // real[0].numel()))
    starts = range(0, len(real), size)
    apart = torch.cat(
        [torch.cdist(rows, _rows(real[start : start + size].cpu())) for start in starts], dim=1
    )
    nearest = apart.topk(NUM_NEAREST, largest=False).indices.to(real.device)
    pictures = real[nearest.flatten()].cpu().permute(0, 2, 3, 1).numpy()
    pictures = pictures.reshape(NUM_ROWS, NUM_NEAREST, *made.shape[1:])
    both = np.concatenate([made[:, None], pictures], axis=1)
    return grid(both.reshape(-1, *made.shape[1:]), NUM_NEAREST + 1)


def _rows(img: torch.Tensor) -> torch.Tensor:
    return downsampled(img.float() / 127.5 - 1, _SIDE)
