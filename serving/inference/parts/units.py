"""The graph of a model with a mask over its units, on the CPU whatever the model's device is.

It is opened when the first request needs it: most models are never asked for it.
"""

import threading
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.bundle.generator import Images
from models.bundle.graph import check_graph
from models.bundle.runtime import inputs_of
from models.bundle.styles import Session
from models.bundle.units import GRAPH, check_units, read_units, without_units
from models.errors import BundleError
from serving.inference.devices import num_cpus
from serving.inference.sessions import Compute, open_cpu


class UnitRuns:
    """Makes images with some units off; any number of threads may call it at once."""

    def __init__(self, bundle: Bundle, compute: Compute) -> None:
        """Opens nothing yet; bundle: whose files were verified."""
        self._bundle = bundle
        self._num_threads = compute.num_threads or num_cpus()
        self._lock = threading.Lock()
        self._opened: tuple[Session, Collection[str]] | None = None

    def __call__(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None,
        psi: npt.NDArray[np.float32] | None,
        mask: npt.NDArray[np.float32],
        max_rows: int,
    ) -> Images:
        """Makes images [N, H, W, C] of latents [N, z_dim], max_rows at a time.

        Raises:
            BundleError: the graph can't be used.
            Exception: the run failed; a runtime's errors share no base.
        """
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            session, names = self._opened
        parts = []
        for start in range(0, len(z), max_rows):
            part = slice(start, start + max_rows)
            given = (
                *(z[part], None if label is None else label[part]),
                *(None if psi is None else psi[part], mask[part]),
            )
            parts.append(without_units(session, names, *given))
        return np.concatenate(parts)

    def _open(self) -> tuple[Session, Collection[str]]:
        """Opens the graph and compares what it makes with the golden images."""
        info = read_units(self._bundle)
        if info is None:
            raise BundleError(f"{self._bundle.path}: has no units; export the model again")
        path = self._bundle.path / GRAPH
        check_graph(path)
        session = open_cpu(path, self._num_threads)
        names = inputs_of(session)
        check_units(self._bundle, info, session, names)
        return session, names
