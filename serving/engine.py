"""A bundle behind ONNX Runtime on a chosen device: verified, warmed up, ready to make rows.

On the CPU any number of rows runs as it is: the bytes don't depend on the batch. On CUDA every run
is padded to a bucket (1, 2, 4 ... rows, or what was asked for), because cuDNN plans and kernels are
chosen by shape: fixed shapes keep the plans, and the same rows give the same bytes.
"""

import contextlib
import ctypes
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from models.bundle import Bundle
from models.errors import BundleError
from models.generator import Images
from serving.errors import DeviceError

logger = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


class Engine:
    """One version of one model, in one session."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str,
        max_rows: int,
        num_threads: int = 0,
        buckets: tuple[int, ...] = (),
    ) -> None:
        """Loads, verifies and warms up.

        Args:
            bundle: the version.
            device: "cpu", or "cuda:INDEX".
            max_rows: the most rows of one run, the largest bucket.
            num_threads: CPU threads; 0 takes every CPU that this process may use.
            buckets: sizes to pad runs to, rising, the last one max_rows; where empty, powers of two
                on CUDA, no padding on the CPU.

        Raises:
            BundleError: a digest, the graph or the golden images are wrong.
            DeviceError: the session did not come up on the device.
        """
        self.bundle = bundle
        self.max_rows = max_rows
        self.buckets = buckets or (powers_of_two(max_rows) if device != "cpu" else ())
        bundle.verify_files()
        self._session = _session(bundle.model_path, device, num_threads)
        self._inputs = [argument.name for argument in self._session.get_inputs()]
        self._warm_up()
        bundle.verify_golden(self)

    def __call__(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        """Implements `models.generator.Generate`, for any number of rows."""
        if len(z) <= self.max_rows:
            return self._run(z, label, psi)
        parts = []
        for start in range(0, len(z), self.max_rows):
            rows = slice(start, start + self.max_rows)
            parts.append(self._run(z[rows], _rows(label, rows), _rows(psi, rows)))
        return np.concatenate(parts)

    def _run(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None,
        psi: npt.NDArray[np.float32] | None,
    ) -> Images:
        num_rows = len(z)
        given: dict[str, npt.NDArray[Any] | None] = {"z": z, "label": label, "psi": psi}
        feed = {name: given[name] for name in self._inputs}
        bucket = next((size for size in self.buckets if size >= num_rows), num_rows)
        if bucket != num_rows:
            feed = {name: _pad(array, bucket) for name, array in feed.items()}
        images: Images = self._session.run(["image"], feed)[0]
        return images[:num_rows]

    def _warm_up(self) -> None:
        manifest = self.bundle.manifest
        for size in self.buckets or (1, self.max_rows):
            z = np.zeros((size, manifest.z_dim), np.float32)
            label = np.zeros(size, np.int64) if manifest.conditional else None
            psi = np.ones(size, np.float32) if manifest.has_mapping else None
            self._run(z, label, psi)


def powers_of_two(max_rows: int) -> tuple[int, ...]:
    """1, 2, 4 ... and max_rows itself."""
    sizes = [1 << power for power in range(max_rows.bit_length()) if 1 << power < max_rows]
    return (*sizes, max_rows)


def num_cpus() -> int:
    """CPUs that this process may use: its affinity, and its cgroup's quota rounded up."""
    num = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        num = min(num, max(1, math.ceil(int(quota) / int(period))))
    return num


def choose_device(asked: str) -> tuple[str, int]:
    """Decides what the workers run on.

    Args:
        asked: "auto", "cpu" or "cuda".

    Returns:
        ("cpu", 1) or ("cuda", number of devices).

    Raises:
        DeviceError: CUDA was asked for and can't be used; the text says what is missing.
    """
    if asked == "cpu":
        return "cpu", 1
    reason = _why_no_cuda()
    if reason is None:
        return "cuda", _num_cuda_devices()
    if asked == "cuda":
        raise DeviceError(
            f"--device is cuda, but {reason}; use --device cpu, or auto to take what there is"
        )
    return "cpu", 1


def _why_no_cuda() -> str | None:
    if CUDA not in ort.get_available_providers():
        return "this onnxruntime is built without CUDA (install onnxruntime-gpu)"
    try:
        num_devices = _num_cuda_devices()
    except OSError as error:
        return f"the NVIDIA driver can't be loaded ({error})"
    return None if num_devices else "there is no CUDA device here"


def _num_cuda_devices() -> int:
    """Devices that the driver sees.

    Raises:
        OSError: there is no driver library.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _session(path: Path, device: str, num_threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if device == "cpu":
        options.intra_op_num_threads = num_threads or num_cpus()
        # Spinning threads would burn a core between requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return _open(path, options, [CPU])
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    provider = (CUDA, {"device_id": int(device.rpartition(":")[2])})
    session = _open(path, options, [provider, CPU])
    if CUDA not in session.get_providers():  # ONNX Runtime falls back silently
        raise DeviceError(
            f"the CUDA provider did not start on {device}: CUDA 13 and cuDNN 9 are needed "
            "(pip install 'onnxruntime-gpu[cuda,cudnn]'); or use --device cpu"
        )
    return session


def _open(path: Path, options: ort.SessionOptions, providers: list[Any]) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base
        raise BundleError(f"{path}: {error}; export the model again") from error


def _rows(array: npt.NDArray[Any] | None, rows: slice) -> npt.NDArray[Any] | None:
    return None if array is None else array[rows]


def _pad(array: npt.NDArray[Any] | None, size: int) -> npt.NDArray[Any] | None:
    if array is None:
        return None
    padded = np.zeros((size, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded
