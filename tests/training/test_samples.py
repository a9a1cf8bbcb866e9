from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from models.generator import Images
from models.latents import latents
from training.samples import NUM_TILES, TorchGenerator, save_grid


class Constant(nn.Module):
    """Images filled with the first latent dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return (z[:, :1, None, None] * self.one).expand(-1, 1, 2, 2)


def test_tile_i_is_seed_i_with_label_i_modulo_classes(tmp_path: Path) -> None:
    asked: list[npt.NDArray[np.int64] | None] = []

    def generate(
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        asked.append(label)
        pixels = (z[:, 0] > 0).astype(np.uint8) * 255
        return np.broadcast_to(pixels[:, None, None, None], (len(z), 2, 2, 1)).copy()

    save_grid(tmp_path / "new" / "grid.png", generate, z_dim=3, num_classes=7)
    board = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    expected = (latents(range(NUM_TILES), 3)[:, 0] > 0).reshape(10, 10) * 255
    assert np.array_equal(board[::2, ::2], expected)
    assert asked[0] is not None
    assert asked[0].tolist() == [i % 7 for i in range(NUM_TILES)]


def test_pixels_are_rounded_and_clamped() -> None:
    z = np.array([[-1.0], [0.0], [1.0], [9.0], [-9.0], [0.5]], dtype=np.float32)
    images = TorchGenerator(Constant())(z)
    assert images.shape == (6, 2, 2, 1)
    assert images[:, 0, 0, 0].tolist() == [0, 128, 255, 255, 0, 191]
