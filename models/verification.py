"""What must be true of a bundle before it is used, checked on the CPU: files, images, encoder.

The server checks files and golden images itself, on the device that will run them, and never opens
an encoder.
"""

import numpy as np

from models.bundle import ENCODER, Bundle
from models.errors import BundleError
from models.generator import CpuGenerator
from models.runtime import inputs_of, open_session, outputs_of

_ENCODED = 2  # golden images that the encoder is tried on: a batch, and no more


def verify(bundle: Bundle) -> int:
    """Checks a bundle; returns the largest difference of its golden images in 8-bit steps.

    Raises:
        BundleError: the bundle is not to be used.
    """
    bundle.verify_files()
    difference = bundle.verify_golden(CpuGenerator(bundle.model_path))
    if ENCODER in bundle.manifest.files:
        check_encoder(bundle)
    return difference


def check_encoder(bundle: Bundle) -> None:
    """Loads encoder.onnx as strictly as model.onnx, and encodes golden images.

    Raises:
        BundleError: it reaches beyond its file, can't be loaded, or is no encoder of this model.
    """
    path = bundle.path / ENCODER
    session = open_session(path)
    inputs, outputs = inputs_of(session), outputs_of(session)
    if not {"image"} <= set(inputs) <= {"image", "label"} or outputs != ["z"]:
        raise BundleError(
            f"{path}: takes {', '.join(inputs)} and gives {', '.join(outputs)}; an encoder takes "
            "image (+ label) and gives z: export the model again"
        )
    golden = bundle.golden
    given = {"image": golden.images, "label": golden.labels}
    try:
        feed = {name: rows[:_ENCODED] for name in inputs if (rows := given[name]) is not None}
        (z,) = session.run(outputs, feed)
    except Exception as error:  # a runtime's errors share no base
        raise BundleError(
            f"{path}: can't encode the golden images: {error}; export the model again"
        ) from error
    expected = [min(_ENCODED, len(golden.images)), bundle.manifest.z_dim]
    if list(z.shape) != expected or z.dtype != np.float32:
        raise BundleError(
            f"{path}: gave {z.dtype} {list(z.shape)}, must give float32 {expected}; "
            "export the model again"
        )
