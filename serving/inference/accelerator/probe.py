"""Tries CUDA out, in a process of its own: how many devices there are, and whether one works.

    python -m serving.inference.accelerator.probe count | session

The process that asks stays free of CUDA: what a driver or a library does to a process (a crash, a
hang, a context of some hundred MB on the first GPU) happens here. `session` opens a graph of one
convolution on the first visible device and runs it, as a missing cuDNN, a library of another
version or a card that the libraries hold no code for show then, and not before. The last line of
stdout is the answer: {"count": N} or {"fault": "..."}.
"""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.inference.accelerator.cuda_errors import init_fault

TIMEOUT_S = 120.0
"""The first context on a machine with many GPUs takes long."""
_MAX_TEXT = 600
# One convolution of x [1, 1, 3, 3] float32 with a kernel of ones, y [1, 1, 1, 1]: an ONNX model,
# opset 17. A server has no `onnx` package to write it with; a test reads it.
MODEL = (
    b'\x08\t:\x83\x01\n\x0f\n\x01x\n\x01w\x12\x01y"\x04Conv\x12\x01g*3\x08\x01\x08\x01\x08\x03'
    b"\x08\x03\x10\x01B\x01wJ$" + b"\x00\x00\x80?" * 9 + b"Z\x1b\n\x01x\x12\x16\n\x14\x08\x01"
    b"\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x03\n\x02\x08\x03b\x1b\n\x01y\x12\x16\n\x14"
    b"\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\x11"
)


class ProbeError(Exception):
    """CUDA can't be used; the text says why."""


def ask(what: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Runs this module in a child process and returns its answer.

    Args:
        what: "count" or "session".
        environ: added to this process's variables: which devices are visible.

    Raises:
        ProbeError: the answer is a fault, or none came.
    """
    paths = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environ}
    command = [sys.executable, "-m", __name__, what]
    try:
        child = subprocess.run(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"CUDA did not answer within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise ProbeError(f"no process can be started to try CUDA out ({error})") from error
    return _answer(child)


def _answer(child: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = " ".join(child.stderr.split())[-_MAX_TEXT:]
        how = f"exit code {child.returncode}"
        if child.returncode < 0:
            how = f"signal {-child.returncode}"
        raise ProbeError(f"a process that tried CUDA out ended with {how}: {said}") from None
    if answer.get("fault"):
        raise ProbeError(str(answer["fault"]))
    return answer


def count(driver: Any) -> int:
    """The number of devices that the driver finds; driver: libcuda.

    Raises:
        ProbeError: it can't be initialised, or finds none.
    """
    code = driver.cuInit(0)
    if code != 0:
        raise ProbeError(init_fault(code))
    num = ctypes.c_int(0)
    code = driver.cuDeviceGetCount(ctypes.byref(num))
    if code != 0 or num.value == 0:
        raise ProbeError(init_fault(code or 100))
    return num.value


def try_session() -> None:
    """Opens the graph on the first visible device and runs it.

    Raises:
        ProbeError: it did not come up there, or computed something else.
    """
    import numpy as np

    from models.bundle.runtime import ort
    from serving.inference.accelerator.libraries import preload

    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        preload(tensorrt=False)
        session = ort.InferenceSession(
            MODEL, options, providers=["CUDAExecutionProvider"], enable_fallback=0
        )
        if "CUDAExecutionProvider" not in session.get_providers():
            raise ProbeError(
                "ONNX Runtime can't load its CUDA provider: CUDA 13 and cuDNN 9 are needed "
                "(pip install 'onnxruntime-gpu[cuda,cudnn]')"
            )
        (found,) = session.run(["y"], {"x": np.full((1, 1, 3, 3), 2.0, np.float32)})
    except ProbeError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no base
        raise ProbeError(" ".join(str(error).split())[:_MAX_TEXT]) from error
    if found.item() != 18.0:
        raise ProbeError(f"a convolution of nine twos gave {found.item():g}, must give 18")


def main(what: str) -> None:
    """Answers on stdout; what others print meanwhile goes to stderr."""
    answer: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr):
        try:
            if what == "count":
                answer["count"] = count(ctypes.CDLL("libcuda.so.1"))
            else:
                try_session()
        except (ProbeError, OSError) as error:
            answer["fault"] = str(error)
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
