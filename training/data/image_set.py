"""A whole dataset in memory, and the function that loads it."""

import dataclasses
import hashlib
import math
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.networks import ImageShape
from training.data.config import DataConfig
from training.data.decoding import Origin, Skipped
from training.data.sources import DATASETS
from training.data.sources.registry import Raw
from training.data.weights import read, weigh
from training.errors import DataError

_NUM_PLACEHOLDERS, _NUM_CLASSES = 50_000, 10
_LEAST_HELD_OUT = 2
_MIX = 2_654_435_761  # Knuth's multiplicative hash


_MOST = 0.5  # of a GPU's free memory that images may take: networks need the rest


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A whole dataset in memory."""

    name: str
    """Entry of DATASETS."""
    images: Tensor
    """[N, C, H, W] uint8."""
    labels: Tensor | None
    """[N] int64 in 0 .. len(label_names) - 1; None where unconditional."""
    label_names: tuple[str, ...] | None
    """One name for each class; None where unconditional."""
    fingerprint: str
    """sha256 over the pixels and, if there are any, the labels and the weights."""
    skipped: tuple[Skipped, ...]
    """Files that could not be used."""
    weights: Tensor | None = None
    """[N] float64, 0 or more: how often each image is drawn, relative to the others; None for
    equal weights."""
    origins: tuple[Origin, ...] = ()
    """The N images' files; empty where they weren't files."""
    classes: tuple[str, ...] | None = None
    """The N images' classes, also in an unconditional set; "" for an image without one."""
    is_mapped: bool = False
    """True where the images are a file that is mapped into memory: read-only, and perhaps larger
    than the memory. They stay on the host whatever the device."""
    place: torch.device | None = None
    """Device of the training, where it isn't the images'."""
    notes: tuple[str, ...] = ()
    """What was decided when the data was read, in words."""
    exact: Tensor | None = None
    """What networks see instead of the bytes, [N, C, H, W] float32, beside the images on every
    device; None where they see the bytes, from -1 to 1."""
    held_out: "ImageSet | None" = None
    """Images that are kept from the training; None for none."""
    content: str = ""
    """sha256 over the pixels and the labels, without the weights: figures of equal content can be
    compared. The fingerprint by default."""

    def __post_init__(self) -> None:
        """Sets `content` where it isn't given: without weights the two digests are equal."""
        object.__setattr__(self, "content", self.content or self.fingerprint)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> ImageShape:
        """The shape of these images, for the networks."""
        return ImageShape(
            resolution=(self.images.shape[2], self.images.shape[3]),
            channels=self.images.shape[1],
            num_classes=len(self.label_names or ()),
        )

    def seen(self, index: slice) -> Tensor:
        """What networks see of some images, [n, C, H, W] float32, from -1 to 1 if not exact."""
        if self.exact is not None:
            return self.exact[index]
        return self.images[index].float() / 127.5 - 1

    @property
    def device(self) -> torch.device:
        """The device of the training: the images', except of mapped ones."""
        return self.place or self.images.device

    def subset(self, num: int) -> "ImageSet":
        """At most num of its images, evenly spaced, in memory."""
        if num >= len(self):
            return self
        index = torch.linspace(0, len(self) - 1, num, dtype=torch.float64).round().long()
        chosen = index.tolist()
        return dataclasses.replace(
            self,
            images=self.images[index.to(self.images.device)],
            labels=None if self.labels is None else self.labels[index.to(self.labels.device)],
            weights=None if self.weights is None else self.weights[index.to(self.weights.device)],
            exact=None if self.exact is None else self.exact[index.to(self.exact.device)],
            origins=tuple(self.origins[i] for i in chosen) if self.origins else (),
            classes=None if self.classes is None else tuple(self.classes[i] for i in chosen),
            is_mapped=False,
        )

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set on another device; on the host, for that device, where it is too large.

        Batches of such a set are copied one ahead (`training.data.Batches`).
        """
        device = torch.device(device)
        elsewhere = device != self.images.device
        if self.is_mapped or (elsewhere and self.images.nbytes > _MOST * free_bytes(device)):
            return dataclasses.replace(self, place=device)
        labels = None if self.labels is None else self.labels.to(device)
        exact = None if self.exact is None else self.exact.to(device)
        held_out = None if self.held_out is None else self.held_out.to(device)
        return dataclasses.replace(
            self,
            images=self.images.to(device),
            labels=labels,
            exact=exact,
            place=None,
            held_out=held_out,
        )


def free_bytes(device: torch.device) -> float:
    """Memory that a GPU has left; any other device has enough."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf


