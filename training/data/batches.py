"""An ImageSet dealt out in batches: what a batch holds depends on (seed, cur_nimg) alone."""

import functools

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.image_set import ImageSet
from training.errors import ConfigError

_STEP = 1 / 127.5  # multiplied by, since GPUs turn a division by a constant into this anyway
_BELOW_1 = np.nextafter(1.0, 0.0)


class Batches:
    """Deals an ImageSet out: shuffled anew every epoch, without replacement, in batches.

    An image of weight w is in an epoch of N images N * w / sum(w) times, rounded up or down at
    random such that this is its mean: with equal weights once. The rounding of all images follows
    from one draw (systematic sampling, Madow 1949), so an epoch strays from the weights by less
    than one image each.

    What a batch holds depends on (seed, cur_nimg) alone, so a resumed training sees what it would
    have seen (the scheme is edm2's). Epoch e is images e * N .. (e + 1) * N - 1 of the training; a
    batch may lie across the border.
    """

    def __init__(self, image_set: ImageSet, *, batch_size: int, seed: int) -> None:
        """image_set: on the device where the batches are wanted. seed: 0 or more."""
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, must be at least 1")
        if seed < 0:
            raise ConfigError(f"seed is {seed}, must be 0 or more")
        self._images = image_set.images
        self._labels = image_set.labels
        self._cumulative = None if image_set.weights is None else _cumulative(image_set.weights)
        self._batch_size = batch_size
        self._seed = seed
        self._order = functools.lru_cache(maxsize=2)(self._shuffle)

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self._images.device

    def at(self, cur_nimg: int) -> tuple[Tensor, Tensor | None]:
        """The batch that starts at image number cur_nimg of the training.

        Returns:
            Images [batch_size, C, H, W] float32 in [-1, 1], and labels [batch_size] int64 or None.
        """
        epoch, start = divmod(cur_nimg, len(self._images))
        index = self._order(epoch)[start : start + self._batch_size]
        while len(index) < self._batch_size:
            epoch += 1
            index = torch.cat([index, self._order(epoch)[: self._batch_size - len(index)]])
        real_img = _gather(self._images, index)
        return real_img, None if self._labels is None else self._labels[index]

    def _shuffle(self, epoch: int) -> Tensor:
        """The order of an epoch, [N] int64."""
        num = len(self._images)
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(num)
        if self._cumulative is not None:
            places = np.minimum((np.arange(num) + rng.random()) / num, _BELOW_1)
            order = np.searchsorted(self._cumulative, places, side="right")[order]
        return torch.from_numpy(order).to(self._images.device)


def _cumulative(weights: Tensor) -> npt.NDArray[np.float64]:
    """The share of the draws up to each image, [N] in [0, 1].

    It is 1 from the last image of any weight on, which no rounding may pass: an image of weight 0
    is never drawn.
    """
    total: npt.NDArray[np.float64] = (weights / weights.max()).cpu().numpy().cumsum()
    total /= total[-1]
    return total


def _gather(images: Tensor, index: Tensor) -> Tensor:
    """images[index] as float32 in [-1, 1]: 0 and 255 become exactly -1 and 1, on every device."""
    if images.device.type == "cpu":
        # NumPy stays on this thread; torch would wake the others, which costs more than the work.
        pixels = images.numpy().take(index.numpy(), 0).astype(np.float32)
        pixels -= 127.5
        pixels *= _STEP
        return torch.from_numpy(pixels)
    return (images.index_select(0, index) - 127.5).mul_(_STEP)
