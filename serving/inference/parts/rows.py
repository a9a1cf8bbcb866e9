"""Rows of bytes for the graphs that take images: how arrays become rows, and are read again.

The batcher and the frames know rows of bytes alone, so that requests for an encoder are packed into
batches, split, joined and tried again by the code that does so with images. Both ends of the socket
have this module.

    encoder    image, mask, start, label    ->  status, z, label_scores
    score      image, reconstruction        ->  status, score, residual

A row whose run failed has a status other than 0: the rows beside it are not affected.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.bundle.manifest import Manifest

ENCODER_PART, SCORE_PART = PARTS = ("encoder", "score")

Rows = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Field = tuple[type[Any], tuple[int, ...]]
"""Type and shape of one row's array."""


class EncoderInput(NamedTuple):
    """What the encoder takes of N images; what a graph has no input for is left out there."""

    images: npt.NDArray[np.uint8]
    """[N, H, W, C]."""
    masks: npt.NDArray[np.uint8]
    """[N, H, W], 1 where a pixel is known."""
    starts: Floats
    """[N, z_dim]."""
    labels: npt.NDArray[np.int64]
    """[N]; FIND where the encoder is to find it, 0 where there are none."""


class EncoderOutput(NamedTuple):
    """What it gives."""

    failed: npt.NDArray[np.bool_]
    """[N]."""
    z: Floats
    """[N, z_dim]."""
    label_scores: Floats
    """[N, labels]; of no width where the encoder doesn't find the class."""

    @property
    def labels(self) -> list[int] | None:
        """The class of each row; None where the encoder doesn't find it."""
        if not self.label_scores.size:
            return None
        found: list[int] = self.label_scores.argmax(axis=1).tolist()
        return found

    @property
    def shared_label(self) -> int | None:
        """The class that fits all rows best, of answers to one image: the likeliest of all."""
        if not self.label_scores.size:
            return None
        scores = self.label_scores.astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        evidence = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return int(evidence.sum(axis=0).argmax())


class ScoreOutput(NamedTuple):
    """What score.onnx gives."""

    failed: npt.NDArray[np.bool_]
    """[N]."""
    scores: Floats
    """[N]."""
    residuals: Floats
    """[N, H, W]."""


def packed(arrays: Sequence[npt.NDArray[Any]]) -> Rows:
    """Puts arrays [N, ...] side by side, as bytes [N, bytes]."""
    num = len(arrays[0])
    parts = [
        np.ascontiguousarray(array).reshape(num, -1).view(np.uint8)
        for array in arrays
        if array.size
    ]
    return np.concatenate(parts, axis=1)


def unpacked(rows: Rows, fields: Sequence[Field]) -> list[npt.NDArray[Any]]:
    """Reads what `packed` wrote.

    Raises:
        ValueError: the rows have another width.
    """
    arrays: list[npt.NDArray[Any]] = []
    position = 0
    for kind, shape in fields:
        size = np.dtype(kind).itemsize * math.prod(shape)
        part = np.ascontiguousarray(rows[:, position : position + size])
        position += size
        whole = (len(rows), *shape)
        arrays.append(part.view(kind).reshape(whole) if size else np.empty(whole, kind))
    if position != rows.shape[1]:
        raise ValueError(f"rows have {rows.shape[1]} bytes, must have {position}")
    return arrays


def encoder_input(rows: Rows, manifest: Manifest) -> EncoderInput:
    """Reads the rows of the encoder."""
    image = manifest.image
    fields: list[Field] = [
        (np.uint8, (image.height, image.width, image.channels)),
        (np.uint8, (image.height, image.width)),
        (np.float32, (manifest.z_dim,)),
        (np.int64, ()),
    ]
    return EncoderInput(*unpacked(rows, fields))


def encoder_output(rows: Rows, manifest: Manifest, num_scores: int) -> EncoderOutput:
    """Reads what the encoder gave; num_scores: classes, where it finds them, else 0."""
    fields: list[Field] = [
        (np.uint8, ()),
        (np.float32, (manifest.z_dim,)),
        (np.float32, (num_scores,)),
    ]
    status, z, scores = unpacked(rows, fields)
    return EncoderOutput(status != 0, z, scores)


def score_input(rows: Rows, manifest: Manifest) -> list[npt.NDArray[np.uint8]]:
    """Reads the rows of score.onnx: images and their reconstructions, [N, H, W, C]."""
    image = manifest.image
    shape = (image.height, image.width, image.channels)
    return unpacked(rows, [(np.uint8, shape), (np.uint8, shape)])


def score_output(rows: Rows, manifest: Manifest) -> ScoreOutput:
    """Reads what score.onnx gave."""
    image = manifest.image
    fields: list[Field] = [
        (np.uint8, ()),
        (np.float32, ()),
        (np.float32, (image.height, image.width)),
    ]
    status, scores, residuals = unpacked(rows, fields)
    return ScoreOutput(status != 0, scores, residuals)
