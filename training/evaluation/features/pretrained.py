"""Features of pretrained networks, from files that the user gives.

`inception` is the FID network of 2015 in the form that pytorch-fid and torch-fidelity publish
(weights-inception-2015-12-05-6726825d.pth, a state dict of tensors). torch-fidelity runs it, since
its resizing and pooling are those of the original. `onnx` is any network as an ONNX file, which
holds no code: DINOv2, CLIP or the user's own.
"""

import hashlib
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.bundle.runtime import ort
from training.errors import EvaluationError
from training.evaluation.features.base import Extractor, Rows, Source, reason

INCEPTION_FEATURES = 2048
ONNX_SIDE = 224  # DINOv2's and CLIP's size, for graphs that leave height and width open
_BEHIND = 128  # of 255: pretrained networks know no transparency
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def inception_features(source: Source) -> Extractor:
    """The pool3 features, [N, 2048], of TensorFlow's Inception v3 of 2015.

    Raises:
        EvaluationError: torch-fidelity is not installed, or the file is no such state dict.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise EvaluationError(
            f"features 'inception' need torch-fidelity ({error}); "
            "pip install '.[fid]' in Saddlepoint's source folder"
        ) from error
    file, data = _read(source)
    try:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        with tempfile.NamedTemporaryFile(suffix=".pth") as checked:
            # torch-fidelity unpickles its file, which could run code. It gets a copy that was
            # written here from the tensors alone.
            torch.save(tensors, checked.name)
            network = FeatureExtractorInceptionV3("inception", ["2048"], checked.name)
    except Exception as error:  # torch raises almost anything for bytes that are no archive
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
    """The first output of an ONNX file that has one input of these forms.

    - uint8 [N, 3, H, W] (H and W open): gets the pixels as they are
    - float32 [N, 3, S, S]: gets images resized to S (224 where open; bicubic, antialiased) and
      normalised with ImageNet's mean and deviation, as DINOv2 and torchvision's networks expect

    An output [N, d] is used as it is; of [N, tokens, d] the first token is used.

    Raises:
        EvaluationError: the file is no such network.
    """
    file, data = _read(source)
    wanted = "CUDAExecutionProvider" if source.device.startswith("cuda") else "CPUExecutionProvider"
    try:
        session = ort.InferenceSession(data, providers=[wanted], enable_fallback=0)
        if wanted not in session.get_providers():
            raise RuntimeError(f"{wanted} did not start: use --device cpu")
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
    """The function from uint8 pixels to the graph's input, and its description."""
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
    """[N, 1, 3 or 4, H, W] uint8 to [N, 3, H, W]; transparent places lie on grey."""
    if images.shape[1] == 4:
        alpha = images[:, 3:].float() / 255
        mixed = images[:, :3].float() * alpha + _BEHIND * (1 - alpha)
        return mixed.round().to(torch.uint8)
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
