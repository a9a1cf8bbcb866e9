"""The registry of datasets, and the types of their functions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.decoding import Encoded, Form, Origin, Packed, Pixels, Skipped, decode


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A dataset as arrays, before it becomes an `ImageSet`."""

    images: Pixels
    """[N, C, H, W] uint8 of the requested size."""
    labels: npt.NDArray[np.int64] | None = None
    """[N]; None where the dataset has no classes."""
    label_names: tuple[str, ...] | None = None
    skipped: tuple[Skipped, ...] = ()
    origins: tuple[Origin, ...] = ()
    """N of them where the images are files, else none."""
    classes: tuple[str, ...] | None = None
    """The N images' classes where they are known though there are no labels, "" for none."""
    notes: tuple[str, ...] = ()
    """What was decided on the way, in words, for the user."""
    digest: str = ""
    """sha256 over the images and, where they are given, the labels; empty where it isn't known."""
    is_mapped: bool = False
    """True where the images are a file that is mapped into memory, read-only."""
    exact: npt.NDArray[np.float32] | None = None
    """What networks see instead of the bytes, [N, C, H, W]; None where that is the bytes."""


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """Where a dataset's files are, and which form its images shall have."""

    name: str
    """The dataset's name, as in --data.dataset."""
    root: Path
    """Folder of the files."""
    is_given: bool
    """True where the user named that folder; False where it is the default."""
    form: Form
    """What the images become."""
    conditional: bool
    """True where labels are needed."""
    split: str = "auto"
    """One of `training.data.listing.splits.CHOICES`: for people's own images, as all below, and
    for sets that were published in parts, where all but test means train."""
    labels: str = "auto"
    """auto, none, or the path of a list of labels."""
    label_column: str = ""
    """Name of the list's column of labels; empty for the usual ones."""
    class_order: str = "natural"
    """How classes are numbered: natural (2 before 10) or text (10 before 2)."""


Load = Callable[[ImageRequest], Raw]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An entry of DATASETS."""

    load: Load
    labelled: bool
    """True where it has classes, so that conditional training is possible."""
    needs_path: bool
    """True where it can't be downloaded, so that --data.path must be given."""
    own: bool = False
    """True for the user's own images, which are audited before training."""
    downloads: bool = False
    """True where missing files are downloaded."""
    channels: int | None = None
    """Values of a pixel, where the set has no other form."""
    points: bool = False
    """True where the images are points of the plane, 2x1 grey values."""
    built_in: bool = False
    """True where it is made or comes with a library: it reads no path."""
    has_test: bool = False
    """True where it was published in two parts, train and test."""


DATASETS: dict[str, Dataset] = {}


def dataset(
    name: str,
    *,
    labelled: bool,
    needs_path: bool = False,
    own: bool = False,
    downloads: bool = False,
    channels: int | None = None,
    points: bool = False,
    built_in: bool = False,
    has_test: bool = False,
) -> Callable[[Load], Load]:
    """Registers a function in DATASETS under a name; the other arguments are `Dataset`'s fields.

    Raises:
        ValueError: the name is registered already.
    """

    def enter(load: Load) -> Load:
        if name in DATASETS:
            raise ValueError(f"the dataset {name!r} is registered already")
        DATASETS[name] = Dataset(
            load=load,
            labelled=labelled,
            needs_path=needs_path,
            own=own,
            downloads=downloads,
            channels=channels,
            points=points,
            built_in=built_in,
            has_test=has_test,
        )
        return load

    return enter


def decoded(
    request: ImageRequest,
    encoded: Iterable[Encoded | Packed],
    num: int,
    label_names: tuple[str, ...] | None,
) -> Raw:
    """Decodes images to a dataset; without label_names it has no labels.

    Args:
        request: the form of the images.
        encoded: the images, at most num of them.
        num: memory is reserved for so many.
        label_names: one name for each class.

    Raises:
        DataError: the images don't fit into memory.
    """
    result = decode(encoded, request.form, num=num)
    return Raw(
        images=result.images,
        labels=None if label_names is None else result.labels,
        label_names=label_names,
        skipped=result.skipped,
        origins=result.origins,
    )
