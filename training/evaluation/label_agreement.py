"""Does a generated image show the class that was asked for?

A classifier trained on real images judges 1,000 generated ones (the idea of the classification
accuracy score, Ravuri and Vinyals 2019, turned round, with a classifier that trains in a second).
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.generator import Sampler
from models.manifest import Metric
from training.data import ImageSet

NUM_SEEDS = 1000
MAX_REAL = 5000
_AT_A_TIME = 100
_SIDE = 8


def label_agreement(sampler: Sampler, image_set: ImageSet) -> Metric | None:
    """The share of seeds 0 .. 999 whose image an SVM takes for label seed % num_classes.

    Args:
        sampler: the generator.
        image_set: real images with labels; at most 5,000 are used, four fifths to train on.

    Returns:
        The metric, with the SVM's accuracy on held-out real images as its ceiling; None where the
        data is too little to train a classifier: fewer than two classes or ten images.
    """
    # A second of import, which a training without classes need not pay.
    from sklearn.svm import SVC

    if image_set.labels is None:
        return None
    chosen = np.random.default_rng(0).permutation(len(image_set))[:MAX_REAL]
    index = torch.from_numpy(chosen).to(image_set.images.device)
    real = features(image_set.images[index].cpu())
    labels = image_set.labels[index].cpu().numpy()
    num_train = len(chosen) * 4 // 5
    if len(chosen) < 10 or len(np.unique(labels[:num_train])) < 2:
        return None
    classifier = SVC(C=10.0, gamma="scale")
    classifier.fit(real[:num_train], labels[:num_train])
    ceiling = classifier.score(real[num_train:], labels[num_train:])
    agreed = 0
    for start in range(0, NUM_SEEDS, _AT_A_TIME):
        seeds = np.arange(start, start + _AT_A_TIME, dtype=np.uint64)
        images = torch.from_numpy(sampler(seeds)).permute(0, 3, 1, 2)
        agreed += int((classifier.predict(features(images)) == sampler.labels(seeds)).sum())
    return Metric(
        name="label_agreement",
        value=agreed / NUM_SEEDS,
        protocol={
            "n": NUM_SEEDS,
            "classifier": f"SVM, RBF kernel, C=10, on {num_train} real images",
            "features": f"pixels averaged to {_SIDE}x{_SIDE}",
            "seeds": f"0..{NUM_SEEDS - 1}, label seed % {image_set.shape.num_classes}",
            "held_out_accuracy": float(ceiling),
            "held_out_n": len(chosen) - num_train,
        },
    )


def features(images: Tensor) -> npt.NDArray[np.float32]:
    """[N, C, H, W] uint8 to [N, C * 64] float32 in [0, 1]."""
    pooled: npt.NDArray[np.float32] = (
        nn.functional.adaptive_avg_pool2d(images.float() / 255, _SIDE).flatten(1).numpy()
    )
    return pooled
