"""Writes the report of some runs into one file of less than two megabytes, as a whole."""

from collections.abc import Callable, Sequence
from pathlib import Path

from models.bundle import write_synced
from training.errors import UnsavedError
from training.report.charts import compared
from training.report.page import Page
from training.report.summary import Summary
from training.runs.catalogue import Run, labels_of

NAME = "report.html"
MOST_BYTES = 2_000_000
_PICTURES = 1_100_000
_POINTS = 700
_LEAST_POINTS = 24


def document(runs: Sequence[Run]) -> str:
    """The page of some runs, as detailed as fits."""
    summaries = [Summary.of(*each) for each in zip(runs, labels_of(runs), strict=True)]
    histories = {each.name: each.history for each in summaries}
    points, pictures = _POINTS // len(runs) ** 0.5, _PICTURES / len(runs)
    while True:
        most = max(int(points), _LEAST_POINTS)
        whole = [
            each.within(run, num_points=most, picture_bytes=int(pictures))
            for run, each in zip(runs, summaries, strict=True)
        ]
        text = Page().html(whole, list(compared(histories, most=most)) if len(runs) > 1 else [])
        if len(text.encode()) < MOST_BYTES or points < _LEAST_POINTS:
            return text
        points, pictures = points / 2, pictures / 2


def write(runs: Sequence[Run], path: Path) -> Path:
    """Writes the page, or leaves what was there.

    Raises:
        UnsavedError: the file can't be written.
    """
    text = document(runs)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_synced(temporary, text.encode())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UnsavedError(
            f"out is {str(path)!r}: {error.strerror or error}; make room, or set --out"
        ) from error
    return path


def write_at_end(folder: Path, say: Callable[[str], None]) -> None:
    """Writes a run's own report. What goes wrong is said, as it must cost the run nothing."""
    try:
        path = write([Run(folder)], folder / NAME)
    except Exception as error:
        say(f"warning: no report: {error}")
    else:
        say(f"The report: {path}")
