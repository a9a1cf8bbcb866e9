"""Which images to train on, and their form: checked before anything is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.data.weights import check
from training.datasets import DATASETS
from training.errors import ConfigError


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
    weights: tuple[str, ...] = ()
    """How often to draw an image beside others: CLASS=WEIGHT or PATH=WEIGHT, or a .csv or .json
    file of these."""

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
        check(self.weights)

    @property
    def root(self) -> Path:
        """Where the files lie."""
        return Path("data") if self.path is None else self.path