def reordered(image_set: ImageSet, order: npt.NDArray[np.int64]) -> ImageSet:
    """The same images in another order, or some of them. order: indices."""
    index = torch.from_numpy(order)

    def taken(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[index.to(values.device)]

    images, labels, weights = map(taken, (image_set.images, image_set.labels, image_set.weights))
    assert images is not None
    exact = taken(image_set.exact)
    arrays = [
        None if each is None else each.cpu().numpy() for each in (images, exact, labels, weights)
    ]
    classes, origins = image_set.classes, image_set.origins
    return dataclasses.replace(
        image_set,
        images=images,
        labels=labels,
        weights=weights,
        exact=exact,
        fingerprint=_fingerprint(*arrays),
        content=_fingerprint(*arrays[:3]),
        origins=tuple(origins[i] for i in order) if origins else (),
        classes=None if classes is None else tuple(classes[i] for i in order),
    )


def load(config: DataConfig) -> ImageSet:
    """Reads the dataset, or one class of it, into memory, and keeps apart what is held out.

    Raises:
        DataError: files are missing or damaged, or the images don't fit into memory.
    """
    whole = _loaded(config)
    if config.only:
        whole = _of_class(whole, config.only)
    return whole if not config.held_out else _held_apart(whole, config.held_out)


def _of_class(whole: ImageSet, name: str) -> ImageSet:
    """The images of one class."""
    classes = whole.classes or ()
    chosen = np.array([i for i, each in enumerate(classes) if each == name], np.int64)
    if not len(chosen):
        found = ", ".join(sorted(set(classes) - {""})[:20]) or "none"
        raise DataError(f"data.only is {name!r}; the data has the classes {found}: name one")
    return reordered(whole, chosen)


def _held_apart(whole: ImageSet, share: float) -> ImageSet:
    """The images to train on, with the others beside them.

    An image's pixels decide, so that neither names nor order matter, and its copies stay together.
    """
    if whole.is_mapped:
        raise DataError(
            "data.held_out: packed images are mapped into memory as they are; leave it out, or "
            "train on the folder that they were packed from"
        )
    images = whole.images.numpy()
    numbers = np.array([zlib.crc32(np.ascontiguousarray(image).data) for image in images])
    # The checksum of small pictures isn't spread evenly in its first bits: mixed once more.
    chosen = (numbers * _MIX % 2**32) < share * 2**32
    parts = [reordered(whole, np.flatnonzero(mask)) for mask in (~chosen, chosen)]
    kept, held_out = parts
    if min(len(kept), len(held_out)) < _LEAST_HELD_OUT:
        raise DataError(
            f"data.held_out is {share:g}: of {len(whole)} images {len(held_out)} would be held out "
            f"and {len(kept)} kept; {_LEAST_HELD_OUT} of each are needed: set another share"
        )
    return dataclasses.replace(kept, held_out=held_out)


def _loaded(config: DataConfig) -> ImageSet:
    raw = DATASETS[config.dataset].load(config.request)
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
        _tensor(raw),
        None if labels is None else torch.from_numpy(labels),
        raw.label_names if config.conditional else None,
        _digest(raw, labels, weights),
        raw.skipped,
        weights=None if weights is None else torch.from_numpy(weights),
        origins=raw.origins,
        classes=classes,
        notes=raw.notes,
        content=_digest(raw, labels, None),
        is_mapped=raw.is_mapped,
        exact=None if raw.exact is None else torch.from_numpy(raw.exact),
    )


def placeholder(config: DataConfig) -> ImageSet:
    """An image set of the right shape without images, for a dry run that downloads nothing."""
    size = (config.channels, config.height, config.width)
    images = torch.zeros(1, *size, dtype=torch.uint8).expand(_NUM_PLACEHOLDERS, *size)
    labels = torch.arange(_NUM_PLACEHOLDERS) % _NUM_CLASSES
    names = tuple(map(str, range(_NUM_CLASSES)))
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
    """The class of each image: what is known of it, or its label's name."""
    if raw.classes is not None:
        return raw.classes
    if raw.labels is not None and raw.label_names is not None:
        return tuple(raw.label_names[label] for label in raw.labels)
    return None


def _tensor(raw: Raw) -> Tensor:
    """The images, without a copy."""
    with warnings.catch_warnings():  # that mapped ones can't be written to is meant
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(raw.images)


def _digest(raw: Raw, labels: np.ndarray | None, weights: np.ndarray | None) -> str:
    """The fingerprint, which is known already of packed images without weights."""
    if raw.digest and weights is None:
        return raw.digest
    return _fingerprint(raw.images, raw.exact, labels, weights)


def _fingerprint(*parts: np.ndarray | None) -> str:
    """sha256 over the arrays that aren't None."""
    digest = hashlib.sha256()
    for part in parts:
        if part is not None:
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
