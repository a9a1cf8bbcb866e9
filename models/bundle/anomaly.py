"""How unusual an image is: the graph that compares it with its reconstruction, and the scale.

    score.onnx         image, reconstruction: uint8 [N, H, W, C]
                       -> score float32 [N], residual float32 [N, H, W], at least 0
    calibration.npz    scores float64 [n], rising: of images that neither the model nor the
                       encoder was trained on

Both are optional; the second needs the first, and both need an encoder. With x an image, y its
reconstruction, both in [-1, 1], and f features that were scaled to a variance of 1,
score = |x - y|^2 / n + |f(x) - f(y)|^2 / n_f (Schlegl et al. 2019, eq. 9, with kappa 1). residual
is |x - y|^2 of each pixel, averaged over its channels.

A score alone says nothing; its p does: (1 + number of calibration scores >= a) / (n + 1) (Vovk et
al. 2005). If the image is of the same kind as the calibration images (exchangeable with them), then
P(p <= alpha) <= alpha: alpha is the rate of false alarms that one accepts. No torch here.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.bundle.archive import read_stream
from models.bundle.bundle import ENCODER, Bundle
from models.bundle.generator import Images
from models.bundle.inversion import EncoderTraits
from models.bundle.part import decoding, read_part
from models.bundle.runtime import inputs_of, open_session, outputs_of
from models.bundle.styles import Session
from models.errors import BundleError

SCORE, CALIBRATION = "score.onnx", "calibration.npz"
MAX_BYTES = 64 << 20
_INPUTS, _OUTPUTS = {"image", "reconstruction"}, ["score", "residual"]
_TOLERANCE = 1e-4  # of the score of an image against itself, which is 0

Floats = npt.NDArray[np.float32]


class Scored(NamedTuple):
    """How far N images are from their reconstructions."""

    score: Floats
    """[N]."""
    residual: Floats
    """[N, H, W], at least 0: where."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The scores of images that are known to be usual."""

    scores: npt.NDArray[np.float64]
    """[n], rising."""

    def p_values(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The conformal p of scores [N]: small where an image is unusual; at least 1 / (n + 1)."""
        num = len(self.scores)
        below = np.searchsorted(self.scores, np.asarray(scores, np.float64), side="left")
        return (1 + num - below) / (num + 1)

    def to_bytes(self) -> bytes:
        """Encodes as a compressed .npz archive."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, scores=self.scores)
        return buffer.getvalue()


def holds(traits: EncoderTraits, *, labels_given: bool) -> bool:
    """Whether the p of an image is that of the calibration: by the same way to the class.

    The scores of the calibration are of classes that the encoder found, where it finds them, and
    of given ones where it must be told. A class that is given to one that finds it leads to another
    latent, and to a score that is compared with nothing.
    """
    return not (labels_given and traits.infers_label)


def score_images(session: Session, images: Images, reconstructions: Images) -> Scored:
    """Runs score.onnx on images and their reconstructions, [N, H, W, C] each."""
    feed = {"image": images, "reconstruction": reconstructions}
    score, residual = session.run(_OUTPUTS, feed)
    return Scored(score, residual)


def read_calibration(bundle: Bundle) -> Calibration | None:
    """Reads calibration.npz, whose digest is compared with the manifest; None where there is none.

    Raises:
        BundleError: the file was altered, can't be read, or doesn't hold sorted scores.
    """
    data = read_part(bundle, CALIBRATION, max_bytes=MAX_BYTES)
    if data is None:
        return None
    with decoding(bundle.path / CALIBRATION):
        arrays = read_stream(io.BytesIO(data), names=("scores",), max_bytes=MAX_BYTES)
        scores = arrays["scores"]
        if SCORE not in bundle.manifest.files:
            raise ValueError(f"is there, but not {SCORE}")
        fits = scores.dtype == np.float64 and scores.ndim == 1 and len(scores) >= 1
        if not fits or not np.isfinite(scores).all() or bool((np.diff(scores) < 0).any()):
            raise ValueError("scores must be finite float64 [n], rising")
    return Calibration(scores)


def verify_score(bundle: Bundle) -> None:
    """Loads score.onnx and compares golden images with themselves, then with each other.

    Raises:
        BundleError: the graph can't be used, or its scores are no distances.
    """
    read_calibration(bundle)
    if SCORE not in bundle.manifest.files:
        return
    if ENCODER not in bundle.manifest.files:
        raise BundleError(f"{bundle.path}: has {SCORE} without {ENCODER}; export the model again")
    session = open_session(bundle.path / SCORE)
    check_score(bundle, session, inputs_of(session), outputs_of(session))


def check_score(
    bundle: Bundle, session: Session, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """The same of a graph that is loaded already; inputs, outputs: their names."""
    path, images = bundle.path / SCORE, bundle.golden.images
    if set(inputs) != _INPUTS or list(outputs) != _OUTPUTS:
        raise BundleError(
            f"{path}: takes {', '.join(inputs)} and gives {', '.join(outputs)}; it must take "
            "image and reconstruction and give score and residual: export the model again"
        )
    try:
        same = score_images(session, images, images)
        other = score_images(session, images, images[::-1])
    except Exception as error:  # a runtime's errors share no base
        raise BundleError(
            f"{path}: can't compare the golden images: {error}; export the model again"
        ) from error
    for found in (same, other):
        fits = (
            found.score.shape == images.shape[:1]
            and found.residual.shape == images.shape[:3]
            and found.score.dtype == found.residual.dtype == np.float32
            and bool(np.isfinite(found.score).all())
            and bool((found.residual >= 0).all())
        )
        if not fits:
            raise BundleError(
                f"{path}: gave scores {found.score.dtype} {list(found.score.shape)} and residuals "
                f"{found.residual.dtype} {list(found.residual.shape)}; they must be float32 "
                f"{list(images.shape[:1])} and {list(images.shape[:3])}, at least 0: export the "
                "model again"
            )
    if float(np.abs(same.score).max()) > _TOLERANCE or float(same.residual.max()) > _TOLERANCE:
        raise BundleError(
            f"{path}: an image and itself score {float(np.abs(same.score).max()):.3g}, must be 0; "
            "export the model again"
        )
