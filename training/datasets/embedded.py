"""Data that comes with an installed package: nothing to download."""

from typing import TYPE_CHECKING

import numpy as np

from training.datasets.registry import Raw, dataset
from training.decode import fit

if TYPE_CHECKING:
    from training.data import DataConfig


@dataset("digits", labelled=True)
def digits(config: "DataConfig") -> Raw:
    """1,797 handwritten digits of 8x8 pixels, part of scikit-learn (Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits  # a second of import that the others need not pay

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    return Raw(
        images=fit(images, resolution=config.resolution, channels=config.channels),
        labels=data.target.astype(np.int64),
        label_names=tuple("0123456789"),
    )
