"""Training data: which set, as what pixels; resident on the device as uint8 and dealt out there.

`load` reads a dataset of `training.datasets` into one `ImageSet`; `Batches` deals it out. Knows
nothing of networks and losses.
"""

from training.data.batches import Batches
from training.data.config import DataConfig
from training.data.image_set import ImageSet, load

__all__ = ["Batches", "DataConfig", "ImageSet", "load"]
