"""The commands that give images back: project, edit, fill, enlarge."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from models.bundle import Bundle
from models.bundle.directions import DirectionError, parse_amounts, read_directions
from models.image_metadata import provenance
from models.networks import Mapped
from models.restoration import edited, filled, repeated, shrunk, spread
from training.errors import CheckpointError, ConfigError, require, require_number
from training.export.onnx_graphs import to_bytes
from training.interpretation.published import require_free, write_files
from training.inversion.opened import Labels, Opened, psnr
from training.inversion.pictures import (
    NOT_TRUE,
    SHEET,
    Size,
    names_of,
    read_for_filling,
    read_images,
    sheet,
    table,
    tagged,
)
from training.inversion.projection import ProjectionConfig, Space
from training.inversion.restore import Answers, restore
from training.inversion.work import decibel

Say = Callable[[str], None]
_MOST = 64
_SHOWN = 16  # images of a sheet
LATENTS, PROJECTED = "latents.npz", "projected.png"
"""What `project` writes."""


@dataclass(frozen=True, kw_only=True)
class _Restoring:
    files: tyro.conf.Suppress[tyro.conf.Fixed[tuple[Path, ...]]] = ()
    repository: Path = Path("model-repository")
    """Folder of published models."""
    out: Path
    force: bool = False
    """Overwrite files that are there; never those that are read."""
    label: str | None = None
    """Class of the images, of conditional models; by default it is found. Where there are several
    answers, all are of it; 3,5,8 gives three answers a class each."""
    steps: int = 200
    """Steps of Adam; 0 for the encoder's answer as it is."""
    lr: float = 0.05
    """Its learning rate."""

    def _opened(self, bundle: Bundle) -> tuple[Opened, Size]:
        require(0 <= self.steps <= 100_000, "steps", self.steps, "0 .. 100,000", "set --steps")
        require_number("lr", self.lr, above=0)
        image = bundle.manifest.image
        return Opened(bundle), Size(image.height, image.width, image.channels)

    def _config(self) -> ProjectionConfig:
        return ProjectionConfig(steps=self.steps, lr=self.lr)

    def _require_free(self, names: Sequence[str], mask: Path | None = None) -> None:
        inputs = self.files if mask is None else (*self.files, mask)
        require_free(self.out, names, inputs=inputs, force=self.force)

    def words(self, bundle: Bundle, answers: Answers, row: int, number: int = 0) -> dict[str, str]:
        """How an answer to an image was made; number: which one."""
        manifest = bundle.manifest
        label = None if answers.label is None else int(answers.label[row, number])
        return provenance(
            model=manifest.name,
            version=manifest.version,
            digest=bundle.digest,
            truncation=1.0,
            label=label,
        )


def first_label(answers: Answers) -> Labels | None:
    """The class of each image, of its first answer."""
    return None if answers.label is None else answers.label[:, 0]


def _require_answers(num: int) -> None:
    require(1 <= num <= _MOST, "answers", num, f"1 .. {_MOST}", "set --answers")


@dataclass(frozen=True, kw_only=True)
class ProjectCommand(_Restoring):
    """Find the latents of images: the best of several restarts, in z and where there is one in w.

    A table is printed; --out gets latents.npz and projected.png: real, encoder, z, w in rows.
    """

    out: Path = Path("projected")
    """Folder for the images."""
    restarts: int = 4
    """Starts of each image, of which the best is kept."""

    def run(self, bundle: Bundle, say: Say) -> str:
        """Projects, writes, and returns the table."""
        require(
            1 <= self.restarts <= _MOST, "restarts", self.restarts, f"1 .. {_MOST}", "--restarts 4"
        )
        model, size = self._opened(bundle)
        images = read_images(self.files, size, exact=False)
        self._require_free([LATENTS, PROJECTED])
        label = model.labels_named(self.label, len(images))
        rows = [images]
        columns: dict[str, np.ndarray] = {}
        arrays: dict[str, np.ndarray] = {}
        if model.has_encoder:
            first = restore(model, images, label=label, config=ProjectionConfig(steps=0))
            columns["encoder"], label = psnr(images, first.images[:, 0]), first_label(first)
            rows.append(first.images[:, 0])
        spaces: tuple[Space, ...] = ("z", "w") if isinstance(model.subject.G, Mapped) else ("z",)
        for space in spaces:
            config = replace(self._config(), space=space)
            found = restore(
                model, images, label=label, answers=self.restarts, config=config, say=say
            )
            label, best = first_label(found), found.found.best()
            made = to_bytes(best.made[:, 0]).numpy()
            columns[space], arrays[space] = psnr(images, made), best.latent[:, 0].numpy()
            rows.append(made)
        if label is not None:
            arrays["label"] = label
        shown = [row[:_SHOWN] for row in rows]
        write_files(self.out, {LATENTS: _npz(arrays), PROJECTED: sheet(shown)}, say)
        return table(
            [path.name for path in self.files], {f"{k} (dB)": v for k, v in columns.items()}
        )


