"""Which real images a model and its encoder have seen, and what must not be among them.

Those of the model are known by its manifest and by its run. Those of the encoder go with it:

    encoder_images.npz   digests uint64 [n], rising: of the pixels of each real image that the
                         encoder learned from; empty where it learned from the model's own alone

It has neither pixels nor names. Of more than a million images it has those with the smallest
digests, a fair sample. A bundle with an encoder and without this file is of an earlier release, or
its encoder was trained together with the model, from the same images.
"""

import io
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from models.bundle import Bundle
from models.bundle.archive import read_stream
from models.bundle.manifest import Manifest
from models.bundle.part import decoding, read_part
from models.errors import BundleError
from training.data import DataConfig, ImageSet, load
from training.data.config import EARLIER
from training.data.image_set import reordered
from training.data.images_record import digests, names_of
from training.data.sources import DATASETS
from training.errors import CheckpointError, ConfigError, DataError

Say = Callable[[str], None]
ENCODER_IMAGES = "encoder_images.npz"
MOST = 1_000_000
"""The most digests of a record."""
_MAX_BYTES = 16 << 20
_MAX_COPIES = 0.01  # of all images


def encoder_record(seen: ImageSet | None) -> bytes:
    """The content of encoder_images.npz; seen: the real images of the training, if any."""
    digits = "" if seen is None else "".join(digests(seen))
    found = np.unique(np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64))[:MOST]
    buffer = io.BytesIO()
    np.savez(buffer, digests=found)
    return buffer.getvalue()


def encoder_images(bundle: Bundle) -> frozenset[str] | None:
    """Digests of the real images that a bundle's encoder learned from; None where nobody knows.

    Raises:
        CheckpointError: the record was altered, or can't be read.
    """
    try:
        data = read_part(bundle, ENCODER_IMAGES, max_bytes=_MAX_BYTES)
        if data is None:
            return None
        with decoding(bundle.path / ENCODER_IMAGES):
            stream = io.BytesIO(data)
            found = read_stream(stream, names=("digests",), max_bytes=_MAX_BYTES)["digests"]
            if found.dtype != np.uint64 or found.ndim != 1:
                raise ValueError("digests must be uint64 [n]")
    except BundleError as error:
        raise CheckpointError(str(error)) from error
    return frozenset(f"{digest:016x}" for digest in found.tolist())


def trained_options(manifest: Manifest) -> dict[str, Any]:
    """The options of the data that a model was trained on."""
    options = manifest.options.get("data", {})
    return {**EARLIER, **(options if isinstance(options, dict) else {})}


def is_trained_on(manifest: Manifest, image_set: ImageSet, data: DataConfig) -> bool:
    """Whether images are those of a model's training, whatever part of them is taken.

    A published set is known by its name, people's own images by what they are under the options of
    the training: other labels, another share, or one class of them, are the same images.
    """
    trained = trained_options(manifest)
    content = manifest.dataset.content or manifest.dataset.fingerprint
    if image_set.content == content:
        return True
    if DATASETS[data.dataset].own:
        return content in _contents_as_trained(data, trained)
    is_test = trained["split"] == "test", data.split == "test"
    return data.dataset == trained.get("dataset") and is_test[0] == is_test[1]


def require_held_out(manifest: Manifest, image_set: ImageSet, data: DataConfig) -> None:
    """Raises ConfigError where an encoder would see what the model's training held out.

    What is held out follows from an image's pixels and the share: a larger share holds out more.
    """
    share = trained_options(manifest)["held_out"]
    if data.held_out < share and is_trained_on(manifest, image_set, data):
        raise ConfigError(
            f"data.held_out is {data.held_out:g}, allowed: {share:g} or more, as {manifest.name} "
            "was trained with: the encoder would see what the training held out, and calibrate "
            f"needs those images unseen; leave --data.held-out out, or give {share:g}"
        )


def without_recorded(
    image_set: ImageSet, recorded: Collection[str], say: Say, *, by: str = "the model"
) -> ImageSet:
    """The images that are not among those of a training.

    A few may be: sets hold copies, and small images are alike by chance. They are left out.

    Args:
        image_set: the images.
        recorded: digests of those of the training.
        say: told what was left out.
        by: what was trained on them, for messages.

    Raises:
        ConfigError: they are more than one in a hundred: it is the same data.
    """
    if not recorded:
        return image_set
    fresh = np.array([digest not in recorded for digest in digests(image_set)])
    num = int((~fresh).sum())
    if num > _MAX_COPIES * len(image_set):
        names = names_of(image_set)
        seen = [names[place] for place in np.flatnonzero(~fresh)[:3]]
        shown = ", ".join(seen) + (", ..." if num > len(seen) else "")
        raise ConfigError(
            f"data is in part what {by} was trained on: {num:,} of {len(image_set):,} "
            f"images ({shown}); their scores are too low: leave them out, or give others with "
            "--data.path"
        )
    if num:
        say(f"left out: {num:,} images that {by} was trained on, pixel by pixel")
        return reordered(image_set, np.flatnonzero(fresh))
    return image_set


def _contents_as_trained(data: DataConfig, trained: dict[str, Any]) -> set[str]:
    """What these images are under the training's options: the class, the share, the labels."""
    found = set()
    options = {name: trained[name] for name in ("held_out", "conditional") if name in trained}
    for only in {data.only, trained["only"]}:
        candidate = replace(data, **options, only=only)
        if candidate == data:
            continue  # is known already
        try:
            found.add(load(candidate).content)
        except (ConfigError, DataError):  # they have no such class, or can't be so divided
            continue
    return found
