"""Memory for all pixels of a dataset, refused in words where there is too little."""

import numpy as np

from models.decoding.form import Form
from training.data.decoding.images import Pixels
from training.errors import DataError
from training.memory import available_bytes


def reserve(num: int, form: Form) -> Pixels:
    """Allocates an uninitialised array [num, channels, height, width] uint8.

    Raises:
        DataError: it is larger than the memory available.
    """
    needed = num * form.nbytes
    available = available_bytes()
    if needed > available:
        raise DataError(
            f"data.resolution is {form.width}x{form.height}: {num} images of {form.channels}x"
            f"{form.height}x{form.width} bytes need {needed / 2**30:.1f} GiB of memory, "
            f"{available / 2**30:.1f} GiB are available; set a smaller --data.resolution, take "
            "fewer images, or pack them: python -m training.data pack --help"
        )
    return np.empty((num, form.channels, form.height, form.width), dtype=np.uint8)
