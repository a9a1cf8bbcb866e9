"""The datasets by name, entered by decorator: each a function from a DataConfig to pixels.

A new dataset is one more function in a file here, and an import below.
"""

from training.datasets import embedded, folder, lsun, published
from training.datasets.registry import DATASETS, Dataset, Raw, dataset

__all__ = ["DATASETS", "Dataset", "Raw", "dataset", "embedded", "folder", "lsun", "published"]
