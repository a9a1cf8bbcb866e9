"""The contact sheet of an audit: images with findings, with captions, then some without."""

from collections.abc import Sequence
from itertools import chain, zip_longest

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.data import ImageSet
from training.data.audit.report import KINDS, Report

_MIN_TILE = 96
_LINE, _GAP = 12, 10  # height of a caption's line and of the space below a caption, in pixels
_CLEAN = 6  # one of so many tiles is for an image without findings
_PAPER, _INK, _ALARM = (255, 255, 255), (0, 0, 0), (180, 0, 0)
_BEHIND = (192, 192, 192)  # transparent places
_FONT = ImageFont.load_default(10)


def sheet(
    image_set: ImageSet, report: Report, *, tiles: int = 120, columns: int = 10
) -> Image.Image:
    """Draws the images with findings, a tile each, then some without, evenly spread over the set.

    If there are too many, each kind of finding gets its share of the tiles. Files that can't be
    decoded have no tile; the report names them.

    Args:
        image_set: as audited, on the CPU.
        report: its audit.
        tiles: number of tiles at most.
        columns: tiles in a row.

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
    scale = max(1, _MIN_TILE / report.width)  # a caption needs the width
    width, height = round(report.width * scale), round(report.height * scale)
    captions = [_wrapped(kinds.get(i, []), width) for i in shown]
    num_lines = 1 + max(map(len, captions), default=0)
    pitch = height + num_lines * _LINE + _GAP
    canvas = Image.new("RGB", (columns * width, max(1, -(-len(shown) // columns)) * pitch), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for place, (index, caption) in enumerate(zip(shown, captions, strict=True)):
        x, y = place % columns * width, place // columns * pitch
        canvas.paste(_picture(image_set, index, (width, height)), (x, y))
        name = image_set.origins[index].name if image_set.origins else f"image {index}"
        for line in caption:
            draw.text((x + 2, y + height), line, _ALARM, _FONT)
            y += _LINE
        draw.text((x + 2, y + height), _fitting(name, width), _INK, _FONT)
    return canvas


def _chosen(report: Report, num: int) -> set[int]:
    """At most num images with findings, taken from each kind in turn."""
    by_kind = [
        [f.index for f in report.findings if f.kind == kind and f.index is not None]
        for kind in KINDS
    ]
    in_turn = (index for index in chain(*zip_longest(*by_kind)) if index is not None)
    return set(list(dict.fromkeys(in_turn))[:num])


def _in_order(report: Report, chosen: set[int]) -> list[int]:
    """The chosen images in the report's order, duplicates after the image that they repeat."""
    shown: dict[int, None] = {}
    for finding in report.findings:
        if finding.index in chosen and finding.index not in shown:
            if finding.twin is not None:
                shown[finding.twin] = None
            shown[finding.index] = None
    return list(shown)


def _picture(image_set: ImageSet, index: int, size: tuple[int, int]) -> Image.Image:
    pixels = image_set.images[index].permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if picture.mode == "RGBA":
        behind = Image.new("RGBA", picture.size, _BEHIND)
        picture = Image.alpha_composite(behind, picture)
    return picture.convert("RGB").resize(size, Image.Resampling.NEAREST)


def _wrapped(kinds: Sequence[str], width: int) -> list[str]:
    """The lines of a caption, with as many kinds in each as fit into the width in pixels."""
    lines: list[str] = []
    for kind in dict.fromkeys(kinds):
        if lines and _FONT.getlength(f"{lines[-1]}, {kind}") <= width - 4:
            lines[-1] += f", {kind}"
        else:
            lines.append(kind)
    return lines


def _fitting(text: str, width: int) -> str:
    """The text, or as much of its end as fits: names of files differ at the end."""
    text = text.encode("latin-1", "replace").decode("latin-1")  # the built-in font has no more
    if _FONT.getlength(text) <= width - 4:
        return text
    while text and _FONT.getlength("..." + text) > width - 4:
        text = text[1:]
    return "..." + text
