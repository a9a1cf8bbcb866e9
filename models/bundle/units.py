"""The units of a generator: which carry what, and the graph that makes images without some.

    units.onnx    the inputs of model.onnx + mask float32 [N, units] -> image uint8 [N, H, W, C]
    units.npz     the units' layers, what they agree with, what sets of them do; golden images

Optional, both or neither. A unit is a channel of a feature map; 0 in its place switches it off, and
with ones alone the images are those of model.onnx.
"""

import io
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle.archive import read_stream
from models.bundle.bundle import GOLDEN_TOLERANCE, Bundle
from models.bundle.generator import Images
from models.bundle.manifest import Manifest
from models.bundle.part import decoding, read_part
from models.bundle.runtime import inputs_of, open_session
from models.bundle.styles import Session
from models.errors import BundleError
from models.latents import latents

GRAPH, UNITS = "units.onnx", "units.npz"
MAX_BYTES = 256 << 20
_ARRAYS = (
    *("layers", "channels", "concepts", "agreement"),
    *("effect_concepts", "effect_units", "effects"),
    *("seeds", "labels", "masks", "images"),
    *("artifact_units", "artifact_gains"),
)
_OPTIONAL = ("labels", "artifact_units", "artifact_gains")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitInfo:
    """What units.npz holds."""

    layers: npt.NDArray[np.str_]
    """[L]: the size of each layer's maps, WIDTHxHEIGHT, the coarsest first."""
    channels: npt.NDArray[np.int64]
    """[L]: units of each; they are numbered over all layers."""
    concepts: npt.NDArray[np.str_]
    """[M]."""
    agreement: Floats
    """[units, M]: information quality ratio of each unit with each concept."""
    effect_concepts: npt.NDArray[np.str_]
    """[E]: concepts whose units were switched off, the surest first."""
    effect_units: npt.NDArray[np.int64]
    """[E, K]: the units of each."""
    effects: Floats
    """[E, 4]: effect in standard deviations, its interval's ends, Holm's p."""
    seeds: npt.NDArray[np.uint64]
    """[G], of the golden images."""
    labels: npt.NDArray[np.int64] | None
    """[G], of conditional models."""
    masks: Floats
    """[G, units]."""
    images: Images
    """[G, H, W, C]."""
    artifact_units: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """[A]: units without which images are closer to real ones, the largest gain first."""
    artifact_gains: Floats = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    """[A, 3]: by how much the Frechet distance falls, and its interval's ends."""

    @property
    def num(self) -> int:
        """Units of all layers."""
        return int(self.channels.sum())

    def to_bytes(self) -> bytes:
        """Encodes as a compressed .npz archive."""
        values = {name: getattr(self, name) for name in _ARRAYS}
        arrays: dict[str, Any] = {k: v for k, v in values.items() if v is not None}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    def mask(self, off: Collection[int]) -> Floats:
        """[units]: 0 for those that are off."""
        mask = np.ones(self.num, np.float32)
        mask[list(off)] = 0
        return mask


def without_units(
    session: Session,
    names: Collection[str],
    z: Floats,
    label: npt.NDArray[np.int64] | None,
    psi: Floats | None,
    mask: Floats,
) -> Images:
    """Makes images [N, H, W, C] of latents [N, z_dim] with masks [N, units].

    names: the graph's inputs.
    """
    given = {"z": z, "label": label, "psi": psi, "mask": mask}
    images: Images = session.run(["image"], {name: given[name] for name in names})[0]
    return images


def read_units(bundle: Bundle) -> UnitInfo | None:
    """Reads units.npz, whose digest is compared with the manifest; None where there is none.

    Raises:
        BundleError: the file was altered, can't be read, or doesn't fit the model.
    """
    data = read_part(bundle, UNITS, max_bytes=MAX_BYTES)
    if data is None:
        return None
    with decoding(bundle.path / UNITS):
        arrays = read_stream(io.BytesIO(data), names=_ARRAYS, max_bytes=MAX_BYTES)
        # Bundles of earlier releases know no artifacts.
        there = [name for name in _ARRAYS if name in arrays or name not in _OPTIONAL]
        given: dict[str, Any] = {"labels": None, **{name: arrays[name] for name in there}}
        info = UnitInfo(**given)
        _check(info, bundle.manifest)
    return info


def verify_units(bundle: Bundle) -> int:
    """Makes the golden images of units.npz again, and model.onnx's with every unit on.

    Returns:
        The largest difference; 0 where the bundle has no units.

    Raises:
        BundleError: the graph can't be used, or an image differs by more than GOLDEN_TOLERANCE.
    """
    info = read_units(bundle)
    if info is None:
        return 0
    session = open_session(bundle.path / GRAPH)
    return check_units(bundle, info, session, inputs_of(session))


def check_units(bundle: Bundle, info: UnitInfo, session: Session, names: Collection[str]) -> int:
    """The same of a graph that is loaded already; names: its inputs."""
    path, golden = bundle.path / GRAPH, bundle.golden
    if set(names) != {*(spec.name for spec in bundle.manifest.inputs), "mask"}:
        raise BundleError(f"{path}: takes {', '.join(names)}; export the model again")
    ones = np.ones((len(golden.seeds), info.num), np.float32)
    wanted = [
        (golden.seeds, golden.labels, ones, golden.images),
        (info.seeds, info.labels, info.masks, info.images),
    ]
    largest = 0
    for seeds, labels, masks, images in wanted:
        z, psi = latents(seeds, bundle.manifest.z_dim), np.ones(len(seeds), np.float32)
        try:
            found = without_units(session, names, z, labels, psi, masks)
        except Exception as error:  # a runtime's errors share no base
            raise BundleError(
                f"{path}: can't make the golden images: {error}; export the model again"
            ) from error
        if found.shape != images.shape or found.dtype != np.uint8:
            raise BundleError(
                f"{path}: gave {found.dtype} images {list(found.shape)}, must give uint8 "
                f"{list(images.shape)}; export the model again"
            )
        largest = max(largest, int(np.abs(found.astype(np.int16) - images).max()))
    if largest > GOLDEN_TOLERANCE:
        raise BundleError(
            f"{path}: golden images differ by up to {largest}/255, allowed are "
            f"{GOLDEN_TOLERANCE}/255; the graph is not that of model.onnx: export it again"
        )
    return largest


def _check(info: UnitInfo, manifest: Manifest) -> None:
    """Raises ValueError where arrays contradict each other or the model."""
    if GRAPH not in manifest.files:
        raise ValueError(f"is there, but not {GRAPH}")
    image, num, units = manifest.image, info.seeds.size, int(info.channels.sum())
    sets = len(info.effect_concepts)
    fits = (
        num >= 1
        and units >= 1
        and info.layers.shape == info.channels.shape == (info.layers.size,)
        and bool((info.channels >= 1).all())
        and info.agreement.shape == (units, info.concepts.size)
        and info.effect_units.shape[:1] == (sets,)
        and info.effects.shape == (sets, 4)
        and info.artifact_gains.shape == (info.artifact_units.size, 3)
        and info.seeds.shape == (num,)
        and info.seeds.dtype == np.uint64
        and info.masks.shape == (num, units)
        and info.masks.dtype == np.float32
        and info.images.shape == (num, image.height, image.width, image.channels)
        and info.images.dtype == np.uint8
        and (info.labels is None) == (manifest.labels is None)
        and (info.labels is None or info.labels.shape == (num,))
    )
    if not fits:
        raise ValueError("its arrays don't fit the model")
