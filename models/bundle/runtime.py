"""ONNX Runtime without telemetry. No other module imports it.

Release 1.31 sends telemetry to Microsoft by default: it looks up a host of theirs and keeps a
device id and a database under $HOME/.cache/Microsoft. ORT_DISABLE_TELEMETRY stops that. The library
reads it while it is loaded, so it is set before the import; a value that is set already stays.
"""

import os
from pathlib import Path
from typing import Any

from models.bundle.graph import check_graph
from models.errors import BundleError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["inputs_of", "open_session", "ort", "outputs_of"]


def open_session(path: Path, *, num_threads: int = 0) -> Any:
    """Opens a graph of a bundle on the CPU. num_threads: 0 for one on every core.

    Raises:
        BundleError: the graph refers to other files, or ONNX Runtime can't load it.
    """
    check_graph(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    # Idle threads would otherwise burn a core each while they wait for work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base
        raise BundleError(f"{path}: {error}; export the model again") from error


def inputs_of(session: Any) -> list[str]:
    """Names of a session's inputs."""
    return [argument.name for argument in session.get_inputs()]


def outputs_of(session: Any) -> list[str]:
    """Names of a session's outputs."""
    return [argument.name for argument in session.get_outputs()]
