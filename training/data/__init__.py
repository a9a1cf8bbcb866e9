"""Training data: `load` reads a dataset into an `ImageSet`, and `Batches` makes batches of it.

The images stay on the device as uint8 and are indexed there. Datasets are registered in
`training.data.sources`. This package knows neither networks nor losses.
"""

from training.data.batches import Batches
from training.data.config import DataConfig
from training.data.image_set import ImageSet, load

__all__ = ["Batches", "DataConfig", "ImageSet", "load"]
