"""A published model as inversion uses it: its generator in torch, its graphs, its encoder."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.bundle import ENCODER, Bundle
from models.bundle.anomaly import SCORE
from models.bundle.generator import CpuGenerator, Images
from models.bundle.inversion import Encoded, EncoderTraits, encode, encoder_traits
from models.bundle.runtime import inputs_of, open_session, outputs_of
from models.networks import ImageShape
from training.data import ImageSet
from training.errors import CheckpointError, ConfigError
from training.interpretation.trained import trained_generator
from training.inversion.fit import Subject

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_ROWS = 64
_REMEDY = "make one: python -m training.inversion encoder"


@dataclass(frozen=True)
class Opened:
    """A bundle whose files were verified."""

    bundle: Bundle

    @property
    def shape(self) -> ImageShape:
        """Of its images."""
        image, labels = self.bundle.manifest.image, self.bundle.manifest.labels
        return ImageShape(
            resolution=(image.height, image.width),
            channels=image.channels,
            num_classes=len(labels or ()),
        )

    @cached_property
    def subject(self) -> Subject:
        """Its generator in torch."""
        return Subject(trained_generator(self.bundle), self.bundle.manifest.z_dim, self.shape)

    @cached_property
    def generate(self) -> CpuGenerator:
        """model.onnx."""
        return CpuGenerator(self.bundle.model_path)

    @property
    def has_encoder(self) -> bool:
        """True where it has encoder.onnx."""
        return ENCODER in self.bundle.manifest.files

    @cached_property
    def _encoder(self) -> tuple[Any, EncoderTraits]:
        if not self.has_encoder:
            name = self.bundle.manifest.name
            raise CheckpointError(f"{name} has no {ENCODER}; {_REMEDY} {name}")
        path = self.bundle.path / ENCODER
        session = open_session(path)
        inputs, outputs = inputs_of(session), outputs_of(session)
        return session, encoder_traits(path, self.bundle.manifest, inputs, outputs)

    @property
    def traits(self) -> EncoderTraits:
        """Of encoder.onnx.

        Raises:
            CheckpointError: there is none.
        """
        return self._encoder[1]

    def encode(
        self,
        images: Images,
        label: Labels | None = None,
        mask: npt.NDArray[np.uint8] | None = None,
        start: Floats | None = None,
    ) -> Encoded:
        """Encodes images of any number, some at a time; see `models.bundle.inversion.encode`.

        Raises:
            ConfigError: the encoder must be told the classes, and isn't.
        """
        session, traits = self._encoder
        if traits.needs_label and label is None:
            names = ", ".join((self.bundle.manifest.labels or ())[:20])
            raise ConfigError(f"label is not given, allowed: {names}; set --label")
        parts = []
        for first in range(0, len(images), _ROWS):
            rows = slice(first, first + _ROWS)
            given = [None if each is None else each[rows] for each in (label, mask, start)]
            parts.append(
                encode(
                    session,
                    traits,
                    images[rows],
                    z_dim=self.bundle.manifest.z_dim,
                    label=given[0],  # type: ignore[arg-type]
                    mask=given[1],  # type: ignore[arg-type]
                    start=given[2],  # type: ignore[arg-type]
                )
            )
        scores = [part.label_scores for part in parts if part.label_scores is not None]
        z = np.concatenate([part.z for part in parts])
        return Encoded(z, np.concatenate(scores) if scores else None)

    def make(self, z: Floats, label: Labels | None) -> Images:
        """Images of latents by model.onnx."""
        parts = []
        for first in range(0, len(z), _ROWS):
            rows = slice(first, first + _ROWS)
            psi = np.ones(len(z[rows]), np.float32)
            parts.append(self.generate(z[rows], None if label is None else label[rows], psi))
        return np.concatenate(parts)

    def label_of(self, encoded: Encoded, given: Labels | None) -> Labels | None:
        """The class of each image: given, or else the encoder's own."""
        if not self.bundle.manifest.conditional:
            return None
        return given if given is not None else encoded.labels

    def scorer(self) -> Any:
        """score.onnx.

        Raises:
            CheckpointError: there is none.
        """
        if SCORE not in self.bundle.manifest.files:
            name = self.bundle.manifest.name
            raise CheckpointError(f"{name} has no {SCORE}; {_REMEDY} {name}")
        return open_session(self.bundle.path / SCORE)

    def labels_named(self, word: str | None, num: int, answers: int = 1) -> Labels | None:
        """Labels [num] of the class that a word names; None for None.

        answers: words may be several, as 3,5,8, one for each of so many answers: [num, answers].

        Raises:
            ConfigError: the model has no such class, or no classes; or they are too few or many.
        """
        names = self.bundle.manifest.labels
        if word is None:
            return None
        if names is None:
            raise ConfigError(f"label is {word!r}, allowed: none; the model has no classes")
        words = [word] if word in names else word.split(",")
        if len(words) not in (1, answers):
            raise ConfigError(
                f"label is {word!r}, {len(words)} classes, allowed: one"
                + (f", or {answers}, one for each answer" if answers > 1 else "")
                + "; set --label"
            )
        for each in words:
            if each not in names:
                shown = ", ".join(names[:20])
                raise ConfigError(f"label is {each!r}, allowed: {shown}; set --label")
        found = np.array([names.index(each) for each in words], np.int64)
        return np.tile(found, (num, 1)) if len(words) > 1 else np.repeat(found, num)


def require_fitting(model: Opened, image_set: ImageSet) -> None:
    """Raises ConfigError unless images have the size, channels and classes of the model's."""
    shape, made = image_set.shape, model.shape
    found = (shape.channels, shape.height, shape.width)
    expected = (made.channels, made.height, made.width)
    if found != expected:
        raise ConfigError(
            f"data gives images {list(found)}, the model makes {list(expected)} (channels, height, "
            "width); set --data.resolution and --data.channels to the model's"
        )
    names = model.bundle.manifest.labels
    if image_set.label_names is not None and names is not None and image_set.label_names != names:
        raise ConfigError(
            f"data has the classes {', '.join(image_set.label_names[:10])}, the model has "
            f"{', '.join(names[:10])}; give images of its classes (calibrate takes images "
            "without any, too: --data.no-conditional)"
        )


def as_bytes(image_set: ImageSet) -> Images:
    """Its images as [N, H, W, C] uint8."""
    return np.ascontiguousarray(image_set.images.permute(0, 2, 3, 1).numpy())


def to_img(images: Images) -> Tensor:
    """[N, H, W, C] uint8 to [N, C, H, W] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(images: Images, others: Images) -> npt.NDArray[np.float64]:
    """Peak signal-to-noise ratio of each pair in dB, [N]; 99 where they are equal."""
    error = np.square(images.astype(np.float64) - others).mean((1, 2, 3))
    found: npt.NDArray[np.float64] = np.minimum(
        99.0, 10 * np.log10(255**2 / np.maximum(error, 1e-9))
    )
    return found
