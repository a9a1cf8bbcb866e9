from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.bundle.generator import Images
from models.latents import latents
from models.networks import ImageShape
from training.runs.samples import SampleGrid


def test_tile_i_is_seed_i_with_label_i_modulo_classes(tmp_path: Path) -> None:
    labels: list[npt.NDArray[np.int64] | None] = []

    def generate(
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        labels.append(label)
        pixels = (z[:, 0] > 0).astype(np.uint8) * 255
        return np.broadcast_to(pixels[:, None, None, None], (len(z), 2, 2, 1)).copy()

    shape = ImageShape(resolution=2, channels=1, num_classes=7)
    SampleGrid(folder=tmp_path / "new", z_dim=3, shape=shape).save("grid.png", generate)
    canvas = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    expected = (latents(range(100), 3)[:, 0] > 0).reshape(10, 10) * 255
    assert np.array_equal(canvas[::2, ::2], expected)
    assert labels[0] is not None
    assert labels[0].tolist() == [i % 7 for i in range(100)]
