"""The commands of `python -m training.interpretation`, as dataclasses of their options."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.bundle.archive import read_arrays
from models.bundle.directions import DIRECTIONS
from models.bundle.generator import CpuGenerator, Images, Sampler
from models.bundle.manifest import ImageSpec
from models.latents import as_seeds
from models.repository import Repository
from training.cli.command import resumed
from training.data import ImageSet, load
from training.errors import ConfigError, ExportError, TrainingError, require
from training.evaluation.features.base import Rows, Source, random_features
from training.evaluation.features.classifier import classifier_features
from training.export.onnx_graphs import byte_generator
from training.interpretation.artifacts import Real
from training.interpretation.concepts import class_logits
from training.interpretation.directions import NUM, Subject, find_directions
from training.interpretation.dissected import Dissected
from training.interpretation.part import PICTURE
from training.interpretation.published import open_model, publish, write_files
from training.interpretation.sheet import sheet, table
from training.interpretation.trained import trained_generator
from training.interpretation.unit_files import unit_files, units_table
from training.interpretation.units import find_units

Say = Callable[[str], None]
_MAX_NUM = 256
_MAX_MASK_BYTES, _LEAST_MASKS = 1 << 30, 16
_MAX_LATENTS = 100_000
_MAX_REAL = 4000


@dataclass(frozen=True, kw_only=True)
class DirectionsCommand:
    """Directions in which the pixels change most, what follows them, and names where that allows.

    They are printed as a table. --out writes them and their pictures into a folder; --publish
    publishes the model with them as its next version.
    """

    repository: Path = Path("model-repository")
    """Folder of published models."""
    num: int = NUM
    """The most directions of a kind."""
    latents: int | None = None
    """Latents over which the change is averaged; by default 256, fewer of large images."""
    out: Path | None = None
    """Folder for directions.npz and a picture of each kind."""
    publish: bool = False
    """Publish the model with its directions, as the next version of its name."""

    def run(self, model: str, say: Say) -> str:
        """Finds the directions, writes what was asked for, and returns the table."""
        require(1 <= self.num <= _MAX_NUM, "num", self.num, f"1 .. {_MAX_NUM}", "set --num")
        fits = self.latents is None or 1 <= self.latents <= _MAX_LATENTS
        require(fits, "latents", self.latents, f"1 .. {_MAX_LATENTS:,}", "set --latents")
        bundle, run = open_model(model, self.repository)
        data = _data(run, say)
        generate = CpuGenerator(bundle.model_path)
        subject = Subject(
            G=trained_generator(bundle),
            z_dim=bundle.manifest.z_dim,
            num_classes=len(bundle.manifest.labels or ()),
            classes=class_logits(data) if data is not None else {},
        )
        found = find_directions(subject, generate, num=self.num, latents_each=self.latents)
        files = {DIRECTIONS: found.to_bytes(), PICTURE: sheet(found, "z")}
        if self.out is not None:
            pictures = {f"{name}.png": sheet(found, name) for name in found.sets if name != "z"}
            write_files(self.out, {**files, **pictures}, say)
        if self.publish:
            publish(bundle, files, Repository(self.repository), say, what="directions")
        return table(found)


@dataclass(frozen=True, kw_only=True)
class UnitsCommand:
    """Which feature maps agree with which concept, and what sets of them do when they are off.

    Two tables are printed, and for a run a third: the units without which images are closer to its
    data. --out writes units.onnx, which takes a mask over the units, and units.npz; --publish
    publishes the model with them as its next version.
    """

    repository: Path = Path("model-repository")
    """Folder of published models."""
    num_images: int = 256
    """Images of each of the two measurements."""
    set_size: int = 4
    """Units of a set that is switched off."""
    masks: Path | None = None
    """An .npz file of your own concepts: "seeds" [N], and by name where each is on the images of
    these seeds, boolean [N, H, W]."""
    out: Path | None = None
    """Folder for units.onnx and units.npz."""
    publish: bool = False
    """Publish the model with its units, as the next version of its name."""

    def run(self, model: str, say: Say) -> str:
        """Finds the units, writes what was asked for, and returns the tables."""
        num, most = self.num_images, 10_000
        require(16 <= num <= most, "num_images", num, f"16 .. {most:,}", "set --num-images")
        require(1 <= self.set_size <= 256, "set_size", self.set_size, "1 .. 256", "set --set-size")
        bundle, run = open_model(model, self.repository)
        manifest, G = bundle.manifest, trained_generator(bundle)
        num_classes = len(manifest.labels or ())
        seeds, masks = _masks(self.masks, manifest.image)
        data = _data(run, say)
        subject = Dissected(
            G=G,
            z_dim=manifest.z_dim,
            num_classes=num_classes,
            classes=class_logits(data) if data is not None else {},
            masks=masks,
            seeds=seeds,
        )
        real = None if data is None else _real(data, num)
        found = find_units(subject, num_images=num, set_size=self.set_size, real=real)
        if not found.layers:
            raise ExportError(f"MODEL is {model!r}, whose network has no feature maps: no units")
        whole = CpuGenerator(bundle.model_path)
        files = unit_files(
            byte_generator(G, z_dim=manifest.z_dim, num_classes=num_classes),
            Sampler(whole, z_dim=manifest.z_dim, num_classes=num_classes),
            found,
            manifest.z_dim,
            conditional=manifest.conditional,
        )
        if self.out is not None:
            write_files(self.out, files, say)
        if self.publish:
            publish(bundle, files, Repository(self.repository), say, what="units")
        return units_table(found)


def _masks(
    path: Path | None, image: ImageSpec
) -> tuple[npt.NDArray[np.uint64] | None, dict[str, npt.NDArray[np.bool_]]]:
    """Reads the user's concepts.

    Raises:
        ConfigError: the file can't be read, or its arrays don't fit.
    """
    if path is None:
        return None, {}
    try:
        arrays = read_arrays(path, names=None, max_bytes=_MAX_MASK_BYTES)
        seeds = as_seeds(arrays.pop("seeds").tolist())
    except Exception as error:  # bytes that are no archive make zlib and NumPy raise anything
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"masks is {str(path)!r}: {reason}; it must be an .npz file with seeds and masks"
        ) from error
    shape = (len(seeds), image.height, image.width)
    for name, mask in arrays.items():
        fits = mask.shape == shape and mask.dtype == np.bool_ and len(seeds) >= _LEAST_MASKS
        allowed = f"boolean {list(shape)}, of {_LEAST_MASKS} seeds or more"
        given = f"{mask.dtype} {list(mask.shape)}"
        require(fits, f"masks[{name}]", given, allowed, "save it so with numpy.savez")
    return seeds, dict(arrays)


def _data(run: Path | None, say: Say) -> ImageSet | None:
    """The images of a run; None where they aren't there."""
    if run is None:
        say("note: shapes and colours alone are measured; name the run for its data's classes, too")
        return None
    try:
        return load(resumed(run, None).config.data)
    except TrainingError as error:
        say(f"note: shapes and colours alone are measured: {error}")
        return None


def _real(data: ImageSet, num_images: int) -> Real:
    """Features of a run's images: of a classifier of its classes, or of a random network."""
    make = classifier_features if data.labels is not None else random_features
    extractor = make(Source(image_set=data))

    def of(images: Images) -> Rows:
        return extractor.run(torch.from_numpy(images).permute(0, 3, 1, 2))

    chosen = np.random.default_rng(0).permutation(len(data))[:_MAX_REAL]
    return Real(
        features=extractor.run(data.images[torch.from_numpy(chosen)]),
        of=of,
        num_images=max(num_images, 4 * extractor.num_features),
    )
