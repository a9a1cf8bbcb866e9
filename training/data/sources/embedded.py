"""Datasets that come with an installed package and need no download."""

import numpy as np

from training.data.decoding import fit
from training.data.sources.registry import ImageRequest, Raw, dataset


@dataset("digits", labelled=True, built_in=True)
def digits(request: ImageRequest) -> Raw:
    """1,797 handwritten digits of 8x8 pixels, part of scikit-learn (Alpaydin and Kaynak 1998)."""
    # Imported here: it takes a second, which other datasets need not wait for.
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    return Raw(
        images=fit(images, request.form),
        labels=data.target.astype(np.int64),
        label_names=tuple("0123456789"),
    )
