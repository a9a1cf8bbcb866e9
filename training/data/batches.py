"""Batches of an ImageSet: their content depends only on the seed and the images shown so far."""

import functools
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.image_set import ImageSet
from training.errors import require
from training.randomness import sent

_PLACES = 2  # in the order that a training goes on from: D's, and that of G's own batches
_STEP = 1 / 127.5  # a factor, since GPUs turn a division by a constant into a multiplication
_BELOW_1 = np.nextafter(1.0, 0.0)


class Batches:
    """Makes batches of an ImageSet, in a new random order every epoch.

    With `mirror` each image is shown mirrored left to right half of the times, at random.

    An image of weight w is in an epoch of N images N * w / sum(w) times on average, rounded up or
    down at random: with equal weights exactly once. One random number decides the rounding of all
    images (systematic sampling, Madow 1949), so that each count is less than one image off.

    The content of a batch depends on (seed, cur_nimg) alone, so that a resumed training gets the
    batches that it would have got (edm2's scheme). Epoch e is the images e * N .. (e + 1) * N - 1
    of the training. A batch may contain the end of one epoch and the start of the next.
    """

    def __init__(
        self, image_set: ImageSet, *, batch_size: int, seed: int, mirror: bool = False
    ) -> None:
        """image_set: on the device of the batches. seed: 0 or more. mirror: half of the images.

        Raises:
            ConfigError: batch_size or seed is too small.
        """
        require(batch_size >= 1, "batch_size", batch_size, "1 or more", "set --batch-size")
        require(seed >= 0, "seed", seed, "0 or more", "set --seed")
        self._images = image_set.images
        self._exact = image_set.exact
        self._labels = image_set.labels
        self._device = image_set.device
        self._cumulative = None if image_set.weights is None else _cumulative(image_set.weights)
        self._batch_size = batch_size
        self._seed = seed
        self._mirror = mirror
        # Of two places in the order, D's and, where it has batches of its own, G's: either may be
        # at an epoch's end.
        self._order = functools.lru_cache(maxsize=2 * _PLACES)(self._shuffle)
        # Mapped images may have to be read from the disk, and those of the host to be sent to the
        # device: a thread does it a batch ahead.
        apart = image_set.is_mapped or image_set.device != image_set.images.device
        self._reader = ThreadPoolExecutor(1) if apart else None
        self._ahead: dict[int, Future[tuple[Tensor, Tensor | None]]] = {}

    @property
    def device(self) -> torch.device:
        """The device of the batches."""
        return self._device

    def at(self, cur_nimg: int) -> tuple[Tensor, Tensor | None]:
        """The batch that begins at image number cur_nimg of the training.

        Returns:
            Images [batch_size, C, H, W] float32 in [-1, 1], and labels [batch_size] int64 or None.
        """
        if self._reader is None:
            return self._batch(cur_nimg)
        reading = self._ahead.pop(cur_nimg, None) or self._reader.submit(self._read, cur_nimg)
        following = cur_nimg + self._batch_size
        if following not in self._ahead:
            self._ahead[following] = self._reader.submit(self._read, following)
        while len(self._ahead) > _PLACES:
            self._ahead.pop(next(iter(self._ahead)))
        real_img, label = reading.result()
        return sent(real_img, self._device), None if label is None else sent(label, self._device)

    def _read(self, cur_nimg: int) -> tuple[Tensor, Tensor | None]:
        """The batch in memory that a copy to a GPU can start from at once."""
        real_img, label = self._batch(cur_nimg)
        if self._device.type != "cuda":
            return real_img, label
        return real_img.pin_memory(), None if label is None else label.pin_memory()

    def _batch(self, cur_nimg: int) -> tuple[Tensor, Tensor | None]:
        """The batch on the device of the images."""
        epoch, start = divmod(cur_nimg, len(self._images))
        index = self._order(epoch)[start : start + self._batch_size]
        while len(index) < self._batch_size:
            epoch += 1
            index = torch.cat([index, self._order(epoch)[: self._batch_size - len(index)]])
        if not self._mirror:
            real_img = self._taken(index)
        else:  # an epoch's numbers from N on are the mirror images
            num = len(self._images)
            real_img = self._taken(index % num)
            real_img = torch.where((index >= num)[:, None, None, None], real_img.flip(3), real_img)
            index = index % num
        return real_img, None if self._labels is None else self._labels[index]

    def _taken(self, index: Tensor) -> Tensor:
        """The images of these numbers, float32 as networks see them."""
        if self._exact is not None:
            return self._exact.index_select(0, index)
        return _gather(self._images, index)

    def _shuffle(self, epoch: int) -> Tensor:
        """The indices of an epoch's images in their order, [N] int64; mirrored ones plus N."""
        num = len(self._images)
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(num)
        if self._cumulative is not None:
            places = np.minimum((np.arange(num) + rng.random()) / num, _BELOW_1)
            order = np.searchsorted(self._cumulative, places, side="right")[order]
        if self._mirror:  # drawn last, so that the order is the same as without
            order = order + num * rng.integers(0, 2, num)
        return sent(torch.from_numpy(order), self._images.device)


def _cumulative(weights: Tensor) -> npt.NDArray[np.float64]:
    """The cumulative share of the weights, [N] in [0, 1].

    It is exactly 1 from the last image with a weight on, so that rounding can't make a later image,
    whose weight is 0, be drawn.
    """
    total: npt.NDArray[np.float64] = (weights / weights.max()).cpu().numpy().cumsum()
    total /= total[-1]
    return total


def _gather(images: Tensor, index: Tensor) -> Tensor:
    """images[index] as float32 in [-1, 1]. 0 and 255 become exactly -1 and 1 on every device."""
    if images.device.type == "cpu":
        # NumPy works on this thread. torch would wake its others, which costs more than the work.
        pixels = images.numpy().take(index.numpy(), 0).astype(np.float32)
        pixels -= 127.5
        pixels *= _STEP
        return torch.from_numpy(pixels)
    return (images.index_select(0, index) - 127.5).mul_(_STEP)
