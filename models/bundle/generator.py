"""A bundle's model.onnx on the CPU: the reference for golden images and evaluations.

It is plain ONNX Runtime: one session, any batch size. The server has an engine of its own with
buckets, devices and IO binding, which must give the same images.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.bundle.runtime import inputs_of, open_session, outputs_of
from models.errors import BundleError
from models.latents import latents

Images = npt.NDArray[np.uint8]


class Generate(Protocol):
    """A function from latents to images."""

    def __call__(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        """Generates images [N, H, W, C] uint8.

        z: [N, z_dim]. label, psi: [N], where the model takes them.
        """
        ...


class CpuGenerator:
    """A generator that runs model.onnx with ONNX Runtime on the CPU."""

    def __init__(self, path: Path, *, num_threads: int = 0) -> None:
        """Loads a file. path: the .onnx file. num_threads: 0 for one on every core.

        Raises:
            BundleError: the graph refers to other files, can't be loaded, or is not a generator.
        """
        self._session = open_session(path, num_threads=num_threads)
        self._inputs, outputs = inputs_of(self._session), outputs_of(self._session)
        if not {"z"} <= set(self._inputs) <= {"z", "label", "psi"} or outputs != ["image"]:
            raise BundleError(
                f"{path}: takes {', '.join(self._inputs)} and gives {', '.join(outputs)}; a "
                "generator takes z (+ label, + psi) and gives image: export the model again"
            )

    def __call__(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        """Runs the graph with those of the three inputs that it has."""
        given = {"z": z, "label": label, "psi": psi}
        feed = {name: given[name] for name in self._inputs}
        images: Images = self._session.run(["image"], feed)[0]
        return images


class Sampler:
    """Images from seeds alone. The label of a seed is seed % num_classes.

    Golden images, sample grids and evaluations are made with it.
    """

    def __init__(self, generate: Generate, *, z_dim: int, num_classes: int) -> None:
        """Wraps a generator. num_classes: 0 where the model takes no label."""
        self._generate = generate
        self._z_dim = z_dim
        self._num_classes = num_classes

    def labels(self, seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64] | None:
        """Labels of seeds, [N] int64; None where the model takes none."""
        if not self._num_classes:
            return None
        return (seeds % np.uint64(self._num_classes)).astype(np.int64)

    def __call__(self, seeds: npt.NDArray[np.uint64]) -> Images:
        """Generates images [N, H, W, C] uint8 for seeds [N], without truncation (psi is 1)."""
        psi = np.ones(len(seeds), dtype=np.float32)
        return self._generate(latents(seeds, self._z_dim), self.labels(seeds), psi)
