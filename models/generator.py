"""A bundle's model.onnx on the CPU: the reference that golden images and evaluations are made with.

Plain ONNX Runtime, one session, any batch. The server's engine (buckets, devices, IO binding) is
another thing and lives in serving; it must give what this gives.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.errors import BundleError
from models.latents import latents
from models.runtime import inputs_of, open_session, outputs_of

Images = npt.NDArray[np.uint8]


class Generate(Protocol):
    """Anything that turns latents into images."""

    def __call__(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        """Z [N, z_dim], label [N] and psi [N], as the model needs, to images [N, H, W, C] uint8."""
        ...


class CpuGenerator:
    """model.onnx behind ONNX Runtime's CPU provider."""

    def __init__(self, path: Path, *, num_threads: int = 0) -> None:
        """path: the .onnx file. num_threads: 0 lets ONNX Runtime take every core.

        Raises:
            BundleError: it reaches beyond its file, ONNX Runtime can't load it, or it is no
                generator.
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
        """Implements `Generate`."""
        given = {"z": z, "label": label, "psi": psi}
        feed = {name: given[name] for name in self._inputs}
        images: Images = self._session.run(["image"], feed)[0]
        return images


class Sampler:
    """Images by seed alone: latents of the contract and, where classes are, seed % num_classes.

    What golden images, sample grids and evaluations are made with.
    """

    def __init__(self, generate: Generate, *, z_dim: int, num_classes: int) -> None:
        """num_classes: 0 where the model takes no label."""
        self._generate = generate
        self._z_dim = z_dim
        self._num_classes = num_classes

    def labels(self, seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64] | None:
        """[N] int64; None where the model takes none."""
        if not self._num_classes:
            return None
        return (seeds % np.uint64(self._num_classes)).astype(np.int64)

    def __call__(self, seeds: npt.NDArray[np.uint64]) -> Images:
        """Seeds [N] to images [N, H, W, C] uint8, as they are without truncation: psi is 1."""
        psi = np.ones(len(seeds), dtype=np.float32)
        return self._generate(latents(seeds, self._z_dim), self.labels(seeds), psi)
