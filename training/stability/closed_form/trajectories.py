"""The paths of the simulated games as one SVG file: a panel for each method and order of moves."""

from collections.abc import Sequence
from html import escape

from training.stability.closed_form.simulation import Path

PANEL, MARGIN, TITLE = 150, 12, 30
_COLUMNS = 4
_EXTENT = 2.2  # of theta and psi in a panel; a path that leaves it is cut there
_COLOURS = {"converges": "#1a7f37", "circles": "#9a6700", "diverges": "#cf222e"}


def drawing(panels: Sequence[tuple[str, str, Path]]) -> str:
    """Draws panels of (title, verdict, path): theta to the right, psi upwards, the start a dot."""
    rows = -(-len(panels) // _COLUMNS)
    width = _COLUMNS * (PANEL + MARGIN) + MARGIN
    height = rows * (PANEL + TITLE + MARGIN) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for index, panel in enumerate(panels):
        left = MARGIN + index % _COLUMNS * (PANEL + MARGIN)
        top = MARGIN + index // _COLUMNS * (PANEL + TITLE + MARGIN)
        parts.append(_panel(left, top, *panel))
    return "\n".join([*parts, "</svg>\n"])


def _panel(left: float, top: float, title: str, verdict: str, path: Path) -> str:
    def at(place: tuple[float, float]) -> tuple[float, float]:
        x, y = (min(max(value, -_EXTENT), _EXTENT) / _EXTENT for value in place)
        return left + PANEL / 2 * (1 + x), top + TITLE + PANEL / 2 * (1 - y)

    colour = _COLOURS[verdict]
    points = " ".join("{:.1f},{:.1f}".format(*at(place)) for place in path)
    (x, y), (middle_x, middle_y) = at(path[0]), at((0.0, 0.0))
    return "\n".join(
        [
            f'<text x="{left}" y="{top + 11}" font-size="10" fill="#1f2328">{escape(title)}</text>',
            f'<text x="{left}" y="{top + 25}" fill="{colour}">{escape(verdict)}</text>',
            f'<rect x="{left}" y="{top + TITLE}" width="{PANEL}" height="{PANEL}" fill="none" '
            'stroke="#d0d7de"/>',
            f'<path d="M{middle_x - 4} {middle_y}h8M{middle_x} {middle_y - 4}v8" '
            'stroke="#6e7781"/>',
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1"/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="#1f2328"/>',
        ]
    )
