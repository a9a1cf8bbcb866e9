"""The audit before a training: its report goes into the run's folder."""

from pathlib import Path

from models.grid import png
from training.data import ImageSet
from training.data.audit.inspection import audit
from training.data.audit.report import Report
from training.data.audit.sheet import sheet
from training.finite_json import as_json

_ALL = 1_000_000_000


def record(image_set: ImageSet, where: str, folder: Path, *, background: str = "grey") -> list[str]:
    """Audits a set and writes audit.txt, audit.json and, if there are findings, audit.png.

    A report that can't be written doesn't stop the training; the returned line says so.

    Args:
        image_set: as loaded, on the CPU.
        where: the images' folder, for the report.
        folder: the run's folder.
        background: the colour that was put behind transparent places, as it was given.

    Returns:
        Lines for the journal.
    """
    report = audit(image_set, where, background=background)
    return [_record(image_set, report, folder), *(f"note: {note}" for note in report.notes)]


def _record(image_set: ImageSet, report: Report, folder: Path) -> str:
    try:
        (folder / "audit.txt").write_text(report.text(shown=_ALL), encoding="utf-8")
        text = as_json(report.to_builtins()) + "\n"
        (folder / "audit.json").write_text(text, encoding="utf-8")
        if not report.findings:
            return report.summary()
        (folder / "audit.png").write_bytes(png(sheet(image_set, report)))
    except OSError as error:
        return f"{report.summary()}; warning: the report was not written: {error}"
    return f"{report.summary()}; see {folder / 'audit.txt'} and audit.png"
