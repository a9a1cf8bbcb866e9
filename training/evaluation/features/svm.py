"""An SVM that classifies images; trained on real ones in about a second.

`label_agreement` compares its classes with the requested ones, and `modes` counts them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data import ImageSet
from training.evaluation.features.base import Rows, averaged_pixels

Labels = npt.NDArray[np.int64]

MAX_REAL = 5000
SIDE = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class SvmClassifier:
    """The SVM and its predictions on held-out real images."""

    classifier: Any
    """scikit-learn's SVC."""
    description: str
    """Its entry in protocols."""
    held_out: Labels
    """True labels of the held-out images, [N]."""
    predicted: Labels
    """Its predictions for them, [N]."""

    @classmethod
    def fit(cls, image_set: ImageSet) -> "SvmClassifier":
        """Trains on four fifths of at most 5,000 real images and predicts the others.

        image_set: one for which `possible` is True.
        """
        # Imported here: it takes a second, which trainings without classes need not wait for.
        from sklearn.svm import SVC

        assert image_set.labels is not None
        chosen, num_train = _split(image_set)
        index = torch.from_numpy(chosen).to(image_set.images.device)
        real = features(image_set.images[index])
        labels = image_set.labels[index].cpu().numpy()
        classifier = SVC(C=10.0, gamma="scale")
        classifier.fit(real[:num_train], labels[:num_train])
        return cls(
            classifier=classifier,
            description=f"SVM, RBF kernel, C=10, on {num_train} real images averaged to "
            f"{SIDE}x{SIDE}",
            held_out=labels[num_train:],
            predicted=classifier.predict(real[num_train:]),
        )

    @staticmethod
    def possible(image_set: ImageSet) -> bool:
        """True where the data suffices: ten images or more, with labels of at least two classes."""
        if image_set.labels is None or len(image_set) < 10:
            return False
        chosen, num_train = _split(image_set)
        return len(np.unique(image_set.labels.cpu().numpy()[chosen[:num_train]])) >= 2

    def __call__(self, images: Tensor) -> Labels:
        """[N, C, H, W] uint8 to predicted classes [N]."""
        found: Labels = self.classifier.predict(features(images)).astype(np.int64)
        return found


def features(images: Tensor) -> Rows:
    """[N, C, H, W] uint8 to the SVM's features [N, C * 64], float32 in [0, 1]."""
    return averaged_pixels(images.cpu(), SIDE)


def _split(image_set: ImageSet) -> tuple[npt.NDArray[np.int64], int]:
    """Indices of the images to use, and how many of them, the first ones, to train on."""
    chosen = np.random.default_rng(0).permutation(len(image_set))[:MAX_REAL]
    return chosen, len(chosen) * 4 // 5
