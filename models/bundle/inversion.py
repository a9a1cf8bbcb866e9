"""The way back: the graph that finds the latent of an image, and the files beside it.

    encoder.onnx          image uint8 [N, H, W, C]
                          (+ label int64 [N]) (+ mask uint8 [N, H, W]) (+ start float32 [N, z_dim])
                          -> z float32 [N, z_dim] (, label_scores float32 [N, labels])
    encoder_golden.npz    the z that it must give for the first images of golden.npz

Both are optional, and older bundles have the first alone. In the order above:

- `label` is an input where the model is conditional and the encoder can be told the class. Where it
  finds the class itself, `label_scores` is its second output, and the class is the largest. An
  encoder that does both looks for z under the class that it found where label is FIND (-1). One of
  a conditional model may do neither: then its z holds for the class that one gives.
- `mask` is 1 where a pixel is known and 0 where it is to be filled; what stands there is not read.
- `start` is the latent at which the residual passes begin, z <- z + E([x, G(z), mask]) (Alaluf et
  al. 2021, eq. 4). Zeros give the single best answer; normal draws, such as `latents` of K seeds,
  give K answers, which differ where the image leaves it open.

All passes are in the graph: one run. A small image is enlarged to the model's size by
`models.restoration.repeated` before it is encoded; the encoder was trained on such. What an image
looks like after the way there and back is model.onnx of z: a generator can't make what it never
learned. No torch here.
"""

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.bundle.archive import read_stream
from models.bundle.bundle import ENCODER, Bundle
from models.bundle.manifest import Manifest
from models.bundle.part import decoding, read_part
from models.bundle.runtime import inputs_of, open_session, outputs_of
from models.bundle.styles import Session
from models.errors import BundleError

ENCODER_GOLDEN = "encoder_golden.npz"
MAX_BYTES = 64 << 20
FIND = -1
"""As a label: the encoder is to find the class."""
GOLDEN_Z_TOLERANCE = 0.02
"""Of the largest |z| of the golden values, or of 1 where that is larger. Passes through G repeat
what processors round differently; 0.02 changes a pixel by a few steps at most."""
_ENCODED = 2  # golden images an encoder without golden values is tried on: that it takes a batch
_INPUTS, _OUTPUTS = ("image", "label", "mask", "start"), ("z", "label_scores")
_ARRAYS = ("masks", "starts", "z", "label_scores")

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class Encoded(NamedTuple):
    """What an encoder gives for N images."""

    z: Floats
    """[N, z_dim]."""
    label_scores: Floats | None
    """[N, labels], where it finds the class itself; the largest is the class."""

    @property
    def labels(self) -> Labels | None:
        """[N], the classes that it found; None where it doesn't look for them."""
        return None if self.label_scores is None else self.label_scores.argmax(1)


@dataclass(frozen=True)
class EncoderTraits:
    """What an encoder takes and gives, by the names of its inputs and outputs."""

    inputs: frozenset[str]
    infers_label: bool
    """True where it finds the class of an image itself."""

    @property
    def takes_label(self) -> bool:
        """True where it can be told the class."""
        return "label" in self.inputs

    @property
    def needs_label(self) -> bool:
        """True where it must be told the class."""
        return self.takes_label and not self.infers_label

    @property
    def fills(self) -> bool:
        """True where it takes a mask of known pixels."""
        return "mask" in self.inputs

    @property
    def varies(self) -> bool:
        """True where a start gives further answers."""
        return "start" in self.inputs


def encoder_traits(
    path: Path, manifest: Manifest, inputs: Collection[str], outputs: Collection[str]
) -> EncoderTraits:
    """Reads the names of a graph's inputs and outputs.

    Raises:
        BundleError: it is not an encoder of this model.
    """
    names, made = frozenset(inputs), tuple(outputs)
    if not {"image"} <= names <= set(_INPUTS) or made not in (_OUTPUTS[:1], _OUTPUTS):
        raise BundleError(
            f"{path}: takes {', '.join(inputs)} and gives {', '.join(outputs)}; an encoder takes "
            "image (+ label, mask, start) and gives z (, label_scores): export the model again"
        )
    traits = EncoderTraits(names, infers_label=len(made) == len(_OUTPUTS))
    if traits.infers_label and not manifest.conditional:
        why = "is of a model without classes"
        raise BundleError(f"{path}: gives label_scores and {why}; export the model again")
    return traits


def encode(
    session: Session,
    traits: EncoderTraits,
    images: Bytes,
    *,
    z_dim: int,
    label: Labels | None = None,
    mask: Bytes | None = None,
    start: Floats | None = None,
) -> Encoded:
    """Runs an encoder with those of the arguments that it takes.

    Args:
        session: the graph.
        traits: of the graph.
        images: [N, H, W, C].
        z_dim: width of z.
        label: [N], where it must or may be told; FIND for rows whose class it is to find.
        mask: [N, H, W], 1 where a pixel is known; None for everywhere.
        start: [N, z_dim]; None for zeros, the single best answer.
    """
    feed: dict[str, Any] = {"image": images}
    if traits.takes_label:
        finds = label is None and traits.infers_label
        feed["label"] = np.full(len(images), FIND, np.int64) if finds else label
    if traits.fills:
        feed["mask"] = np.ones(images.shape[:3], np.uint8) if mask is None else mask
    if traits.varies:
        feed["start"] = np.zeros((len(images), z_dim), np.float32) if start is None else start
    wanted = _OUTPUTS[: 1 + traits.infers_label]
    found = session.run(list(wanted), feed)
    return Encoded(found[0], found[1] if traits.infers_label else None)


