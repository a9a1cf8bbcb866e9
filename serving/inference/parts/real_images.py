"""The graphs that take real images: the encoder, and the score; on the CPU.

They are opened when the first request needs them. Rows are run one by one, always with as many
threads: a matrix of one row is multiplied in another order than one of several, and the last bits
of a latent would tell how busy the server was. Whatever a row's run raises is that row's alone.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle import ENCODER, Bundle
from models.bundle.anomaly import SCORE, check_score, score_images
from models.bundle.graph import check_graph
from models.bundle.inversion import check_encoder, encode, encoder_traits, read_encoder_golden
from models.bundle.runtime import inputs_of, outputs_of
from models.errors import BundleError
from serving.inference.devices import num_cpus
from serving.inference.parts.rows import (
    ENCODER_PART,
    SCORE_PART,
    Rows,
    encoder_input,
    packed,
    score_input,
)
from serving.inference.sessions import Compute, open_cpu
from serving.observability.loops import SaidOnce, cause_of, quietly

logger = logging.getLogger(__name__)

RunRow = Callable[[Rows], Rows]
"""From the bytes of one row, [1, bytes], to those that its run gives."""
_FAILED = 1  # a row's status; 0 where its run has ended well


class RealImageRuns:
    """Runs the parts of one bundle; any number of threads may call it at once."""

    def __init__(self, bundle: Bundle, compute: Compute) -> None:
        """Opens nothing yet; bundle: whose files were verified."""
        self._bundle = bundle
        self._num_threads = max(1, (compute.num_threads or num_cpus()) // max(1, compute.lanes))
        self._lock = threading.Lock()
        self._opened: dict[str, tuple[RunRow, int]] = {}
        self._said = SaidOnce()

    def __call__(self, part: str, rows: Rows) -> Rows:
        """Runs a part on rows [N, bytes]; gives rows [N, 1 + bytes] that begin with a status.

        Raises:
            BundleError: the bundle has no such part, or it can't be used.
        """
        with self._lock:
            if part not in self._opened:
                self._opened[part] = _OPENERS[part](self._bundle, self._num_threads)
            run, num_bytes = self._opened[part]
        made = np.zeros((len(rows), 1 + num_bytes), np.uint8)
        for index in range(len(rows)):
            try:
                made[index, 1:] = run(rows[index : index + 1])[0]
            except BaseException as error:  # foreign code may raise anything
                made[index, 0] = _FAILED
                self._say(part, error)
        return made

    def _say(self, part: str, error: BaseException) -> None:
        with quietly():
            if self._said.is_new((part, cause_of(error))):
                path = self._bundle.path / f"{part}.onnx"
                logger.error("%s can't be run on an image", path, exc_info=error)


def _encoder(bundle: Bundle, num_threads: int) -> tuple[RunRow, int]:
    """Opens encoder.onnx, and compares what it gives with its golden values.

    Raises:
        BundleError: there is none, or it can't be used.
    """
    path, manifest = _path(bundle, ENCODER), bundle.manifest
    session = open_cpu(path, num_threads)
    traits = encoder_traits(path, manifest, inputs_of(session), outputs_of(session))
    check_encoder(bundle, read_encoder_golden(bundle), session, traits)
    num_scores = len(manifest.labels or ()) if traits.infers_label else 0

    def run(rows: Rows) -> Rows:
        given = encoder_input(rows, manifest)
        found = encode(
            session,
            traits,
            given.images,
            z_dim=manifest.z_dim,
            label=given.labels,
            mask=given.masks,
            start=given.starts,
        )
        arrays = [found.z] if found.label_scores is None else [found.z, found.label_scores]
        return _finite(path, arrays)

    return run, 4 * (manifest.z_dim + num_scores)


def _score(bundle: Bundle, num_threads: int) -> tuple[RunRow, int]:
    """Opens score.onnx, and tries it on the golden images.

    Raises:
        BundleError: there is none, or it can't be used.
    """
    path, manifest = _path(bundle, SCORE), bundle.manifest
    session = open_cpu(path, num_threads)
    check_score(bundle, session, inputs_of(session), outputs_of(session))

    def run(rows: Rows) -> Rows:
        return _finite(path, score_images(session, *score_input(rows, manifest)))

    return run, 4 * (1 + manifest.image.height * manifest.image.width)


def _path(bundle: Bundle, name: str) -> Path:
    path = bundle.path / name
    if name not in bundle.manifest.files:
        raise BundleError(f"{path}: is not in the bundle; export the model again")
    check_graph(path)
    return path


def _finite(path: Path, arrays: Sequence[npt.NDArray[Any]]) -> Rows:
    if not all(np.isfinite(array).all() for array in arrays):
        raise BundleError(f"{path}: gave values that are not finite")
    return packed([np.asarray(array, np.float32) for array in arrays])


_OPENERS: dict[str, Callable[[Bundle, int], tuple[RunRow, int]]] = {
    ENCODER_PART: _encoder,
    SCORE_PART: _score,
}
