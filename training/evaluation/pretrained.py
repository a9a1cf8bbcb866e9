"""Features of networks that others trained, from files that the user gives.

`inception`: the FID network of 2015 in the form that pytorch-fid and torch-fidelity publish
(weights-inception-2015-12-05-6726825d.pth: a state dict of tensors), run by torch-fidelity, whose
resizing and pooling are those of the original. `onnx`: any network as an ONNX file, which holds no
code: DINOv2, CLIP, or one of the user's own.
"""

import hashlib
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.runtime import ort
from training.errors import EvaluationError
from training.evaluation.features import Extractor, Rows, Source, reason

INCEPTION_FEATURES = 2048
ONNX_SIDE = 224  # where the graph leaves height and width open: what DINOv2 and CLIP were given
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def inception_features(source: Source) -> Extractor:
    """pool3, [N, 2048], of TensorFlow's Inception v3 of 2015.

    Raises:
        EvaluationError: torch-fidelity is not installed, or the file holds something else.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise EvaluationError(
            f"features 'inception' need torch-fidelity ({error}); pip install 'saddlepoint[fid]'"
        ) from error
    file, data = _read(source)
    try:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        with tempfile.NamedTemporaryFile(suffix=".pth") as checked:
            # torch-fidelity unpickles what it is given: it is given a file written here.
            torch.save(tensors, checked.name)
            network = FeatureExtractorInceptionV3("inception", ["2048"], checked.name)
    except Exception as error:  # bytes that are no archive make torch raise almost anything
        raise _no_inception(file, error) from error
    network = network.to(source.device)

    def run(images: Tensor) -> Rows:
        with torch.no_grad():
            rows: Rows = network(_rgb(images).to(source.device))[0].cpu().numpy()
        return rows

    return Extractor(
        name="inception",
        description=f"Inception v3 (2015) pool3 by torch-fidelity, {_digest(data)}",
        num_features=INCEPTION_FEATURES,
        run=run,
    )


def onnx_features(source: Source) -> Extractor:
    """The first output of an ONNX file with one input, by images' kind of input.

    - uint8 [N, 3, H, W] (H and W open): the pixels as they are; the graph does the rest
    - float32 [N, 3, S, S]: resized to S (224 where open; bicubic, antialiased), in [0, 1], less
      ImageNet's mean, over its deviation: what DINOv2 and torchvision's networks take

    An output [N, d] is taken as it is, of [N, tokens, d] the first token.

    Raises:
        EvaluationError: the file is no such network.
    """
    file, data = _read(source)
    providers = ["CPUExecutionProvider"]
    if source.device.startswith("cuda"):
        providers.insert(0, "CUDAExecutionProvider")
    try:
        session = ort.InferenceSession(data, providers=providers)
        (given,) = session.get_inputs()
    except Exception as error:  # ONNX Runtime's errors share no base
        raise _no_onnx(file, error) from error
    prepare, form = _preparation(file, given.type, given.shape)
    output = session.get_outputs()[0].name

    def run(images: Tensor) -> Rows:
        try:
            found = session.run([output], {given.name: prepare(_rgb(images)).numpy()})[0]
        except Exception as error:
            raise _no_onnx(file, error) from error
        rows: Rows = np.asarray(found[:, 0] if found.ndim == 3 else found, dtype=np.float32)
        if rows.ndim != 2 or len(rows) != len(images):
            shape = list(found.shape)
            raise _no_onnx(file, f"{len(images)} images gave {shape}, not [N, d] or [N, tokens, d]")
        return rows

    num_features = run(source.image_set.images[:1].cpu()).shape[1]
    return Extractor(
        name="onnx",
        description=f"ONNX network {file.name}, {form}, {num_features} features, {_digest(data)}",
        num_features=num_features,
        run=lambda images: run(images.cpu()),
    )


def _preparation(file: Path, datatype: str, shape: list[object]):  # type: ignore[no-untyped-def]
    """How pixels become what the graph takes, and that in words."""
    if datatype == "tensor(uint8)":
        return (lambda images: images), "of uint8 pixels"
    if datatype != "tensor(float)" or len(shape) != 4:
        raise _no_onnx(file, f"its input is {datatype} {shape}")
    side = shape[2] if isinstance(shape[2], int) else ONNX_SIDE
    mean = torch.tensor(_IMAGENET_MEAN)[:, None, None]
    std = torch.tensor(_IMAGENET_STD)[:, None, None]

    def prepare(images: Tensor) -> Tensor:
        resized = nn.functional.interpolate(
            images.float() / 255, (side, side), mode="bicubic", antialias=True, align_corners=False
        )
        return (resized.clamp(0, 1) - mean) / std

    return prepare, f"at {side}x{side}, normalised as ImageNet"


def _rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _read(source: Source) -> tuple[Path, bytes]:
    assert source.weights is not None
    try:
        return source.weights, source.weights.read_bytes()
    except OSError as error:
        raise EvaluationError(
            f"weights is {str(source.weights)!r}: {error.strerror}; give a file that can be read"
        ) from error


def _digest(data: bytes) -> str:
    return f"sha256 {hashlib.sha256(data).hexdigest()[:16]}"


def _no_inception(file: Path, error: Exception) -> EvaluationError:
    return EvaluationError(
        f"weights is {str(file)!r}, allowed for the features 'inception': the state dict that "
        f"torch-fidelity and pytorch-fid publish as 2015-12-05-6726825d.pth ({reason(error)})"
    )


def _no_onnx(file: Path, error: object) -> EvaluationError:
    return EvaluationError(
        f"weights is {str(file)!r}, allowed for the features 'onnx': an ONNX file with one input, "
        "uint8 [N, 3, H, W] or float32 [N, 3, S, S], whose first output is [N, d] "
        f"({reason(error)})"
    )
