"""The work that every peer does for a request: latents, the same ONNX file, a PNG of each image.

The encoder is Pillow with zlib's level 1 and run-length strategy, the settings of our own encoder.
"""

import io
import os

import numpy as np
from PIL import Image

from models.bundle.runtime import ort
from models.latents import latents


class Work:
    """One ONNX Runtime session and what surrounds it."""

    def __init__(self, num_threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = os.environ["MODEL"]
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.z_dim = self.session.get_inputs()[0].shape[1]

    def images(self, seeds: list[int]) -> np.ndarray:
        return self.session.run(["image"], {"z": latents(seeds, self.z_dim)})[0]

    def pngs(self, seeds: list[int]) -> list[bytes]:
        return [encode(image) for image in self.images(seeds)]


def encode(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    pixels = image[:, :, 0] if image.shape[2] == 1 else image
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1, compress_type=3)
    return buffer.getvalue()
