"""What there is to compute on: CPUs, CUDA devices, and why CUDA can't be used where it can't."""

import contextlib
import ctypes
import math
import os
from pathlib import Path

from models.runtime import ort
from serving.errors import DeviceError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


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
