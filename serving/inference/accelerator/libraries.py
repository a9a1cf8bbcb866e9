"""Loads the libraries of CUDA, cuDNN and TensorRT from the wheels that bring them.

Wheels put them into folders where the loader doesn't look. Once they are in the process, ONNX
Runtime's providers find them by their names. This is for processes that use a GPU: the libraries
take a second, and some hundred MB of address space.
"""

import contextlib
import ctypes
import functools
import importlib.util
import logging
import sys
from pathlib import Path

from models.bundle.runtime import ort

logger = logging.getLogger(__name__)

_TENSORRT = ("libnvinfer.so.10", "libnvonnxparser.so.10")
"""What ONNX Runtime 1.31's provider is linked with, in the order in which one needs the other."""


@functools.cache
def preload(*, tensorrt: bool) -> None:
    """Loads CUDA's and cuDNN's libraries, and TensorRT's where that is asked for.

    What isn't there is not an error here: it may be where the loader looks, and the provider that
    lacks it doesn't start.
    """
    if hasattr(ort, "preload_dlls"):  # from release 1.21 on
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it did not find
            ort.preload_dlls()
    if not tensorrt:
        return
    spec = importlib.util.find_spec("tensorrt_libs")
    for folder in (spec and spec.submodule_search_locations) or ():
        for name in _TENSORRT:
            try:
                ctypes.CDLL(str(Path(folder) / name), ctypes.RTLD_GLOBAL)
            except OSError as error:
                logger.warning("TensorRT's %s can't be loaded: %s", name, error)
