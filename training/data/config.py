"""The options of the training data, checked before any file is read."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import ImageColor

from models.networks import ImageShape
from training.data.decoding import FITS, MAX_PIXELS, Fit, Form, Which
from training.data.sources import DATASETS, Dataset, ImageRequest
from training.data.weights import check
from training.errors import ConfigError

_SIZE = re.compile(r"([0-9]{1,6})(?:x([0-9]{1,6}))?")
_MAX_SIDE = 1024
_MOST_HELD_OUT = 0.5

EARLIER: dict[str, Any] = {
    "fit": "crop",
    "background": "white",
    "frames": "first",
    "max_pixels": MAX_PIXELS,
    "split": "none",
    "labels": "none",
    "label_column": "",
    "class_order": "text",
    "held_out": 0.0,
    "only": "",
}
"""What a configuration means that lacks these options, as those of earlier releases do: their
runs go on, and their models are measured, on the data as it was for them."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images to train on, and their form."""

    dataset: str = "digits"
    """Name of the set: digits (embedded), mnist, fashion-mnist, kmnist, cifar10, celeba, lsun,
    stacked-mnist, emoji (an installed font), ring-8 and grid-25 (points of the plane), points (a
    CSV file of your own), or folder for any folder of images."""
    path: Path | None = None
    """Folder that holds the set's files; ./data by default. Required for folder, whose images may
    also lie in a .zip or .tar archive, in WebDataset's shards, or packed."""
    resolution: int | str = 32
    """Size of the images in pixels: 64 for squares, or WIDTHxHEIGHT such as 64x96."""
    fit: Fit = "crop"
    """How images of another shape come to this one: crop around the centre, pad with the
    background, or stretch."""
    channels: Literal[1, 3, 4] = 1
    """1 (grey), 3 (RGB) or 4 (RGB and alpha) values per pixel; images are converted."""
    background: str = "grey"
    """Colour behind transparent places: a name of CSS, #rrggbb or rgb(r, g, b). With 4 channels it
    is the hidden colour of places that are wholly transparent."""
    max_pixels: int = MAX_PIXELS
    """Width times height of a file at most; a larger one is not used."""
    frames: Which = "one"
    """Of an animation the middle frame and of several pages the largest (one); first, or all."""
    conditional: bool = True
    """Give the networks the class of each image; a folder's classes are its labels or its first
    level of subfolders."""
    split: Literal["auto", "none", "all", "train", "val", "test"] = "auto"
    """Which of a folder's parts train/, val/ and test/ to take. auto: train where there are such
    parts; none: such folders are classes. Of mnist, fashion-mnist, kmnist and cifar10: train, or
    test."""
    labels: str = "auto"
    """File of labels of a folder's images (.csv, .json, .jsonl), by path or by its name in the
    data. auto: dataset.json, metadata.csv and the like, or else subfolders; none: subfolders."""
    label_column: str = ""
    """Column of that file which holds the classes; by default label, class, category and such."""
    class_order: Literal["natural", "text"] = "natural"
    """How a folder's classes are numbered: 1, 2, 10 (natural) or 1, 10, 2 (text)."""
    mirror: bool = False
    """Show each real image mirrored left to right half of the times: for images without writing,
    whose left and right don't matter, it doubles the data."""
    held_out: float = 0.0
    """Share of the images that is kept from the training, to measure how far D overfits
    (watch.held_out_gap); 0 for none. Which ones follows from their pixels."""
    only: str = ""
    """The one class to take, by name, for a model of what is usual; the others are left out. It
    needs --data.no-conditional. Empty for all images."""
    weights: tuple[str, ...] = ()
    """How often to draw an image relative to others: CLASS=WEIGHT or PATH=WEIGHT, or a .csv or
    .json file of these."""

    def __post_init__(self) -> None:
        """Checks the options.

        Raises:
            ConfigError: an option is not allowed, or doesn't fit the dataset.
        """
        if self.dataset not in DATASETS:
            raise ConfigError(
                f"data.dataset is {self.dataset!r}; choose one of {', '.join(sorted(DATASETS))}"
            )
        if self.channels not in (1, 3, 4):
            raise ConfigError(
                f"data.channels is {self.channels}; allowed are 1 (grey), 3 (RGB) and 4 (RGB and "
                "alpha)"
            )
        if self.frames not in get_args(Which):
            allowed = ", ".join(get_args(Which))
            raise ConfigError(f"data.frames is {self.frames!r}; allowed are {allowed}")
        if self.max_pixels < 1:
            raise ConfigError(f"data.max_pixels is {self.max_pixels}; allowed are 1 or more")
        colour(self.background)
        self._set_resolution()
        if self.fit not in FITS:
            raise ConfigError(f"data.fit is {self.fit!r}; allowed are {', '.join(FITS)}")
        entry = DATASETS[self.dataset]
        self._check_path(entry)
        if self.conditional and not entry.labelled:
            raise ConfigError(
                f"data.conditional is True; the dataset {self.dataset!r} has no classes: "
                "set --data.no-conditional, or sort the images into one folder a class and use "
                "the dataset 'folder'"
            )
        if not 0 <= self.held_out <= _MOST_HELD_OUT:
            raise ConfigError(
                f"data.held_out is {self.held_out}; allowed are 0 .. {_MOST_HELD_OUT}, a share"
            )
        self._check_only(entry)
        check(self.weights)
        self._require_form(entry)
        if not entry.own:
            self._check_split(entry)
            self._require_unused("labels", "label_column", "class_order")

    def _check_path(self, entry: Dataset) -> None:
        if entry.needs_path and self.path is None:
            raise ConfigError(
                f"data.path is not given; the dataset {self.dataset!r} needs it: --data.path DIR"
            )
        if entry.built_in and self.path is not None:
            own = "points" if entry.points else "folder"
            raise ConfigError(
                f"data.path is {str(self.path)!r}; the dataset {self.dataset!r} needs no files and "
                f"reads none: leave it out, or set --data.dataset {own} for what lies there"
            )

    def _check_split(self, entry: Dataset) -> None:
        if not entry.has_test:
            self._require_unused("split")
        elif self.split not in ("auto", "none", "train", "test"):
            raise ConfigError(
                f"data.split is {self.split!r}; the dataset {self.dataset!r} has the parts train "
                "and test: name one of them"
            )

    def _check_only(self, entry: Dataset) -> None:
        if self.only and self.conditional:
            raise ConfigError(
                f"data.only is {self.only!r}; one class leaves nothing to tell apart: set "
                "--data.no-conditional"
            )
        if self.only and not entry.labelled:
            raise ConfigError(
                f"data.only is {self.only!r}; the dataset {self.dataset!r} has no classes: leave "
                "it out"
            )

    def _require_form(self, entry: Dataset) -> None:
        """Refuses forms that the dataset can't have.

        Raises:
            ConfigError: it has other channels; or points of the plane are to be others than 2x1
                grey values, or their x and y would be exchanged.
        """
        if entry.channels not in (None, self.channels):
            raise ConfigError(
                f"data.channels is {self.channels}; the dataset {self.dataset!r} has "
                f"{entry.channels}: set --data.channels {entry.channels}"
            )
        if not entry.points:
            return
        if (self.width, self.height, self.channels) != (2, 1, 1):
            raise ConfigError(
                f"data.resolution is {self.resolution} with {self.channels} channels; the points "
                f"of {self.dataset!r} are 2x1 with 1 channel: start from the recipe "
                f"{self.dataset!r}, or set --data.resolution 2x1 --data.channels 1"
            )
        if self.mirror:
            raise ConfigError(
                f"data.mirror is True; it would exchange x and y of {self.dataset!r}, whose images "
                "are points: leave it out"
            )

    def _require_unused(self, *options: str) -> None:
        """Refuses options that only people's own images use.

        Raises:
            ConfigError: one of them was given.
        """
        for option in options:
            value = getattr(self, option)
            field = type(self).__dataclass_fields__[option]
            if value not in (field.default, EARLIER[option]):
                own = ", ".join(repr(name) for name, entry in DATASETS.items() if entry.own)
                raise ConfigError(
                    f"data.{option} is {value!r}; the dataset {self.dataset!r} doesn't use it, "
                    f"{own} does: leave it out"
                )

    def _set_resolution(self) -> None:
        """Checks the resolution; "64" and "64x64" become 64, as in every earlier release."""
        match = _SIZE.fullmatch(str(self.resolution))
        sides = [int(side) for side in match.groups() if side is not None] if match else []
        if not sides or not all(1 <= side <= _MAX_SIDE for side in sides):
            raise ConfigError(
                f"data.resolution is {self.resolution}; allowed are 1 .. {_MAX_SIDE} pixels, "
                "as one number for squares or as WIDTHxHEIGHT such as 64x96"
            )
        square = len(set(sides)) == 1
        object.__setattr__(self, "resolution", sides[0] if square else "x".join(map(str, sides)))

    @property
    def width(self) -> int:
        """Of the images, in pixels."""
        return int(str(self.resolution).partition("x")[0])

    @property
    def height(self) -> int:
        """Of the images, in pixels."""
        return int(str(self.resolution).rpartition("x")[2])

    @property
    def shape(self) -> ImageShape:
        """The images' shape, as far as it is known before they are read: without classes."""
        return ImageShape(resolution=(self.height, self.width), channels=self.channels)

    @property
    def form(self) -> Form:
        """What images are decoded to."""
        return Form(
            height=self.height,
            width=self.width,
            channels=self.channels,
            fit=self.fit,
            background=colour(self.background),
            max_pixels=self.max_pixels,
            frames=self.frames,
        )

    @property
    def root(self) -> Path:
        """Folder of the files."""
        return Path("data") if self.path is None else self.path

    @property
    def request(self) -> ImageRequest:
        """The same options as the functions in `training.data.sources` take them."""
        return ImageRequest(
            name=self.dataset,
            root=self.root,
            is_given=self.path is not None,
            form=self.form,
            conditional=self.conditional,
            split=self.split,
            labels=self.labels,
            label_column=self.label_column,
            class_order=self.class_order,
        )


def colour(text: str) -> tuple[int, int, int]:
    """Reads --data.background to red, green and blue.

    Raises:
        ConfigError: it is no colour, or a transparent one.
    """
    with contextlib.suppress(ValueError):
        found = ImageColor.getrgb(text)
        if len(found) == 3:
            return found
    raise ConfigError(
        f"data.background is {text!r}; allowed is an opaque colour by its CSS name, #rrggbb or "
        "rgb(r, g, b): for instance white or '#ff8800'"
    )