@dataclass(frozen=True, kw_only=True)
class EditCommand(_Restoring):
    """Move images along directions of the model; what the directions don't change stays.

    The latent of each image is found and moved; the difference between the two images that the
    model makes is added to the real one.
    """

    out: Path = Path("edited")
    """Folder for the images."""
    directions: str = ""
    """Units of directions, as 0:1.5,thickness:-1: those of `python -m training.interpretation`."""

    def run(self, bundle: Bundle, say: Say) -> str:
        """Edits, writes, and returns the table."""
        model, size = self._opened(bundle)
        known = read_directions(bundle)
        if known is None:
            name = bundle.manifest.name
            raise CheckpointError(
                f"{name} has no directions; find them: "
                f"python -m training.interpretation directions {name} --publish"
            )
        try:
            applied = known.resolve(parse_amounts(self.directions))
        except DirectionError as error:
            raise ConfigError(f"{error}; set --directions") from error
        names = names_of(self.files, 1)
        images = read_images(self.files, size, exact=False)
        self._require_free([*(name for (name,) in names), SHEET])
        given = model.labels_named(self.label, len(images))
        found = restore(model, images, label=given, config=self._config(), say=say)
        z = found.found.latent[:, 0].numpy()
        label = first_label(found)
        shift = known.shift(applied, len(z), None if label is None else label.tolist())
        before = found.images[:, 0]
        after = before if shift is None else model.make(z + shift, label)
        made = edited(images, before, after)
        words = [self.words(bundle, found, row) for row in range(len(images))]
        files = {
            name: tagged(image, {**word, "directions": self.directions, "edited": "yes"})
            for (name,), image, word in zip(names, made, words, strict=True)
        }
        rows = [each[:_SHOWN] for each in (images, before, after, made)]
        write_files(self.out, {**files, SHEET: sheet(rows)}, say)
        moved = np.abs(made.astype(float) - images).mean((1, 2, 3))
        return table(
            [path.name for path in self.files],
            {"inversion (dB)": psnr(images, before), "mean change of a pixel": moved},
        )


@dataclass(frozen=True, kw_only=True)
class FillCommand(_Restoring):
    """Fill holes of images: where alpha is below 128, or a mask is black; other pixels stay.

    Each answer is plausible, not true. Their spread says how much the known pixels leave open.
    """

    out: Path = Path("filled")
    """Folder for the images."""
    mask: Path | None = None
    """An image of the same size, white where pixels are known, black where to fill; by default
    each image's alpha."""
    answers: int = 4
    """Answers of each image."""

    def run(self, bundle: Bundle, say: Say) -> str:
        """Fills, writes, and returns the table."""
        _require_answers(self.answers)
        names = sum(names_of(self.files, self.answers), [SHEET])  # before minutes of work
        model, size = self._opened(bundle)
        images, mask = read_for_filling(self.files, self.mask, size)
        self._require_free(names, self.mask)
        found = restore(
            model,
            images,
            mask=mask,
            label=model.labels_named(self.label, len(images), self.answers),
            answers=self.answers,
            config=self._config(),
            say=say,
        )
        made = np.stack(
            [filled(images, found.images[:, k], mask) for k in range(self.answers)], axis=1
        )
        holes = np.where(mask[..., None] > 0, images, 128)
        return _several(self, bundle, found, made, holes, say, {})


@dataclass(frozen=True, kw_only=True)
class EnlargeCommand(_Restoring):
    """Enlarge small images to the model's size: answers whose averages are the small image.

    Each answer is plausible, not true. The files must be of the model's size divided by --factor.
    """

    out: Path = Path("enlarged")
    """Folder for the images."""
    factor: int = 4
    """How many times smaller the files are."""
    answers: int = 4
    """Answers of each image."""

    def run(self, bundle: Bundle, say: Say) -> str:
        """Enlarges, writes, and returns the table."""
        _require_answers(self.answers)
        names = sum(names_of(self.files, self.answers), [SHEET])  # before minutes of work
        model, size = self._opened(bundle)
        fits = self.factor >= 2 and not (size.height % self.factor or size.width % self.factor)
        sides = f"2 or more, and a divisor of {size.width} and {size.height}"
        require(fits, "factor", self.factor, sides, "set --factor")
        least = Size(size.height // self.factor, size.width // self.factor, size.channels)
        whose = f"the model's {size.width}x{size.height} divided by --factor {self.factor}"
        small = read_images(self.files, least, exact=True, whose=whose)
        self._require_free(names)
        large = repeated(small, self.factor)
        found = restore(
            model,
            large,
            small=small,
            factor=self.factor,
            label=model.labels_named(self.label, len(small), self.answers),
            answers=self.answers,
            config=replace(self._config(), on_sphere=True),
            say=say,
        )
        down = np.stack([shrunk(rows, self.factor) for rows in found.images])
        error = np.square((down - small[:, None]) / 255.0).mean((2, 3, 4))
        column = {"squared error of the average (range 1)": error.max(1)}
        return _several(self, bundle, found, found.images, large, say, column)


def _several(
    command: FillCommand | EnlargeCommand,
    bundle: Bundle,
    found: Answers,
    made: np.ndarray,
    given: np.ndarray,
    say: Say,
    columns: dict[str, np.ndarray],
) -> str:
    """Writes K answers of each image, and returns the table."""
    files: dict[str, bytes] = {}
    spreads = np.array([spread(answers).mean() for answers in made])
    for row, names in enumerate(names_of(command.files, command.answers)):
        told = {"note": NOT_TRUE, "spread": f"{spreads[row]:.2f}"}
        for number, (name, image) in enumerate(zip(names, made[row], strict=True)):
            words = command.words(bundle, found, row, number) | told | {"answer": str(number)}
            files[name] = tagged(image, words)
    shown = [np.concatenate([one[None], each]) for one, each in zip(given, made, strict=True)]
    shown = shown[:_SHOWN]
    write_files(command.out, {**files, SHEET: sheet(shown)}, say)
    worst = found.found.error.amax(1).tolist()
    columns = {
        "error where known (dB)": np.array([decibel(error) for error in worst]),
        "spread of the answers (steps)": spreads,
        **columns,
    }
    return f"{table([path.name for path in command.files], columns)}\n\n{NOT_TRUE}"


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
