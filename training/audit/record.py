"""The audit that goes before a training: into the run's folder, a line for the journal."""

import json
from pathlib import Path

from models.grid import png
from training.audit.inspection import audit
from training.audit.sheet import sheet
from training.data import ImageSet

ALL = 1_000_000_000


def record(image_set: ImageSet, where: str, folder: Path) -> str:
    """Audits and writes audit.txt, audit.json and, if there are findings, audit.png.

    Args:
        image_set: as loaded, on the CPU.
        where: the images' folder, for the report.
        folder: the run's.

    Returns:
        What to tell the person, one line. Nothing is deleted and nothing stops: the training uses
        what is usable.
    """
    report = audit(image_set, where)
    try:
        (folder / "audit.txt").write_text(report.text(shown=ALL), encoding="utf-8")
        text = json.dumps(report.to_builtins(), indent=2) + "\n"
        (folder / "audit.json").write_text(text, encoding="utf-8")
        if not report.findings:
            return report.summary()
        (folder / "audit.png").write_bytes(png(sheet(image_set, report)))
    except OSError as error:
        return f"{report.summary()}; warning: the report was not written: {error}"
    return f"{report.summary()}; see {folder / 'audit.txt'} and audit.png"
