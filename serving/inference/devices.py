"""The CPUs that a process may use, and what ONNX Runtime calls devices."""

import contextlib
import math
import os
from pathlib import Path

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


def num_cpus() -> int:
    """Returns the number of CPUs that this process may use, by its affinity and cgroup's quota."""
    num = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        num = min(num, max(1, math.ceil(int(quota) / int(period))))
    return num
