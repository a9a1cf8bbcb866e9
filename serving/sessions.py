"""ONNX Runtime sessions: how a graph is opened on a device, and how it is run there.

On the CPU several runs at once, a thread each, make a quarter more images a second than one run on
all threads, which wait for each other at every node; alone, a run on all threads is the quicker one
(`benchmarks/serving/limits.py`). So there are two sessions, and the worker says which.

On CUDA a shape has a session of its own: cuDNN keeps one plan for each convolution and makes it
anew when the shape differs from the last call's, and a CUDA graph replays fixed shapes at fixed
addresses. Inputs and outputs then live on the device (IO binding): a run allocates nothing.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import BundleError
from models.generator import Images
from models.manifest import Manifest
from models.runtime import ort
from serving.devices import CPU, CUDA, TENSORRT, num_cpus
from serving.errors import DeviceError

logger = logging.getLogger(__name__)

Feed = dict[str, npt.NDArray[Any]]

# ONNX Runtime captures a CUDA graph after the first runs have allocated what they need.
_CAPTURE_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What sessions run on, and how."""

    device: str
    """"cpu", or "cuda:INDEX"."""
    num_threads: int = 0
    """CPU: threads of a run that is alone; 0 takes every CPU that this process may use."""
    lanes: int = 1
    """CPU: runs at once, which share the threads."""
    tf32: bool = False
    """CUDA: round products of float32 to TF32's 10 bits; faster, and further from the CPU."""
    cuda_graphs: bool = True
    """CUDA: replay the whole run as one graph, where the model allows it."""
    tensorrt_cache: Path | None = None
    """CUDA: run on TensorRT, which keeps the engines that it builds here."""

    @property
    def on_cpu(self) -> bool:
        """True where rows needn't be padded to fixed shapes."""
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
        self._wide = _open_cpu(path, num_threads)
        self._narrow = self._wide
        if compute.lanes > 1 and num_threads > 1:
            self._narrow = _open_cpu(path, max(1, num_threads // compute.lanes))

    def __call__(self, feed: Feed, *, alone: bool) -> Images:
        """Images of all rows. alone: on all threads, since no other run wants them."""
        session = self._wide if alone else self._narrow
        images: Images = session.run(["image"], feed)[0]
        return images


class FixedRun:
    """A model at one number of rows: one session, inputs and output bound to the device."""

    def __init__(self, path: Path, manifest: Manifest, num_rows: int, compute: Compute) -> None:
        """Opens the session and warms it up.

        Raises:
            BundleError: ONNX Runtime refuses the graph.
            DeviceError: the session did not come up on the device.
        """
        self.num_rows = num_rows
        shapes: dict[str, tuple[type, tuple[int, ...]]] = {
            "z": (np.float32, (num_rows, manifest.z_dim)),
            "label": (np.int64, (num_rows,)),
            "psi": (np.float32, (num_rows,)),
        }
        self._session, self.replays = _open_fixed(path, manifest, num_rows, compute)
        self._binding = self._session.io_binding()
        where = ("cpu", 0) if compute.on_cpu else ("cuda", compute.index)
        self._inputs: dict[str, Any] = {}
        for argument in self._session.get_inputs():
            dtype, shape = shapes[argument.name]
            value = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, *where)
            self._binding.bind_ortvalue_input(argument.name, value)
            self._inputs[argument.name] = (value, np.zeros(shape, dtype))
        image = manifest.image
        self._output = ort.OrtValue.ortvalue_from_shape_and_type(
            (num_rows, image.height, image.width, image.channels), np.uint8, *where
        )
        self._binding.bind_ortvalue_output("image", self._output)
        blank: Feed = {name: staged for name, (_, staged) in self._inputs.items()}
        for _ in range(_CAPTURE_RUNS if self.replays else 1):
            self(blank)

    def __call__(self, feed: Feed) -> Images:
        """Images of up to num_rows rows; the rest of the fixed shape is zeros."""
        num = len(feed["z"])
        for name, (value, staged) in self._inputs.items():
            staged[:num] = feed[name]
            staged[num:] = 0
            value.update_inplace(staged)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        images: Images = self._output.numpy()[:num].copy()  # on the CPU it is no copy yet
        return images


def _open_fixed(
    path: Path, manifest: Manifest, num_rows: int, compute: Compute
) -> tuple[ort.InferenceSession, bool]:
    """A session for one shape, and whether it replays a CUDA graph."""
    if compute.on_cpu:
        return _open_cpu(path, compute.num_threads or num_cpus()), False
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    if compute.tensorrt_cache is not None:
        options = tensorrt_options(manifest, num_rows, compute)
        session = _open(path, _options(), [(TENSORRT, options), (CUDA, cuda_options(compute))])
        return _checked(session, TENSORRT, compute), compute.cuda_graphs
    if compute.cuda_graphs:
        try:
            options = {**cuda_options(compute), "enable_cuda_graph": "1"}
            return _checked(_open(path, _options(), [(CUDA, options), CPU]), CUDA, compute), True
        except BundleError as error:  # a node that CUDA can't run, or control flow
            logger.info("%s runs without CUDA graphs: %s", manifest.name, error.__cause__)
    session = _open(path, _options(), [(CUDA, cuda_options(compute)), CPU])
    return _checked(session, CUDA, compute), False


def cuda_options(compute: Compute) -> dict[str, str]:
    """What the CUDA provider is told."""
    return {
        "device_id": str(compute.index),
        "use_tf32": "1" if compute.tf32 else "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",  # once for each shape, while it warms up
        "arena_extend_strategy": "kSameAsRequested",  # one arena a bucket: no room to spare
    }


def tensorrt_options(manifest: Manifest, num_rows: int, compute: Compute) -> dict[str, str]:
    """What the TensorRT provider is told: one shape, engines kept from start to start."""
    shapes = f"z:{num_rows}x{manifest.z_dim}"
    if manifest.conditional:
        shapes += f",label:{num_rows}"
    if manifest.has_mapping:
        shapes += f",psi:{num_rows}"
    return {
        "device_id": str(compute.index),
        "trt_profile_min_shapes": shapes,
        "trt_profile_opt_shapes": shapes,
        "trt_profile_max_shapes": shapes,
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(compute.tensorrt_cache),
        "trt_engine_cache_prefix": f"{manifest.name}-{manifest.version}-{num_rows}",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(compute.tensorrt_cache),
        "trt_cuda_graph_enable": "1" if compute.cuda_graphs else "0",
    }


def _open_cpu(path: Path, num_threads: int) -> ort.InferenceSession:
    options = _options()
    options.intra_op_num_threads = num_threads
    # Spinning threads would burn a core between requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return _open(path, options, [CPU])


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return options


def _checked(session: ort.InferenceSession, wanted: str, compute: Compute) -> ort.InferenceSession:
    """The session, if it really runs where it should: ONNX Runtime falls back silently."""
    if wanted in session.get_providers():
        return session
    needs = {
        CUDA: "CUDA 13 and cuDNN 9 are needed (pip install 'onnxruntime-gpu[cuda,cudnn]'); "
        "or use --device cpu",
        TENSORRT: "TensorRT 10 is needed (pip install tensorrt); or leave --tensorrt-cache out",
    }
    raise DeviceError(f"{wanted} did not start on {compute.device}: {needs[wanted]}")


def _open(path: Path, options: ort.SessionOptions, providers: list[Any]) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base
        raise BundleError(f"{path}: {error}; export the model again") from error