def golden_labels(traits: EncoderTraits, labels: Labels | None) -> Labels | None:
    """What an encoder is told of golden images, whose classes are [n].

    One that may be told and can find them is told every other class, so that both ways are held.
    """
    if labels is None or not traits.takes_label:
        return None
    if traits.needs_label:
        return labels
    return np.where(np.arange(len(labels)) % 2, labels, FIND)


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderGolden:
    """The latents that an encoder must give for the first n images of golden.npz."""

    z: Floats
    """[n, z_dim]."""
    masks: Bytes | None
    """[n, H, W], where it takes masks."""
    starts: Floats | None
    """[n, z_dim], where it takes starts."""
    label_scores: Floats | None
    """[n, labels], where it finds the class itself."""

    def to_bytes(self) -> bytes:
        """Encodes as a compressed .npz archive."""
        values = {name: getattr(self, name) for name in _ARRAYS}
        arrays: dict[str, Any] = {k: v for k, v in values.items() if v is not None}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()


def read_encoder_golden(bundle: Bundle) -> EncoderGolden | None:
    """Reads encoder_golden.npz, whose digest is compared; None where there is none.

    Raises:
        BundleError: the file was altered, can't be read, or doesn't fit the model.
    """
    data = read_part(bundle, ENCODER_GOLDEN, max_bytes=MAX_BYTES)
    if data is None:
        return None
    with decoding(bundle.path / ENCODER_GOLDEN):
        arrays = read_stream(io.BytesIO(data), names=_ARRAYS, max_bytes=MAX_BYTES)
        _check(arrays, bundle)
    return EncoderGolden(**{name: arrays.get(name) for name in _ARRAYS})  # type: ignore[arg-type]


def _check(arrays: Mapping[str, npt.NDArray[Any]], bundle: Bundle) -> None:
    """Raises ValueError where arrays contradict each other or the model."""
    manifest, num = bundle.manifest, len(arrays["z"])
    image = manifest.image
    expected: dict[str, tuple[type, tuple[int, ...]]] = {
        "z": (np.float32, (num, manifest.z_dim)),
        "masks": (np.uint8, (num, image.height, image.width)),
        "starts": (np.float32, (num, manifest.z_dim)),
        "label_scores": (np.float32, (num, len(manifest.labels or ()))),
    }
    if ENCODER not in manifest.files:
        raise ValueError(f"is there, but not {ENCODER}")
    for name, array in arrays.items():
        kind, shape = expected[name]
        if array.dtype != kind or array.shape != shape or not np.isfinite(array).all():
            raise ValueError(f"{name} doesn't fit the model")
    if not 1 <= num <= len(bundle.golden.images):
        raise ValueError("holds more values than golden.npz has images, or none")


def verify_encoder(bundle: Bundle) -> None:
    """Loads encoder.onnx with the checks of model.onnx and encodes golden images.

    Raises:
        BundleError: the graph refers to other files, can't be loaded, is not an encoder of this
            model, or gives other latents than it did when it was exported.
    """
    golden = read_encoder_golden(bundle)
    if ENCODER not in bundle.manifest.files:
        return
    path = bundle.path / ENCODER
    session = open_session(path)
    traits = encoder_traits(path, bundle.manifest, inputs_of(session), outputs_of(session))
    check_encoder(bundle, golden, session, traits)


def check_encoder(
    bundle: Bundle, golden: EncoderGolden | None, session: Session, traits: EncoderTraits
) -> None:
    """The same of a graph that is loaded already. golden: None in older bundles."""
    path, images = bundle.path / ENCODER, bundle.golden
    num = min(_ENCODED, len(images.images)) if golden is None else len(golden.z)
    if golden is not None:
        _check_golden(path, golden, traits)
    try:
        found = encode(
            session,
            traits,
            images.images[:num],
            z_dim=bundle.manifest.z_dim,
            label=golden_labels(traits, None if images.labels is None else images.labels[:num]),
            mask=golden.masks if golden else None,
            start=golden.starts if golden else None,
        )
    except Exception as error:  # a runtime's errors share no base
        raise BundleError(
            f"{path}: can't encode the golden images: {error}; export the model again"
        ) from error
    wanted = {"z": (found.z, bundle.manifest.z_dim, golden.z if golden else None)}
    if found.label_scores is not None:
        width = len(bundle.manifest.labels or ())
        expected = golden.label_scores if golden else None
        wanted["label_scores"] = (found.label_scores, width, expected)
    for name, (values, width, expected) in wanted.items():
        _compare(path, name, values, (num, width), expected)


def _check_golden(path: Path, golden: EncoderGolden, traits: EncoderTraits) -> None:
    given = (golden.masks, golden.starts, golden.label_scores)
    if tuple(each is not None for each in given) != (
        traits.fills,
        traits.varies,
        traits.infers_label,
    ):
        raise BundleError(
            f"{path}: its inputs and outputs are not those of {ENCODER_GOLDEN}: export it again"
        )


def _compare(
    path: Path, name: str, found: Floats, shape: tuple[int, int], golden: Floats | None
) -> None:
    if found.shape != shape or found.dtype != np.float32:
        of = "" if name == "z" else f" {name}"
        raise BundleError(
            f"{path}: gave{of} {found.dtype} {list(found.shape)}, must give float32 "
            f"{list(shape)}; export the model again"
        )
    if golden is None:
        return
    allowed = GOLDEN_Z_TOLERANCE * max(1.0, float(np.abs(golden).max()))
    difference = float(np.abs(found - golden).max())
    if not difference <= allowed:
        raise BundleError(
            f"{path}: {name} of the golden images differs by up to {difference:.3g}, allowed is "
            f"{allowed:.3g}; the encoder does not run here as it did when exported"
        )
