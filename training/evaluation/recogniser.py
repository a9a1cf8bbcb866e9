"""An SVM that names the class an image shows; trained on real images in a second.

It judges what was asked for (`label_agreement`) and counts classes (`modes`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.data import ImageSet

Labels = npt.NDArray[np.int64]

MAX_REAL = 5000
_SIDE = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Recogniser:
    """The SVM, with how it does on real images that it hasn't seen."""

    classifier: Any
    description: str
    held_out: Labels
    """True labels of held-out real images, [N]."""
    recognised: Labels
    """What it takes them for, [N]."""

    @classmethod
    def fit(cls, image_set: ImageSet) -> "Recogniser":
        """Trains on four fifths of at most 5,000 real images.

        image_set: one of which `possible` holds.
        """
        # A second of import, which a training without classes need not pay.
        from sklearn.svm import SVC

        assert image_set.labels is not None
        chosen, num_train = _split(image_set)
        index = torch.from_numpy(chosen).to(image_set.images.device)
        real = features(image_set.images[index].cpu())
        labels = image_set.labels[index].cpu().numpy()
        classifier = SVC(C=10.0, gamma="scale")
        classifier.fit(real[:num_train], labels[:num_train])
        return cls(
            classifier=classifier,
            description=f"SVM, RBF kernel, C=10, on {num_train} real images averaged to "
            f"{_SIDE}x{_SIDE}",
            held_out=labels[num_train:],
            recognised=classifier.predict(real[num_train:]),
        )

    @staticmethod
    def possible(image_set: ImageSet) -> bool:
        """False where the data is too little: no labels, under ten images, or a single class."""
        if image_set.labels is None or len(image_set) < 10:
            return False
        chosen, num_train = _split(image_set)
        return len(np.unique(image_set.labels.cpu().numpy()[chosen[:num_train]])) >= 2

    def __call__(self, images: Tensor) -> Labels:
        """[N, C, H, W] uint8 to the classes that they show, [N]."""
        found: Labels = self.classifier.predict(features(images.cpu())).astype(np.int64)
        return found


def features(images: Tensor) -> npt.NDArray[np.float32]:
    """[N, C, H, W] uint8 to [N, C * 64] float32 in [0, 1]."""
    pooled: npt.NDArray[np.float32] = (
        nn.functional.adaptive_avg_pool2d(images.float() / 255, _SIDE).flatten(1).numpy()
    )
    return pooled


def _split(image_set: ImageSet) -> tuple[npt.NDArray[np.int64], int]:
    """Images to use, and how many of them, from the first on, to train with."""
    chosen = np.random.default_rng(0).permutation(len(image_set))[:MAX_REAL]
    return chosen, len(chosen) * 4 // 5
