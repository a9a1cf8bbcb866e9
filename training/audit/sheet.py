"""The contact sheet: pictures with findings, each once with all its kinds, then some others."""

from collections.abc import Sequence
from itertools import chain, zip_longest

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.audit.report import KINDS, Report
from training.data import ImageSet

_MIN_TILE = 96
_LINE, _GAP = 12, 10  # pixels of a line of a caption, and below it
_CLEAN = 6  # one tile in so many is kept for pictures without findings
_PAPER, _INK, _ALARM = (255, 255, 255), (0, 0, 0), (180, 0, 0)
_FONT = ImageFont.load_default(10)


def sheet(
    image_set: ImageSet, report: Report, *, tiles: int = 120, columns: int = 10
) -> Image.Image:
    """Pictures with findings first, a tile each, then some without, evenly spread over the set.

    Where there are more than tiles, every kind of finding has its share of them. What can't be
    decoded has no picture, and no tile: the report names it.

    Args:
        image_set: as audited, on the CPU.
        report: what was found.
        tiles: how many at most.
        columns: tiles a row.

    Returns:
        An RGB image.
    """
    kinds: dict[int, list[str]] = {}
    for finding in report.findings:
        if finding.index is not None:
            kinds.setdefault(finding.index, []).append(finding.kind)
    clean = [i for i in range(len(image_set)) if i not in kinds]
    num_found = tiles - min(tiles // _CLEAN, len(clean))
    shown = _in_order(report, _chosen(report, num_found))[:num_found]
    clean = [i for i in clean if i not in set(shown)]
    num_clean = min(tiles - len(shown), len(clean))
    shown += [clean[i] for i in np.linspace(0, len(clean) - 1, num_clean).astype(int)]
    side = max(report.resolution, _MIN_TILE)
    captions = [_wrapped(kinds.get(i, []), side) for i in shown]
    num_lines = 1 + max(map(len, captions), default=0)
    pitch = side + num_lines * _LINE + _GAP
    board = Image.new("RGB", (columns * side, max(1, -(-len(shown) // columns)) * pitch), _PAPER)
    draw = ImageDraw.Draw(board)
    for place, (index, caption) in enumerate(zip(shown, captions, strict=True)):
        x, y = place % columns * side, place // columns * pitch
        board.paste(_picture(image_set, index, side), (x, y))
        name = image_set.origins[index].name if image_set.origins else f"image {index}"
        for line in caption:
            draw.text((x + 2, y + side), line, _ALARM, _FONT)
            y += _LINE
        draw.text((x + 2, y + side), _fitting(name, side), _INK, _FONT)
    return board


def _chosen(report: Report, num: int) -> set[int]:
    """Images with findings, num at most: of each kind in turn the next that isn't there yet."""
    by_kind = [
        [f.index for f in report.findings if f.kind == kind and f.index is not None]
        for kind in KINDS
    ]
    in_turn = (index for index in chain(*zip_longest(*by_kind)) if index is not None)
    return set(list(dict.fromkeys(in_turn))[:num])


def _in_order(report: Report, chosen: set[int]) -> list[int]:
    """The chosen in the order of the report; duplicates behind the one that they repeat."""
    shown: dict[int, None] = {}
    for finding in report.findings:
        if finding.index in chosen and finding.index not in shown:
            if finding.twin is not None:
                shown[finding.twin] = None
            shown[finding.index] = None
    return list(shown)


def _picture(image_set: ImageSet, index: int, side: int) -> Image.Image:
    pixels = image_set.images[index].permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return picture.convert("RGB").resize((side, side), Image.Resampling.NEAREST)


def _wrapped(kinds: Sequence[str], width: int) -> list[str]:
    """The kinds, as many in a line as fit."""
    lines: list[str] = []
    for kind in dict.fromkeys(kinds):
        if lines and _FONT.getlength(f"{lines[-1]}, {kind}") <= width - 4:
            lines[-1] += f", {kind}"
        else:
            lines.append(kind)
    return lines


def _fitting(text: str, width: int) -> str:
    """The text, or as much of its end as fits: names differ there."""
    text = text.encode("latin-1", "replace").decode("latin-1")  # what the built-in font has
    if _FONT.getlength(text) <= width - 4:
        return text
    while text and _FONT.getlength("..." + text) > width - 4:
        text = text[1:]
    return "..." + text
