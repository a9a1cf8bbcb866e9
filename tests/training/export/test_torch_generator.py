import numpy as np
import torch
from torch import Tensor, nn

from training.export.onnx_graphs import TruncatedGenerator, UInt8Generator
from training.export.torch_generator import TorchGenerator


class Constant(nn.Module):
    """Images filled with the first latent dimension, plus the label."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        img = (z[:, :1, None, None] * self.one).expand(-1, 1, 2, 2)
        return img if label is None else img + label[:, None, None, None]


def test_pixels_are_rounded_and_clamped() -> None:
    z = np.array([[-1.0], [0.0], [1.0], [9.0], [-9.0], [0.5]], dtype=np.float32)
    images = TorchGenerator(UInt8Generator(Constant()))(z)
    assert images.shape == (6, 2, 2, 1)
    assert images[:, 0, 0, 0].tolist() == [0, 128, 255, 255, 0, 191]


def test_label_and_psi_reach_the_generator() -> None:
    z = np.array([[-1.0], [-1.0]], dtype=np.float32)
    labelled = TorchGenerator(UInt8Generator(Constant()))(z, np.array([0, 1]))
    assert labelled[:, 0, 0, 0].tolist() == [0, 128]
    mapping = nn.Linear(1, 1, bias=False)
    nn.init.ones_(mapping.weight)
    truncated = TruncatedGenerator(Unlabelled(mapping), Constant(), torch.zeros(1))
    psi = np.array([1.0, 0.0], dtype=np.float32)
    assert TorchGenerator(truncated)(z, psi=psi)[:, 0, 0, 0].tolist() == [0, 128]


class Unlabelled(nn.Module):
    """A mapping network that ignores the label."""

    def __init__(self, mapping: nn.Module) -> None:
        super().__init__()
        self.mapping = mapping

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        w: Tensor = self.mapping(z)
        return w
