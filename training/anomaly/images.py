"""The three sets of images that a judgement needs: learned from, calibrated on, tested with.

Those that were learned from are the model's own, by its manifest and its run; the calibration's
follow from them, those of the encoder are named in the bundle. Test images that are in any of
them are left out.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.bundle.generator import Images
from training.cli.arguments import peek
from training.data import DataConfig, ImageSet, load
from training.data.images_record import digests
from training.data.sources import DATASETS
from training.errors import ConfigError, require
from training.inversion.calibrate_command import FIGURE
from training.inversion.opened import Opened, as_bytes, require_fitting
from training.inversion.seen import encoder_images, without_recorded
from training.runs.model_data import data_of

Say = Callable[[str], None]


@dataclass(frozen=True)
class Learned:
    """What the model and the other methods have from usual images."""

    train: ImageSet
    calibration: ImageSet | None
    """None where they aren't known: the calibration was made with other images."""


@dataclass(frozen=True)
class Unseen:
    """Images that nothing has seen."""

    images: Images
    """[N, H, W, C]."""
    is_usual: npt.NDArray[np.bool_]
    """[N]."""


def default_data(bundle: Bundle, words: Sequence[str], say: Say) -> DataConfig:
    """All classes of the test part of the model's data, or the data that options name."""
    data = data_of(bundle, words, say=say)
    entry = DATASETS[data.dataset]
    is_same = data.dataset == bundle.manifest.options.get("data", {}).get("dataset")
    has_parts = entry.has_test or (entry.own and peek(words, "--data.path") is None)
    return replace(
        data,
        only="",
        held_out=0.0,
        conditional=False,
        weights=(),
        split="test" if is_same and has_parts else "auto",
    )


def learned(bundle: Bundle, runs: Path, path: Path | None, say: Say) -> Learned:
    """The images that the model was trained on, and those that it was calibrated with.

    Args:
        bundle: the model.
        runs: folder of runs, which know where people's own images lay.
        path: where they lie now; None for where they lay.
        say: told what is missing.

    Raises:
        ConfigError: they aren't there, or were changed.
    """
    manifest = bundle.manifest
    words = ["--runs", str(runs), *([] if path is None else ["--data.path", str(path)])]
    config = data_of(bundle, words, say=say)
    train = load(config if path is None else replace(config, path=path))
    if train.content != (manifest.dataset.content or manifest.dataset.fingerprint):
        raise ConfigError(
            f"trained_on is {str(path or config.root)!r}: the images there are not those that "
            f"{manifest.name} was trained on ({len(train):,}, or others); restore them, or name "
            "their folder with --trained-on"
        )
    protocol = next((m.protocol for m in manifest.metrics if m.name == FIGURE), {})
    num = next((round(m.value) for m in manifest.metrics if m.name == FIGURE), 0)
    if train.held_out is None or train.held_out.content != protocol.get("content"):
        say(
            "note: the model was calibrated with other images than --data.held-out kept apart, so "
            "that the other methods have no false-alarm rate, and nobody knows whether some of "
            "those images are among the test images: see to it that none are"
        )
        return Learned(train, None)
    return Learned(train, train.held_out.subset(num))


def unseen_images(
    model: Opened, data: DataConfig, normal: tuple[str, ...], known: Learned, say: Say
) -> Unseen:
    """Loads the test images; normal: the classes that are usual.

    Raises:
        ConfigError: they don't fit the model, have one kind alone, or it or its encoder saw them.
    """
    image_set = load(data)
    require_fitting(model, image_set)
    for part in (known.train, known.calibration):
        if part is not None:
            image_set = _without(image_set, frozenset(digests(part)), say, "the model")
    image_set = _without(image_set, encoder_images(model.bundle) or (), say, "the encoder")
    classes = image_set.classes or ()
    named = sorted(set(classes) - {""})
    shown = ", ".join(named[:20]) or "none: give a folder with one subfolder a class"
    for each in normal:
        require(each in named, "normal", each, f"classes of the test images ({shown})", "--normal")
    if "" in classes:
        raise ConfigError(
            f"data has {classes.count('')} images without a class; every test image needs one: "
            "leave them out"
        )
    is_usual = np.isin(np.array(classes), normal)
    if is_usual.all():
        raise ConfigError(
            f"data has the classes {shown} alone, and all are usual; allowed: some images of other "
            "classes, too: give test images with --data.path"
        )
    say(f"test images: {is_usual.sum():,} usual ({', '.join(normal)}), {(~is_usual).sum():,} not")
    return Unseen(as_bytes(image_set), is_usual)


def _without(image_set: ImageSet, recorded: Collection[str], say: Say, by: str) -> ImageSet:
    try:
        return without_recorded(image_set, recorded, say, by=by)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; test images of the same data are --data.split test, where it has them"
        ) from None
