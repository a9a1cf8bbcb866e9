"""A bundle behind ONNX Runtime on a chosen device: verified, warmed up, ready to make rows.

On the CPU any number of rows runs as it is: the bytes don't depend on the batch. On CUDA every run
is padded to a bucket (1, 2, 4 ... rows, or what was asked for), because plans and kernels are
chosen by shape: fixed shapes keep the plans, and a row gives the same bytes in the same bucket.
"""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.generator import Images
from models.graph import check_graph
from serving.sessions import Compute, CpuRun, Feed, FixedRun


class Engine:
    """One version of one model."""

    def __init__(
        self,
        bundle: Bundle,
        compute: Compute,
        *,
        max_rows: int,
        buckets: tuple[int, ...] = (),
    ) -> None:
        """Loads, verifies and warms up.

        Args:
            bundle: the version.
            compute: the device, and how it is used.
            max_rows: the most rows of one run, the largest bucket.
            buckets: sizes to pad runs to, rising, the last one max_rows; where empty, powers of two
                on CUDA, no padding on the CPU.

        Raises:
            BundleError: a digest, the graph or the golden images are wrong.
            DeviceError: a session did not come up on the device.
        """
        self.bundle = bundle
        self.max_rows = max_rows
        self.buckets = buckets or (() if compute.on_cpu else powers_of_two(max_rows))
        bundle.verify_files()
        check_graph(bundle.model_path)
        manifest = bundle.manifest
        self._inputs = [spec.name for spec in manifest.inputs]
        self._cpu: CpuRun | None = None
        self._fixed: list[FixedRun] = []
        if compute.on_cpu:
            self._cpu = CpuRun(bundle.model_path, compute)
            self._warm_up()
        else:
            self._fixed = [
                FixedRun(bundle.model_path, manifest, size, compute) for size in self.buckets
            ]
        bundle.verify_golden(self)
        if compute.lanes > 1:
            bundle.verify_golden(functools.partial(self.make, alone=False))

    def __call__(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        """Implements `models.generator.Generate`, for any number of rows."""
        return self.make(z, label, psi)

    def make(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
        *,
        alone: bool = True,
    ) -> Images:
        """Images for any number of rows. alone: see `serving.sessions.CpuRun`."""
        given = {"z": z, "label": label, "psi": psi}
        feed: Feed = {name: array for name in self._inputs if (array := given[name]) is not None}
        if len(z) <= self.max_rows:
            return self._run(feed, alone)
        starts = range(0, len(z), self.max_rows)
        parts = [{name: rows[i : i + self.max_rows] for name, rows in feed.items()} for i in starts]
        return np.concatenate([self._run(part, alone) for part in parts])

    def padded(self, num_rows: int) -> int:
        """Rows that are really computed for so many, at most max_rows."""
        return next((size for size in self.buckets if size >= num_rows), num_rows)

    def _run(self, feed: Feed, alone: bool) -> Images:
        num_rows = len(feed["z"])
        if self._cpu is None:
            return next(run for run in self._fixed if run.num_rows >= num_rows)(feed)
        size = self.padded(num_rows)
        if size != num_rows:
            feed = {name: _pad(rows, size) for name, rows in feed.items()}
        return self._cpu(feed, alone=alone)[:num_rows]

    def _warm_up(self) -> None:
        manifest = self.bundle.manifest
        for size in self.buckets or (1, self.max_rows):
            blank: Feed = {"z": np.zeros((size, manifest.z_dim), np.float32)}
            if manifest.conditional:
                blank["label"] = np.zeros(size, np.int64)
            if manifest.has_mapping:
                blank["psi"] = np.ones(size, np.float32)
            self._run(blank, alone=True)


def powers_of_two(max_rows: int) -> tuple[int, ...]:
    """1, 2, 4 ... and max_rows itself."""
    sizes = [1 << power for power in range(max_rows.bit_length()) if 1 << power < max_rows]
    return (*sizes, max_rows)


def _pad(rows: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    padded = np.zeros((size, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded
