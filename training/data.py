"""Training data: which set, as what pixels; resident on the device as uint8 and indexed there.

`load` reads a dataset of `training.datasets` into one `ImageSet`; `Batches` deals it out. Knows
nothing of networks and losses.
"""

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.networks import ImageShape
from training.datasets import DATASETS
from training.errors import ConfigError, DataError

_STEP = 1 / 127.5  # multiplied by, since GPUs turn a division by a constant into this anyway


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images to train on, and their form."""

    dataset: str = "digits"
    """Name of the set: digits (embedded), mnist, fashion-mnist, kmnist, cifar10, celeba, lsun, or
    folder for any folder of images."""
    path: Path | None = None
    """Folder that holds the set's files; ./data by default, required for folder."""
    resolution: int = 32
    """Height and width in pixels; images are resized (shorter side) and centre cropped to it."""
    channels: Literal[1, 3] = 1
    """Values a pixel: 1 (grey) or 3 (RGB); images are converted."""
    conditional: bool = True
    """Give the networks the class of each image; of a folder, its first level of subfolders."""

    def __post_init__(self) -> None:
        """Refuses what can't be loaded.

        Raises:
            ConfigError: it names the field, the value and what is allowed.
        """
        if self.dataset not in DATASETS:
            raise ConfigError(
                f"data.dataset is {self.dataset!r}; choose one of {', '.join(sorted(DATASETS))}"
            )
        if self.channels not in (1, 3):
            raise ConfigError(f"data.channels is {self.channels}; allowed are 1 (grey) and 3 (RGB)")
        if not 1 <= self.resolution <= 1024:
            raise ConfigError(f"data.resolution is {self.resolution}; allowed are 1 .. 1024 pixels")
        entry = DATASETS[self.dataset]
        if entry.needs_path and self.path is None:
            raise ConfigError(
                f"data.path is not given; the dataset {self.dataset!r} needs it: --data.path DIR"
            )
        if self.conditional and not entry.labelled:
            raise ConfigError(
                f"data.conditional is True; the dataset {self.dataset!r} has no classes: "
                "set --data.no-conditional, or sort the images into one folder a class and use "
                "the dataset 'folder'"
            )

    @property
    def root(self) -> Path:
        """Where the files lie."""
        return Path("data") if self.path is None else self.path


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A whole dataset in memory."""

    name: str
    """What the dataset is called."""
    images: Tensor
    """[N, C, H, W] uint8."""
    labels: Tensor | None
    """[N] int64 in 0 .. len(label_names) - 1; None where unconditional."""
    label_names: tuple[str, ...] | None
    """One name a class; None where unconditional."""
    fingerprint: str
    """sha256 over the pixels and the labels."""
    skipped: tuple[str, ...]
    """"file: reason" for each that could not be used."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> ImageShape:
        """What networks for these images must take and make."""
        return ImageShape(
            resolution=self.images.shape[2],
            channels=self.images.shape[1],
            num_classes=len(self.label_names or ()),
        )

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set on another device.

        Raises:
            DataError: it doesn't fit there.
        """
        try:
            labels = None if self.labels is None else self.labels.to(device)
            return dataclasses.replace(self, images=self.images.to(device), labels=labels)
        except torch.OutOfMemoryError as error:
            raise DataError(
                f"dataset {self.name!r}: {len(self)} images need "
                f"{self.images.nbytes / 2**30:.1f} GiB on {device}, which has less left; "
                "set a smaller --data.resolution, or take fewer images"
            ) from error


def load(config: DataConfig) -> ImageSet:
    """Reads the whole dataset into memory.

    Raises:
        DataError: files are missing, damaged or don't fit; it names them and the remedy.
    """
    raw = DATASETS[config.dataset].load(config)
    if len(raw.images) == 0:
        raise DataError(f"data.path is {config.root}: the dataset {config.dataset!r} is empty")
    images = torch.from_numpy(raw.images)
    if not config.conditional:
        fingerprint = _fingerprint(raw.images, None)
        return ImageSet(config.dataset, images, None, None, fingerprint, raw.skipped)
    if raw.labels is None or raw.label_names is None:
        raise DataError(f"data.conditional is True; the dataset {config.dataset!r} has no classes")
    if len(raw.labels) != len(raw.images) or not 0 <= raw.labels.min() <= raw.labels.max() < len(
        raw.label_names
    ):
        raise DataError(
            f"data.path is {config.root}: {len(raw.images)} images and {len(raw.labels)} labels in "
            f"{raw.labels.min()} .. {raw.labels.max()} for {len(raw.label_names)} classes; "
            "the files don't belong together: fetch them again"
        )
    return ImageSet(
        config.dataset,
        images,
        torch.from_numpy(raw.labels),
        raw.label_names,
        _fingerprint(raw.images, raw.labels),
        raw.skipped,
    )


def _fingerprint(images: np.ndarray, labels: np.ndarray | None) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    if labels is not None:
        digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


class Batches:
    """Deals an ImageSet out: shuffled anew every epoch, without replacement, in batches.

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
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._images))
        return torch.from_numpy(order).to(self._images.device)


def _gather(images: Tensor, index: Tensor) -> Tensor:
    """images[index] as float32 in [-1, 1]: 0 and 255 become exactly -1 and 1, on every device."""
    if images.device.type == "cpu":
        # NumPy stays on this thread; torch would wake the others, which costs more than the work.
        pixels = images.numpy().take(index.numpy(), 0).astype(np.float32)
        pixels -= 127.5
        pixels *= _STEP
        return torch.from_numpy(pixels)
    return (images.index_select(0, index) - 127.5).mul_(_STEP)
