"""ONNX Runtime, which is imported here and nowhere else, so that it doesn't report home.

Its release 1.31 sends telemetry to Microsoft by default: it looks up a host of theirs and keeps a
device's id and a database under $HOME/.cache/Microsoft. ORT_DISABLE_TELEMETRY stops that, and is
read when the library is loaded: it is set before. Where it is set already, it stays as it is.
"""

import os
from pathlib import Path
from typing import Any

from models.errors import BundleError
from models.graph import check_graph

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["inputs_of", "open_session", "ort", "outputs_of"]


def open_session(path: Path, *, num_threads: int = 0) -> Any:
    """A graph of a bundle on the CPU. num_threads: 0 lets ONNX Runtime take every core.

    Raises:
        BundleError: it reaches beyond its file, or ONNX Runtime can't load it.
    """
    check_graph(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base
        raise BundleError(f"{path}: {error}; export the model again") from error


def inputs_of(session: Any) -> list[str]:
    """Names of what a session takes."""
    return [argument.name for argument in session.get_inputs()]


def outputs_of(session: Any) -> list[str]:
    """Names of what a session gives."""
    return [argument.name for argument in session.get_outputs()]
