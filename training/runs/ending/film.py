"""The training as a film: its grids one after the other, as an animated WebP."""

import io
import re
from pathlib import Path

from PIL import Image

FILM = "training.webp"
MOST_FRAMES = 150
_FRAME_MS = 120
_LAST_MS = 2000
_MOST_PIXELS = 1280  # of a frame's longer side
_GRID = re.compile(r"samples-([0-9]+(?:\.[0-9]+)?)\.png")


def grids(folder: Path) -> list[Path]:
    """The grids of a run's ticks, in the order of the training. folder: of the samples."""
    found = {path: match for path in folder.glob("*.png") if (match := _GRID.fullmatch(path.name))}
    return sorted(found, key=lambda path: (float(found[path][1]), path.name))


def grid_kimg(path: Path) -> float:
    """Thousands of images shown when a grid was made; 0 for a picture that is no tick's."""
    match = _GRID.fullmatch(path.name)
    return float(match[1]) if match else 0.0


def film(folder: Path) -> bytes | None:
    """The grids in a folder as one film, an animated WebP.

    Of very many grids some are left out, evenly. Grids of another size, of a run that was resumed
    by another release for instance, are left out, too.

    Returns:
        The file's content; None where there are fewer than two grids.

    Raises:
        OSError: a grid can't be read.
    """
    paths = grids(folder)
    num = len(paths)
    if num > MOST_FRAMES:
        paths = [paths[round(i * (num - 1) / (MOST_FRAMES - 1))] for i in range(MOST_FRAMES)]
    frames = [_frame(path) for path in paths]
    frames = [frame for frame in frames if frame.size == frames[-1].size]
    if len(frames) < 2:
        return None
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_MS]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=80,
        method=2,
    )
    return buffer.getvalue()


def _frame(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            frame = picture.convert("RGBA" if picture.mode == "RGBA" else "RGB")
    except (SyntaxError, ValueError) as error:  # Pillow's, of a damaged PNG file
        raise OSError(f"{path}: {error}") from error
    frame.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    return frame
