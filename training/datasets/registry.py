"""What a dataset is, and the registry that datasets enter by decorator."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from training.decode import Encoded, Origin, Pixels, Skipped, decode

if TYPE_CHECKING:
    from training.data import DataConfig


@dataclass(frozen=True, kw_only=True)
class Raw:
    """What a dataset gives: pixels of the size asked for, and labels where it has classes."""

    images: Pixels  # [N, C, H, W]
    labels: npt.NDArray[np.int64] | None = None  # [N]
    label_names: tuple[str, ...] | None = None
    skipped: tuple[Skipped, ...] = ()
    origins: tuple[Origin, ...] = ()  # of each image, where they are files


Load = Callable[["DataConfig"], Raw]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An entry of DATASETS."""

    load: Load
    labelled: bool
    needs_path: bool
    own: bool = False
    downloads: bool = False


DATASETS: dict[str, Dataset] = {}


def dataset(
    name: str,
    *,
    labelled: bool,
    needs_path: bool = False,
    own: bool = False,
    downloads: bool = False,
) -> Callable[[Load], Load]:
    """Enters a function into DATASETS under a name.

    Args:
        name: as in --data.dataset.
        labelled: it has classes, so conditional training is possible.
        needs_path: it can't be downloaded, so --data.path must be given.
        own: the user made it, so nobody has looked for faults yet: it is audited before training.
        downloads: it fetches its files where they aren't there.
    """

    def enter(load: Load) -> Load:
        if name in DATASETS:
            raise ValueError(f"the dataset {name!r} is registered already")
        DATASETS[name] = Dataset(
            load=load, labelled=labelled, needs_path=needs_path, own=own, downloads=downloads
        )
        return load

    return enter


def decoded(
    config: "DataConfig", encoded: Iterable[Encoded], num: int, label_names: tuple[str, ...] | None
) -> Raw:
    """Raw of encoded images; without label_names, without labels."""
    result = decode(encoded, num=num, resolution=config.resolution, channels=config.channels)
    return Raw(
        images=result.images,
        labels=None if label_names is None else result.labels,
        label_names=label_names,
        skipped=result.skipped,
        origins=result.origins,
    )
