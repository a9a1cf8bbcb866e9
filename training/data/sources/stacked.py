"""StackedMNIST: three handwritten digits as the red, green and blue of one image, 1,000 classes.

The set of Metz et al. 2017 on which modes of images are counted. It is made of MNIST's training
images, always the same ones: a class is the number that the digits write.
"""

import dataclasses

import numpy as np

from training.data.sources.published import mnist
from training.data.sources.registry import ImageRequest, Raw, dataset

NUM_IMAGES = 128_000
_SEED = 0


@dataset("stacked-mnist", labelled=True, downloads=True, channels=3)
def stacked_mnist(request: ImageRequest) -> Raw:
    """128,000 images of three MNIST digits, in red, green and blue (Metz et al. 2017)."""
    digits = mnist(dataclasses.replace(request, form=dataclasses.replace(request.form, channels=1)))
    assert digits.labels is not None
    rng = np.random.default_rng(_SEED)
    chosen = rng.integers(len(digits.images), size=(NUM_IMAGES, 3))
    return Raw(
        images=digits.images[chosen, 0],
        labels=digits.labels[chosen] @ np.array([100, 10, 1]),
        label_names=tuple(f"{number:03}" for number in range(1000)),
    )
