"""A model at one number of rows: inputs and output bound to fixed places on the device.

cuDNN keeps one plan for each convolution, and makes a new one when the shape differs from the last
call; and a CUDA graph replays fixed shapes at fixed addresses. A run allocates nothing.
"""

from typing import Any

import numpy as np

from models.bundle.generator import Images
from models.bundle.manifest import Manifest
from models.bundle.runtime import ort
from serving.inference.sessions import Compute, Feed

# ONNX Runtime captures a CUDA graph after the first runs have allocated what they need.
_CAPTURE_RUNS = 3


class FixedRun:
    """One number of rows; for one thread."""

    def __init__(
        self,
        session: ort.InferenceSession,
        manifest: Manifest,
        num_rows: int,
        compute: Compute,
        *,
        graph: int | None = None,
    ) -> None:
        """Binds inputs and output, and warms up.

        Args:
            session: on the device; several runs may share it.
            manifest: of the model.
            num_rows: the number.
            compute: the device.
            graph: the number of this run's CUDA graph among the session's, from 1 on; None where
                the session captures none.

        Raises:
            Exception: a run failed; a runtime's errors share no base.
        """
        self.num_rows = num_rows
        shapes: dict[str, tuple[type, tuple[int, ...]]] = {
            "z": (np.float32, (num_rows, manifest.z_dim)),
            "label": (np.int64, (num_rows,)),
            "psi": (np.float32, (num_rows,)),
        }
        self._session, self._on_cpu = session, compute.on_cpu
        self._options = ort.RunOptions()
        if graph is not None:
            self._options.add_run_config_entry("gpu_graph_id", str(graph))
        self._binding = session.io_binding()
        where = ("cpu", 0) if compute.on_cpu else ("cuda", compute.index)
        self._inputs: dict[str, Any] = {}
        for argument in session.get_inputs():
            dtype, shape = shapes[argument.name]
            value = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, *where)
            self._binding.bind_ortvalue_input(argument.name, value)
            self._inputs[argument.name] = (value, np.zeros(shape, dtype))
        image = manifest.image
        self._output = ort.OrtValue.ortvalue_from_shape_and_type(
            (num_rows, image.height, image.width, image.channels), np.uint8, *where
        )
        self._binding.bind_ortvalue_output("image", self._output)
        for _ in range(1 if graph is None else _CAPTURE_RUNS):
            self(self.blank())

    def blank(self) -> Feed:
        """Inputs for a run whose images nobody wants: all zeros."""
        return {name: np.zeros_like(staged) for name, (_, staged) in self._inputs.items()}

    def __call__(self, feed: Feed) -> Images:
        """Makes images of up to num_rows rows; zeros fill the rest of the fixed shape."""
        num = len(feed["z"])
        for name, (value, staged) in self._inputs.items():
            staged[:num] = feed[name]
            staged[num:] = 0
            value.update_inplace(staged)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        # From a device this is a copy already; on the CPU it is the bound memory itself.
        images: Images = self._output.numpy()[:num]
        return images.copy() if self._on_cpu else images
