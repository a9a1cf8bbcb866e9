"""The rules for what a request asks for: seeds, latents, labels, sizes. Each refuses in words.

The same for every way in: the caller says what its client calls the field.
"""

import numpy as np
import numpy.typing as npt

from models.latents import MAX_SEED
from serving.catalogue import Served
from serving.encodings import Tiled
from serving.errors import InvalidRequestProblem
from serving.settings import Settings
from serving.wording import shown


def check_pixels(num_images: int, served: Served, settings: Settings) -> None:
    """Raises InvalidRequestProblem where so many images would be too much memory."""
    image = served.manifest.image
    most = settings.max_image_pixels // (image.height * image.width)
    if num_images > most:
        raise InvalidRequestProblem(
            f"{num_images} images of {image.width}x{image.height} pixels are asked for, allowed "
            f"are {most} (--max-image-pixels is {settings.max_image_pixels}); split the request"
        )


def check_sides(encoding: Tiled, num_images: int, served: Served) -> None:
    """Raises InvalidRequestProblem where a file's format has no room for so many tiles."""
    image = served.manifest.image
    columns, rows = encoding.tiles(num_images)
    width, height = columns * image.width, rows * image.height
    most = encoding.format.max_side
    if max(width, height) > most:
        raise InvalidRequestProblem(
            f"{num_images} images of {image.width}x{image.height} pixels side by side are "
            f"{width}x{height}, a {encoding.format.name} has at most {most} a side; ask for fewer, "
            "or another format"
        )


def either(
    seeds: list[int] | None, latents: list[list[float]] | None
) -> tuple[str, list[int] | list[list[float]]]:
    """The name and the entries of the one that is given.

    Raises:
        InvalidRequestProblem: both are given, or neither.
    """
    if seeds is not None and latents is None:
        return "seeds", seeds
    if latents is not None and seeds is None:
        return "latents", latents
    given = "neither" if seeds is None else "both"
    raise InvalidRequestProblem(f"{given} of seeds and latents is given; give one of them")


def check_seeds(seeds: list[int]) -> None:
    """Raises InvalidRequestProblem for a seed out of range."""
    if min(seeds) < 0 or max(seeds) > MAX_SEED:
        index = next(i for i, seed in enumerate(seeds) if not 0 <= seed <= MAX_SEED)
        raise InvalidRequestProblem(
            f"seeds[{index}] is {shown(seeds[index])}, allowed are 0 .. {MAX_SEED} (2**64 - 1)"
        )


def check_labels(
    labels: list[int] | int | None, num_rows: int, served: Served, *, field: str = "labels"
) -> list[int] | None:
    """One label a row, or None where the model takes none.

    Raises:
        InvalidRequestProblem: missing, not wanted, too few or many, or out of range; it says field.
    """
    names = served.manifest.labels
    model = served.manifest.name
    if names is None:
        if labels is not None:
            raise InvalidRequestProblem(
                f"{field} is given, but model {model!r} takes none; leave it out"
            )
        return None
    allowed = f"0 .. {len(names) - 1} ({', '.join(names[:12])}{', ...' if len(names) > 12 else ''})"
    if labels is None:
        raise InvalidRequestProblem(
            f"{field} is missing; model {model!r} needs one for each image, allowed are {allowed}"
        )
    rows = [labels] * num_rows if isinstance(labels, int) else labels
    if len(rows) != num_rows:
        raise InvalidRequestProblem(
            f"{field} has {len(rows)} entries for {num_rows} images; "
            "give one for each, or one for all"
        )
    if min(rows) < 0 or max(rows) >= len(names):
        index = next(i for i, label in enumerate(rows) if not 0 <= label < len(names))
        where = field if isinstance(labels, int) else f"{field}[{index}]"
        raise InvalidRequestProblem(f"{where} is {shown(rows[index])}, allowed are {allowed}")
    return rows


def as_latents(rows: list[list[float]], z_dim: int) -> npt.NDArray[np.float32]:
    """Rows of numbers as z [N, z_dim] float32.

    Raises:
        InvalidRequestProblem: a row has another length, or a number isn't finite.
    """
    for index, row in enumerate(rows):
        if len(row) != z_dim:
            raise InvalidRequestProblem(
                f"latents[{index}] has {len(row)} numbers, this model's latents have {z_dim}"
            )
    with np.errstate(over="ignore"):
        z = np.array(rows, np.float64).astype(np.float32)
    return finite_latents(z, z_dim)


def finite_latents(
    z: npt.NDArray[np.float32], z_dim: int, *, field: str = "latents"
) -> npt.NDArray[np.float32]:
    """Latents [N, z_dim] as they are.

    Raises:
        InvalidRequestProblem: another shape, or a number that isn't finite; it says field.
    """
    if z.ndim != 2 or z.shape[1] != z_dim:
        raise InvalidRequestProblem(f"{field} has shape {list(z.shape)}, must be [N, {z_dim}]")
    if not np.isfinite(z).all():
        row, column = np.argwhere(~np.isfinite(z))[0]
        raise InvalidRequestProblem(
            f"{field}[{row}][{column}] is {z[row, column]}, must be finite in float32"
        )
    return z
