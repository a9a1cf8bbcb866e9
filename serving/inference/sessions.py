"""ONNX Runtime sessions: opens a graph, and runs it on the CPU.

Several runs at once with a thread each make a quarter more images per second than one
run on all threads, whose threads wait for each other at every node. A run that is alone is faster
on all threads (`benchmarks/serving/limits.py`). So there are two sessions, and the worker chooses.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from models.bundle.generator import Images
from models.bundle.runtime import ort
from models.errors import BundleError
from serving.inference.devices import CPU, num_cpus

Feed = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Compute:
    """The device of sessions, and how they use it."""

    device: str
    """"cpu", or "cuda:INDEX"."""
    num_threads: int = 0
    """CPU: threads of a run that is alone; 0 for every CPU that this process may use."""
    lanes: int = 1
    """CPU: number of runs at the same time, which share the threads."""
    math: str = "fp32"
    """CUDA: fp32; tf32, which rounds factors to 10 bits of mantissa; or fp16, layers in float16.
    Each is faster than the one before, and further from the CPU."""
    cuda_graphs: bool = True
    """CUDA: replay the whole run as one graph if the model allows it."""
    memory_mb: int = 0
    """CUDA: the most that a session's arena takes, in 2^20 bytes; 0 for no limit."""
    tensorrt_cache: Path | None = None
    """CUDA: run on TensorRT, and keep the engines that it builds in this folder."""

    @property
    def on_cpu(self) -> bool:
        """Whether rows need not be padded to fixed shapes."""
        return self.device == "cpu"

    @property
    def index(self) -> int:
        """The CUDA device's number."""
        return int(self.device.rpartition(":")[2])


class CpuRun:
    """A model on the CPU, at any number of rows; any number of threads may call it at once."""

    def __init__(self, path: Path, compute: Compute) -> None:
        """Opens the sessions.

        Raises:
            BundleError: ONNX Runtime refuses the graph.
        """
        num_threads = compute.num_threads or num_cpus()
        self._wide = open_cpu(path, num_threads)
        self._narrow = self._wide
        if compute.lanes > 1 and num_threads > 1:
            self._narrow = open_cpu(path, max(1, num_threads // compute.lanes))

    def __call__(self, feed: Feed, *, alone: bool) -> Images:
        """Makes images of all rows. alone: use all threads, as no other run happens meanwhile."""
        session = self._wide if alone else self._narrow
        images: Images = session.run(["image"], feed)[0]
        return images


def open_cpu(path: Path, num_threads: int) -> ort.InferenceSession:
    """Opens a graph on the CPU."""
    options = session_options()
    options.intra_op_num_threads = num_threads
    # Spinning threads would burn a core between requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return open_session(path, options, [CPU])


def session_options() -> ort.SessionOptions:
    """What all sessions have in common."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, and said by us
    return options


def open_session(
    path: Path, options: ort.SessionOptions, providers: list[Any], graph: bytes | None = None
) -> ort.InferenceSession:
    """Opens a graph on the first of the providers that can; never on another one.

    graph: the content to open in place of the file's.

    Raises:
        BundleError: ONNX Runtime refuses it.
    """
    try:
        # Its fallback prints to stdout, and goes on with the CPU.
        return ort.InferenceSession(
            path if graph is None else graph, options, providers=providers, enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's errors share no base
        raise BundleError(f"{path}: {error}; export the model again") from error
