"""Rules for seeds, latents, labels and sizes, shared by all routes.

Routes have different names for the same field, so the caller passes the name for the refusal.
"""

import re
import secrets
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.latents import MAX_SEED
from serving.dispatch.catalogue import Catalogue, Served
from serving.encoding.bodies import Tiled
from serving.encoding.formats import FORMATS
from serving.errors import InvalidRequestProblem, quoted
from serving.http.json_body import Most
from serving.settings import Settings

_USUAL_Z_DIM = 512  # an older version's may be more than that of any current one
_SEED = re.compile(r"[0-9]{1,20}")


def most_values(catalogue: Catalogue, num_rows: int) -> Most:
    """What a body for so many rows has at most: a latent, a seed and a label each."""
    largest = max((served.manifest.z_dim for served in catalogue.current), default=0)
    return Most(num_rows * (2 + max(largest, _USUAL_Z_DIM)), num_rows)


def check_pixels(num_images: int, served: Served, settings: Settings) -> None:
    """Raises InvalidRequestProblem if so many images have more than `--max-image-pixels`."""
    image = served.manifest.image
    most = settings.max_image_pixels // (image.height * image.width)
    if num_images > most:
        raise InvalidRequestProblem(
            f"{num_images} images of {image.width}x{image.height} pixels are asked for, allowed "
            f"are {most} (--max-image-pixels is {settings.max_image_pixels}); split the request"
        )


def check_sides(encoding: Tiled, num_images: int, served: Served) -> None:
    """Raises InvalidRequestProblem if the file's format does not allow so many tiles."""
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


def check_alpha(format_name: str | None, served: Served) -> None:
    """Raises InvalidRequestProblem if the model's images are transparent and the format isn't."""
    if format_name not in FORMATS or not served.manifest.image.has_alpha:
        return
    if not FORMATS[format_name].has_alpha:
        allowed = ", ".join(entry.name for entry in FORMATS.values() if entry.has_alpha)
        raise InvalidRequestProblem(
            f"format is {format_name!r}, which can't hold the transparency of the images of model "
            f"{served.manifest.name!r}; allowed are {allowed} and npy"
        )


MAX_DRAWN_SEED = 2**53 - 1
"""The largest seed that every JSON reader keeps: JavaScript's numbers are float64."""


def draw_seeds(count: int) -> list[int]:
    """Draws seeds that follow each other, from a start that nobody can foretell."""
    first = secrets.randbelow(MAX_DRAWN_SEED + 2 - count)
    return list(range(first, first + count))


def as_seeds(given: Sequence[int | str], *, field: str = "") -> list[int]:
    """Returns seeds as numbers; the very list where all are. field: of one seed, for refusals.

    Raises:
        InvalidRequestProblem: a string holds something else than decimal digits.
    """
    if str not in set(map(type, given)):
        return given  # type: ignore[return-value]
    for index, seed in enumerate(given):
        if isinstance(seed, str) and not _SEED.fullmatch(seed):
            raise InvalidRequestProblem(
                f"{field or f'seeds[{index}]'} is {quoted(seed)}, allowed are 0 .. {MAX_SEED} "
                "(2**64 - 1), as a number or as a string of digits"
            )
    return [int(seed) for seed in given]


def either(
    seeds: Sequence[int | str] | None, latents: list[list[float]] | None, *, other: str = ""
) -> tuple[str, Sequence[int | str] | list[list[float]]]:
    """Returns the name and the entries of the field that is given.

    other: what may be given instead, for refusals.

    Raises:
        InvalidRequestProblem: both are given, or neither.
    """
    if seeds is not None and latents is None:
        return "seeds", seeds
    if latents is not None and seeds is None:
        return "latents", latents
    given = "neither" if seeds is None else "both"
    raise InvalidRequestProblem(f"{given} of seeds and latents is given; give one of them{other}")


def check_seeds(seeds: list[int], *, field: str = "") -> None:
    """Raises InvalidRequestProblem for a seed out of range; field: the name of one seed."""
    if min(seeds) < 0 or max(seeds) > MAX_SEED:
        index = next(i for i, seed in enumerate(seeds) if not 0 <= seed <= MAX_SEED)
        raise InvalidRequestProblem(
            f"{field or f'seeds[{index}]'} is {quoted(seeds[index])}, allowed are 0 .. {MAX_SEED} "
            "(2**64 - 1)"
        )


def check_labels(
    labels: list[int] | int | None, num_rows: int, served: Served, *, field: str = "labels"
) -> list[int] | None:
    """Returns one label for each row, or None if the model takes none.

    Raises:
        InvalidRequestProblem: labels are missing, not wanted, too few or many, or out of range.
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
        raise InvalidRequestProblem(f"{where} is {quoted(rows[index])}, allowed are {allowed}")
    return rows


def as_latents(rows: list[list[float]], z_dim: int) -> npt.NDArray[np.float32]:
    """Returns rows of numbers as z [N, z_dim] float32.

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
    """Returns latents unchanged if their shape is [N, z_dim] and all are finite.

    Raises:
        InvalidRequestProblem: the shape is another one, or a number isn't finite.
    """
    if z.ndim != 2 or z.shape[1] != z_dim:
        raise InvalidRequestProblem(f"{field} has shape {list(z.shape)}, must be [N, {z_dim}]")
    if not np.isfinite(z).all():
        row, column = np.argwhere(~np.isfinite(z))[0]
        raise InvalidRequestProblem(
            f"{field}[{row}][{column}] is {z[row, column]}, must be finite in float32"
        )
    return z
