"""`python -m training.inversion score MODEL FILES`: how unusual images are, and where."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tyro

from models.bundle import Bundle
from models.bundle.anomaly import holds, read_calibration, score_images
from models.bundle.generator import Images
from training.errors import ConfigError
from training.interpretation.published import require_free, write_files
from training.inversion.opened import Floats, Labels, Opened
from training.inversion.pictures import SHEET, Size, read_images, sheet, table

Say = Callable[[str], None]
_ROWS = 64
RESIDUALS = "residuals.npz"
_SHOWN = 16  # images of a sheet


class ScoredImages(NamedTuple):
    """What the score of N images stands on."""

    score: npt.NDArray[np.float64]
    """[N]."""
    residual: Floats
    """[N, H, W], at least 0: squared difference of each pixel, in [-1, 1] squared."""
    made: Images
    """[N, H, W, C]: the reconstructions."""


def scored(model: Opened, images: Images, labels: Labels | None) -> ScoredImages:
    """Compares images with their reconstructions; labels: [N], where the encoder is told.

    Raises:
        ConfigError: it must be told, and isn't.
    """
    encoded = model.encode(images, labels)
    made = model.make(encoded.z, model.label_of(encoded, labels))
    session = model.scorer()
    parts = [
        score_images(session, images[i : i + _ROWS], made[i : i + _ROWS])
        for i in range(0, len(images), _ROWS)
    ]
    return ScoredImages(
        np.concatenate([part.score for part in parts]).astype(np.float64),
        np.concatenate([part.residual for part in parts]),
        made,
    )


def require_own_class(model: Opened, label: str | None, why: str) -> None:
    """Raises ConfigError where a class is given, and p is of the one that the encoder finds."""
    if not holds(model.traits, labels_given=label is not None):
        raise ConfigError(
            f"label is {label!r}, allowed: none, as the encoder finds the class of an image, and "
            f"{why}; leave --label out"
        )


@dataclass(frozen=True, kw_only=True)
class ScoreCommand:
    """Score images: how far each is from what the model makes of it, where, and its p.

    Prints a table; --out gets sheet.png (rows: the images, what the model makes of them, where they
    differ: white is the largest difference of all) and residuals.npz. p needs a calibrated model.
    """

    files: tyro.conf.Suppress[tyro.conf.Fixed[tuple[Path, ...]]] = ()
    repository: Path = Path("model-repository")
    """Folder of published models."""
    out: Path = Path("scored")
    """Folder for the picture and the residuals."""
    force: bool = False
    """Overwrite files that are there; never those that are read."""
    label: str | None = None
    """Class of the images. A calibrated model takes none where its encoder finds the class."""

    def run(self, bundle: Bundle, say: Say) -> str:
        """Scores, writes, and returns the table."""
        model, image = Opened(bundle), bundle.manifest.image
        model.scorer()  # before any file is read
        calibration = read_calibration(bundle)
        if calibration is not None:
            require_own_class(model, self.label, "p is counted in scores that were made so")
        size = Size(image.height, image.width, image.channels)
        images = read_images(self.files, size, exact=False)
        require_free(self.out, (RESIDUALS, SHEET), inputs=self.files, force=self.force)
        found = scored(model, images, model.labels_named(self.label, len(images)))
        values: dict[str, np.ndarray] = {"score": found.score}
        if calibration is not None:
            values["p"] = calibration.p_values(found.score)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, residual=found.residual, **values)  # type: ignore[arg-type]
        shown = (images[:_SHOWN], found.made[:_SHOWN], maps(found.residual[:_SHOWN], size.channels))
        write_files(self.out, {RESIDUALS: buffer.getvalue(), SHEET: sheet(shown)}, say)
        note = "" if calibration is not None else "\n\nno p: the model is not calibrated"
        columns = values | {"largest difference of a pixel": found.residual.max((1, 2))}
        return table([path.name for path in self.files], columns) + note


def maps(residual: Floats, channels: int) -> Images:
    """Residuals [N, H, W] as images [N, H, W, C]: 0 is black, the largest of all is white.

    Grey is the root, a difference and not its square, as an eye takes it.
    """
    root = np.sqrt(residual)
    grey = (root / (float(root.max()) or 1.0) * 255).round().astype(np.uint8)
    shown = np.repeat(grey[..., None], channels, axis=3)
    if channels == 4:
        shown[..., 3] = 255
    return shown
