"""Images from torch behind the interface that exported generators have."""

import numpy as np
import numpy.typing as npt
import torch

from models.bundle.generator import Images
from training.export.onnx_graphs import ByteGenerator


class TorchGenerator:
    """Makes images with torch, from and to NumPy arrays."""

    def __init__(self, G: ByteGenerator) -> None:
        """G: in evaluation mode, on any device."""
        self._G = G
        self._device = next(G.parameters()).device

    @torch.no_grad()
    def __call__(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        """[N, H, W, C] uint8 from z [N, z_dim], labels [N] and, of a `TruncatedGenerator`, psi [N].

        Unconditional models take no label. No psi stands for ones.
        """
        given = (
            None if array is None else torch.from_numpy(array).to(self._device)
            for array in (z, label, psi)
        )
        images: Images = self._G(*given).cpu().numpy()
        return images
