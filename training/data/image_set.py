"""A whole dataset in memory, read by the name of its entry in `training.datasets`."""

import dataclasses
import hashlib
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.networks import ImageShape
from training.data.config import DataConfig
from training.data.weights import read, weigh
from training.datasets import DATASETS
from training.datasets.registry import Raw
from training.decode import Origin, Skipped
from training.errors import DataError

_NUM_STAND_IN, _CLASSES_STAND_IN = 50_000, 10


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
    """sha256 over the pixels, the labels and the weights, as far as there are any."""
    skipped: tuple[Skipped, ...]
    """Files that could not be used."""
    weights: Tensor | None = None
    """[N] float64, 0 or more: how often each image is drawn beside the others; None for equally."""
    origins: tuple[Origin, ...] = ()
    """What each image was as a file, where it was one."""
    classes: tuple[str, ...] | None = None
    """The class of each image, whether networks are told or not; "" for an image in none."""
    content: str = ""
    """sha256 over the pixels and the labels alone: what figures are compared by. The fingerprint
    where none is given."""

    def __post_init__(self) -> None:
        """Without weights, the two digests are one."""
        object.__setattr__(self, "content", self.content or self.fingerprint)

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
    if config.conditional:
        _require_labels(config, raw)
    classes = _classes(raw)
    weights = None
    if config.weights:
        weights = weigh(
            read(config.weights),
            num=len(raw.images),
            classes=classes,
            paths=[origin.name for origin in raw.origins] if raw.origins else None,
        )
    labels = raw.labels if config.conditional else None
    return ImageSet(
        config.dataset,
        torch.from_numpy(raw.images),
        None if labels is None else torch.from_numpy(labels),
        raw.label_names if config.conditional else None,
        _fingerprint(raw.images, labels, weights),
        raw.skipped,
        weights=None if weights is None else torch.from_numpy(weights),
        origins=raw.origins,
        classes=classes,
        content=_fingerprint(raw.images, labels),
    )


def stand_in(config: DataConfig) -> ImageSet:
    """A set of the same form without its images, for checks that don't look at them."""
    size = (config.channels, config.resolution, config.resolution)
    images = torch.zeros(1, *size, dtype=torch.uint8).expand(_NUM_STAND_IN, *size)
    labels = torch.arange(_NUM_STAND_IN) % _CLASSES_STAND_IN
    names = tuple(map(str, range(_CLASSES_STAND_IN)))
    return ImageSet(
        config.dataset,
        images,
        labels if config.conditional else None,
        names if config.conditional else None,
        fingerprint="",
        skipped=(),
        classes=tuple(names[label] for label in labels.tolist()),
    )


def _require_labels(config: DataConfig, raw: Raw) -> None:
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


def _classes(raw: Raw) -> tuple[str, ...] | None:
    """The class of each image: its label's name, or the first folder on its path."""
    if raw.labels is not None and raw.label_names is not None:
        return tuple(raw.label_names[label] for label in raw.labels)
    classes = tuple(o.name.rpartition(os.sep)[0].split(os.sep)[0] for o in raw.origins)
    return classes if any(classes) else None


def _fingerprint(*parts: np.ndarray | None) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if part is not None:
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
