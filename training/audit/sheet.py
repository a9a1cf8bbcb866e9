"""The contact sheet: what was found as pictures, each with its kind and name, then some others."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.audit.report import Finding, Report
from training.data import ImageSet

_MIN_TILE = 96
_CAPTION = 26
_PAPER, _INK, _ALARM = (255, 255, 255), (0, 0, 0), (180, 0, 0)


def sheet(
    image_set: ImageSet, report: Report, *, tiles: int = 120, columns: int = 10
) -> Image.Image:
    """Findings first, one tile each, then images without any, evenly spread over the set.

    Args:
        image_set: as audited, on the CPU.
        report: what was found.
        tiles: how many at most.
        columns: tiles a row.

    Returns:
        An RGB image.
    """
    entries = _pictured(report)[:tiles]
    found = {f.index for f in report.findings} | {e for e in entries if isinstance(e, int)}
    clean = [i for i in range(len(image_set)) if i not in found]
    num_clean = min(tiles - len(entries), len(clean))
    entries += [clean[i] for i in np.linspace(0, len(clean) - 1, num_clean).astype(int)]
    side = max(report.resolution, _MIN_TILE)
    rows = max(1, -(-len(entries) // columns))
    board = Image.new("RGB", (columns * side, rows * (side + _CAPTION)), _PAPER)
    draw = ImageDraw.Draw(board)
    for place, entry in enumerate(entries):
        row, column = divmod(place, columns)
        corner = (column * side, row * (side + _CAPTION))
        _tile(board, draw, corner, side, image_set, entry)
    return board


def _pictured(report: Report) -> list[Finding | int]:
    """Findings that have a picture; duplicates behind the one that they repeat."""
    entries: list[Finding | int] = []
    shown: set[int] = set()
    for finding in report.findings:
        if finding.kind == "imbalance":
            continue
        if finding.twin is not None and finding.group not in shown:
            entries.append(finding.twin)
            shown.add(finding.group or 0)
        entries.append(finding)
    return entries


def _tile(
    board: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    side: int,
    image_set: ImageSet,
    entry: Finding | int,
) -> None:
    x, y = corner
    index = entry.index if isinstance(entry, Finding) else entry
    if index is None:
        draw.line((x, y, x + side, y + side), _ALARM)
        draw.line((x, y + side, x + side, y), _ALARM)
    else:
        pixels = image_set.images[index].permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        board.paste(picture.convert("RGB").resize((side, side), Image.Resampling.NEAREST), (x, y))
    if isinstance(entry, Finding):
        kind, name = entry.kind, entry.name
    else:
        kind, name = "", image_set.origins[entry].name if image_set.origins else f"image {entry}"
    draw.text((x + 2, y + side), _fitting(kind, side), _ALARM, _FONT)
    draw.text((x + 2, y + side + 12), _fitting(name, side), _INK, _FONT)


_FONT = ImageFont.load_default(10)


def _fitting(text: str, width: int) -> str:
    """The text, or as much of its end as fits: names differ there."""
    text = text.encode("latin-1", "replace").decode("latin-1")  # what the built-in font has
    if _FONT.getlength(text) <= width - 4:
        return text
    while text and _FONT.getlength("..." + text) > width - 4:
        text = text[1:]
    return "..." + text
