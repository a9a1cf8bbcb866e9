"""A bundle in ONNX Runtime on a chosen device: verified, warmed up, ready to make rows.

On the CPU a run may have any number of rows, as an image's bytes don't depend on its batch. On CUDA
every run has the shape of a bucket (1, 2, 4 ... rows, or what `--buckets` says), because cuDNN
chooses plans and kernels by shape. Fixed shapes keep the plans, and a row gives the same bytes in
the same bucket. Rows are cut into the buckets that take the least time.
"""

import functools
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.bundle.bundle import GoldenTolerance
from models.bundle.generator import Images
from models.bundle.graph import check_graph
from models.bundle.styles import StyleRows
from models.bundle.verification import check_batches
from models.errors import BundleError
from serving.inference.accelerator.buckets import powers_of_two
from serving.inference.accelerator.fixed_runs import FixedRuns
from serving.inference.accelerator.owner import NoOwner, Owner
from serving.inference.parts.real_images import RealImageRuns
from serving.inference.parts.styles import StyleRuns
from serving.inference.parts.units import UnitRuns
from serving.inference.sessions import Compute, CpuRun, Feed

_CONTROL_FLOW = {"If", "Loop", "Scan"}
_EXACT = GoldenTolerance()
_HALF = GoldenTolerance(
    most=16,
    mean=0.5,
    remedy="the model leaves float16's range or precision: use --cuda-math fp32 or tf32",
)


class Engine:
    """One version of one model, loaded."""

    def __init__(
        self,
        bundle: Bundle,
        compute: Compute,
        *,
        max_rows: int,
        buckets: tuple[int, ...] = (),
        owner: Owner | None = None,
    ) -> None:
        """Loads, verifies and warms up.

        Args:
            bundle: the version.
            compute: the device, and how it is used.
            max_rows: the most rows of one run, and the largest bucket.
            buckets: sizes to pad runs to, ascending, the last one max_rows; if empty, powers of two
                on CUDA and no padding on the CPU.
            owner: CUDA: the thread that has the device; the calling thread if None.

        Raises:
            BundleError: a digest, the graph or a golden image is wrong.
            DeviceError: a session did not come up on the device.
            DeviceMemoryError: the model doesn't fit it.
        """
        self.bundle = bundle
        self.max_rows = max_rows
        self.buckets = buckets or (() if compute.on_cpu else powers_of_two(max_rows))
        bundle.verify_files()
        self._styles = StyleRuns(bundle, compute)
        self._units = UnitRuns(bundle, compute)
        self._real_images = RealImageRuns(bundle, compute)
        operators = check_graph(bundle.model_path)
        self.is_steady = compute.on_cpu and not operators & _CONTROL_FLOW
        """True where the time of a run depends on its rows' number, not on what is in them, nor on
        who else has the device."""
        manifest = bundle.manifest
        image = manifest.image
        self._shape = (image.height, image.width, image.channels)
        self._inputs = [spec.name for spec in manifest.inputs]
        self._cpu: CpuRun | None = None
        self._fixed: FixedRuns | None = None
        if compute.on_cpu:
            self._cpu = CpuRun(bundle.model_path, compute)
            # Runs of the sizes that come most are tried, which warms the sessions up as well.
            check_batches(bundle, self, self.buckets or sorted({1, min(3, max_rows), max_rows}))
        else:
            self._fixed = FixedRuns(bundle, self.buckets, compute, owner or NoOwner())
        began = time.perf_counter()
        bundle.verify_golden(self, _HALF if compute.math == "fp16" else _EXACT)
        num_golden = len(bundle.golden.images)
        self.expected_s = (time.perf_counter() - began) * max(1.0, max_rows / num_golden)
        """About how long a run of max_rows lasts on a machine that does nothing else."""
        if compute.lanes > 1:
            bundle.verify_golden(functools.partial(self.make, alone=False))

    def __call__(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        """Makes images [N, H, W, C] uint8 of any number of rows, with no other run beside it."""
        return self.make(z, label, psi)

    def make(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
        *,
        alone: bool = True,
    ) -> Images:
        """Makes images of any number of rows.

        Args:
            z: latents [N, z_dim] float32.
            label: [N] int64, for conditional models.
            psi: truncation [N] float32, for graphs with a mapping network.
            alone: no other run happens meanwhile, so this one may use all threads.

        Returns:
            [N, H, W, C] uint8.

        Raises:
            BundleError: the model gave something else.
            Exception: the run failed; a runtime's errors share no base.
        """
        given = {"z": z, "label": label, "psi": psi}
        feed: Feed = {name: array for name in self._inputs if (array := given[name]) is not None}
        if len(z) <= self.max_rows:
            return self._run(feed, alone)
        starts = range(0, len(z), self.max_rows)
        parts = [{name: rows[i : i + self.max_rows] for name, rows in feed.items()} for i in starts]
        return np.concatenate([self._run(part, alone) for part in parts])

    def make_styled(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None,
        rows: StyleRows,
    ) -> Images:
        """Makes images of any number of rows by the graph in two parts; rows: what is done with w.

        Raises:
            BundleError: the bundle has no such graphs, or they can't be used.
            Exception: the run failed; a runtime's errors share no base.
        """
        return self._styles(z, label, rows, self.max_rows)

    def make_masked(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None,
        psi: npt.NDArray[np.float32] | None,
        mask: npt.NDArray[np.float32],
    ) -> Images:
        """Makes images of any number of rows with some units off; mask: [N, units].

        Raises:
            BundleError: the bundle has no such graph, or it can't be used.
            Exception: the run failed; a runtime's errors share no base.
        """
        return self._units(z, label, psi, mask, self.max_rows)

    def run_part(self, part: str, rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Runs a part of the bundle on rows of bytes; see `serving.inference.parts.rows`.

        Raises:
            BundleError: the bundle has no such part, or it can't be used.
        """
        return self._real_images(part, rows)

    def padded(self, num_rows: int) -> int:
        """Returns how many rows are computed for so many, at most max_rows."""
        if self._fixed is not None:
            return self._fixed.padded(num_rows)
        return next((size for size in self.buckets if size >= num_rows), num_rows)

    @property
    def replays(self) -> bool:
        """Whether its runs are replayed CUDA graphs."""
        return self._fixed is not None and self._fixed.way.replays

    def try_one(self) -> None:
        """Makes an image that nobody wants, where the engine is on a GPU: does that still work?"""
        if self._fixed is not None:
            self._fixed.try_one()

    def shrink(self) -> bool:
        """Makes room on the device, at the price of speed; False where there is none to make."""
        return self._fixed is not None and self._fixed.shrink()

    def _run(self, feed: Feed, alone: bool) -> Images:
        num_rows = len(feed["z"])
        if self._fixed is not None:
            images = self._fixed(feed)
        else:
            assert self._cpu is not None
            size = self.padded(num_rows)
            if size != num_rows:
                feed = {name: _pad(rows, size) for name, rows in feed.items()}
            images = self._cpu(feed, alone=alone)[:num_rows]
        if images.shape != (num_rows, *self._shape) or images.dtype != np.uint8:
            raise BundleError(
                f"{self.bundle.model_path}: a batch of {num_rows} gave {images.dtype} images "
                f"{list(images.shape)}, must give uint8 {[num_rows, *self._shape]}; export the "
                "model again, with a batch of any size"
            )
        return images


def _pad(rows: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    padded = np.zeros((size, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded
