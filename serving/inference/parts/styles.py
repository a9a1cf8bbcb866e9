"""The two graphs of a style model, on the CPU whatever the model's device is.

They are opened when the first request needs them: most never do. What is mixed on the CPU differs
from a GPU's images as any two devices do, by 2/255 at most.
"""

import threading

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.bundle.generator import Images
from models.bundle.graph import check_graph
from models.bundle.styles import (
    MAPPING,
    SYNTHESIS,
    StyleRows,
    check_styles,
    read_styles,
    styled,
)
from models.errors import BundleError
from serving.inference.devices import num_cpus
from serving.inference.sessions import Compute, open_cpu


class StyleRuns:
    """Makes images of styles; any number of threads may call it at once."""

    def __init__(self, bundle: Bundle, compute: Compute) -> None:
        """Opens nothing yet; bundle: whose files were verified."""
        self._bundle = bundle
        self._num_threads = compute.num_threads or num_cpus()
        self._lock = threading.Lock()
        self._sessions: tuple[object, object] | None = None

    def __call__(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None,
        rows: StyleRows,
        max_rows: int,
    ) -> Images:
        """Makes images [N, H, W, C] of latents [N, z_dim], max_rows at a time.

        Raises:
            BundleError: the graphs can't be used.
            Exception: the run failed; a runtime's errors share no base.
        """
        with self._lock:
            if self._sessions is None:
                self._sessions = self._open()
            sessions = self._sessions
        parts = []
        for start in range(0, len(z), max_rows):
            part = slice(start, start + max_rows)
            some = StyleRows(
                psi=rows.psi[part],
                other=None if rows.other is None else rows.other[part],
                take=None if rows.take is None else rows.take[part],
                shift=None if rows.shift is None else rows.shift[part],
            )
            of_part = None if label is None else label[part]
            parts.append(styled(*sessions, z[part], of_part, some))  # type: ignore[arg-type]
        return np.concatenate(parts)

    def _open(self) -> tuple[object, object]:
        """Opens the graphs and compares what they make with the golden images."""
        info = read_styles(self._bundle)
        if info is None:
            raise BundleError(f"{self._bundle.path}: has no styles; export the model again")
        paths = self._bundle.path / MAPPING, self._bundle.path / SYNTHESIS
        for path in paths:
            check_graph(path)
        mapping, synthesis = (open_cpu(path, self._num_threads) for path in paths)
        check_styles(self._bundle, info, mapping, synthesis)
        return mapping, synthesis
