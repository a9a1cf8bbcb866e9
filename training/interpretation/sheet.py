"""Directions for people: a picture with a row for each, and a table of their evidence."""

import io

import numpy as np
from PIL import Image, ImageDraw

from models.bundle.directions import Applied, Directions, DirectionSet

_TILE = 64  # pixels of a tile's longer side, at least
_MARGIN = 150
_NUM_TOLD = 2  # concepts of a direction without a name


def sheet(directions: Directions, name: str) -> bytes:
    """A PNG file: a row for each direction of a set, one seed from few units to many.

    name: the set; of classes the first direction of each.
    """
    each = directions.sets[name]
    pictures = each.pictures if each.steps.ndim == 2 else each.pictures[:, 0]
    num, columns, height, width, channels = pictures.shape
    factor = max(1, _TILE // max(height, width))
    tiles = np.repeat(np.repeat(pictures, factor, 2), factor, 3)
    height, width = height * factor, width * factor
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    picture = Image.new("RGB", (_MARGIN + columns * width, num * height), "white")
    draw = ImageDraw.Draw(picture)
    for row, line in enumerate(_lines(each, name)):
        draw.text((4, row * height + height // 2 - 6), line, fill="black")
        for column in range(columns):
            tile = tiles[row, column]
            image = Image.fromarray(tile[..., 0] if channels == 1 else tile, mode)
            place = (_MARGIN + column * width, row * height)
            picture.paste(image, place, image if channels == 4 else None)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def table(directions: Directions) -> str:
    """A Markdown table: each direction's key and name, share of the change, and best evidence."""
    rows = ["| direction | name | share of the change | follows (rank correlation) |"]
    rows.append("|---|---|---|---|")
    for name, each in directions.sets.items():
        for number in range(each.num):
            if each.steps.ndim == 2:
                rows.append(_row(directions, name, number, each, ()))
            else:
                rows += [
                    _row(directions, name, number, each, (label,))
                    for label in range(len(each.steps))
                ]
    return "\n".join(rows)


def summary(directions: Directions) -> str:
    """One line: how many directions there are, and the names with their evidence."""
    shared = directions.sets["z"]
    named = [
        f"{word} ({_evidence(directions, shared, number, word):.2f})"
        for number, word in enumerate(shared.names.tolist())
        if word
    ]
    found = f"{shared.num} directions, named by what follows them: {', '.join(named)}"
    return found if named else f"{shared.num} directions, none of which a measured concept follows"


def _row(
    directions: Directions, name: str, number: int, each: DirectionSet, at: tuple[int, ...]
) -> str:
    values = each.eigenvalues[at]
    share = float(values[number] / max(values.sum(), 1e-12))
    rho = each.evidence[(*at, number)]
    best = np.argsort(-np.abs(rho))[:_NUM_TOLD]
    told = ", ".join(f"{directions.concepts[i]} {rho[i]:+.2f}" for i in best)
    of = f" of class {at[0]}" if at else ""
    word = str(each.names[(*at, number)]) or "-"
    return f"| {Applied(name, number, 0).key}{of} | {word} | {share:.0%} | {told} |"


def _evidence(directions: Directions, each: DirectionSet, number: int, word: str) -> float:
    return float(each.evidence[number, directions.concepts.index(word)])


def _lines(each: DirectionSet, name: str) -> list[str]:
    if each.steps.ndim == 3:
        return [f"class {label}: {name}:0" for label in range(len(each.steps))]
    prefix = "" if name == "z" else f"{name}:"
    return [
        f"{prefix}{number} {word}" if word else f"direction {prefix}{number}"
        for number, word in enumerate(each.names.tolist())
    ]
