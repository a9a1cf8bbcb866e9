"""Opens sessions on CUDA and TensorRT: their options, and that they really came up there."""

from collections.abc import Mapping

from models.bundle import Bundle
from models.bundle.runtime import ort
from serving.errors import DeviceError
from serving.inference.accelerator.libraries import preload
from serving.inference.devices import CPU, CUDA, TENSORRT
from serving.inference.sessions import Compute, open_session, session_options

_BATCH = "batch"  # what exported graphs call their free dimension


def open_on_device(
    bundle: Bundle,
    compute: Compute,
    *,
    num_rows: int | None,
    replays: bool,
    search: str,
    graph: bytes | None = None,
) -> ort.InferenceSession:
    """Opens a bundle's graph on a GPU.

    Args:
        bundle: whose graph it is.
        compute: the device, and how it is used.
        num_rows: the only number of rows of this session; None for several.
        replays: whether its runs are captured as CUDA graphs.
        search: how cuDNN's algorithms are found (cuda_options).
        graph: the content to open in place of the bundle's model.onnx.

    Raises:
        BundleError: ONNX Runtime refuses the graph.
        DeviceError: the session did not come up on the device.
    """
    preload(tensorrt=compute.tensorrt_cache is not None)
    path, options = bundle.model_path, session_options()
    if num_rows is not None:
        options.add_free_dimension_override_by_name(_BATCH, num_rows)
    cuda = cuda_options(compute, replays=replays, search=search)
    if compute.tensorrt_cache is None:
        session = open_session(path, options, [(CUDA, cuda), CPU], graph)
        return _checked(session, CUDA, compute)
    assert num_rows is not None
    tensorrt = tensorrt_options(bundle, num_rows, compute, replays=replays)
    session = open_session(path, options, [(TENSORRT, tensorrt), (CUDA, cuda)], graph)
    return _checked(session, TENSORRT, compute)


def cuda_options(
    compute: Compute, *, replays: bool = False, search: str = "HEURISTIC"
) -> dict[str, str]:
    """Returns the options of the CUDA provider.

    search: HEURISTIC asks cuDNN at once; EXHAUSTIVE times every algorithm, once for each shape.
    """
    options = {
        "device_id": str(compute.index),
        "use_tf32": "1" if compute.math == "tf32" else "0",
        "cudnn_conv_algo_search": search,
        # An arena that doubled what it takes would soon hold twice what it needs.
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1" if replays and compute.tensorrt_cache is None else "0",
    }
    if compute.memory_mb:
        options["gpu_mem_limit"] = str(compute.memory_mb << 20)
    return options


def tensorrt_options(
    bundle: Bundle, num_rows: int, compute: Compute, *, replays: bool = True
) -> Mapping[str, str]:
    """Returns the options of the TensorRT provider: one shape, engines kept for later starts."""
    manifest = bundle.manifest
    shapes = f"z:{num_rows}x{manifest.z_dim}"
    if manifest.conditional:
        shapes += f",label:{num_rows}"
    if manifest.has_mapping:
        shapes += f",psi:{num_rows}"
    # What changes an engine and isn't in its key, which is the graph's structure alone.
    key = f"{manifest.name}-{bundle.digest[:32]}-{num_rows}-{compute.math}"
    return {
        "device_id": str(compute.index),
        "trt_profile_min_shapes": shapes,
        "trt_profile_opt_shapes": shapes,
        "trt_profile_max_shapes": shapes,
        # The graph says which layers; without the option TensorRT takes none of them.
        "trt_fp16_enable": "1" if compute.math == "fp16" else "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(compute.tensorrt_cache),
        "trt_engine_cache_prefix": key,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(compute.tensorrt_cache),
        "trt_cuda_graph_enable": "1" if replays else "0",
    }


def _checked(session: ort.InferenceSession, wanted: str, compute: Compute) -> ort.InferenceSession:
    """Returns the session if it runs on the provider that it should.

    ONNX Runtime leaves a provider out that can't be loaded, and goes on.
    """
    if wanted in session.get_providers():
        return session
    needs = {
        CUDA: "CUDA 13 and cuDNN 9 are needed (pip install 'onnxruntime-gpu[cuda,cudnn]'); "
        "or use --device cpu",
        TENSORRT: "TensorRT 10 is needed (pip install 'tensorrt-cu13-libs<11'); or leave "
        "--tensorrt-cache out",
    }
    raise DeviceError(f"{wanted} did not start on {compute.device}: {needs[wanted]}")
