"""The datasets by name: each is a function from an `ImageRequest` to arrays.

A new dataset is a function in a file here with the decorator `dataset`, and an import below.
"""

from training.data.sources import (
    embedded,
    emoji,
    folder,
    lsun,
    mixtures,
    points,
    published,
    stacked,
)
from training.data.sources.registry import DATASETS, Dataset, ImageRequest, Raw, dataset

__all__ = [
    "DATASETS",
    "Dataset",
    "ImageRequest",
    "Raw",
    "dataset",
    "embedded",
    "emoji",
    "folder",
    "lsun",
    "mixtures",
    "points",
    "published",
    "stacked",
]
