"""The complex plane as SVG: eigenvalues, and the border within which a game is stable.

Colours are classes of the page's style, so that the drawing follows its theme.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SIZE = 320
_PAD = 36
_MOST_OF_REGION = 4.0
"""Half the width over the region's, at most: points farther out stand at the edge."""
_MARKS = ("circle", "square", "diamond")


@dataclass(frozen=True, kw_only=True)
class Points:
    """Eigenvalues of one kind."""

    label: str
    values: np.ndarray
    """[k] complex128, one of each conjugate pair or both."""


def plane(groups: Sequence[Points], border: np.ndarray, border_label: str) -> str:
    """Draws the points over the region.

    Args:
        groups: of points, each with a mark of its own.
        border: of the region, [k] complex; may be empty.
        border_label: what the region is.
    """
    values = np.concatenate([each.values for each in groups])
    values = np.concatenate([values, values.conj()])
    region = border if len(border) else np.array([0j])
    low, high = region.real.min(), region.real.max()
    size = max(high - low, 2 * np.abs(region.imag).max()) / 2
    reach = max(
        float(np.abs(values.real - (low + high) / 2).max(initial=0.0)),
        float(np.abs(values.imag).max(initial=0.0)),
    )
    half = 1.1 * max(size, min(reach, _MOST_OF_REGION * size) if size else reach, 1e-12)
    view = _View(centre=float((low + high) / 2), half=half)
    parts = [*_axes(view)]
    if len(border):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(view.at, border))
        parts.append(f'<polygon class="region" points="{path}"/>')
    for index, group in enumerate(groups):
        kind = _MARKS[index % len(_MARKS)]
        both = np.unique(np.concatenate([group.values, group.values.conj()]).round(14))
        parts += [_mark(view, value, kind, index) for value in both]
    legend = [
        _key(_shape(0, 0, _MARKS[index % len(_MARKS)], f"c{index % 6}"), group.label)
        for index, group in enumerate(groups)
    ]
    if len(border):
        legend.append(_key('<circle r="5" class="region"/>', border_label))
    named = html.escape(_summary(groups))
    return (
        f'<svg class="plane" role="img" aria-label="{named}" viewBox="0 0 {_SIZE} {_SIZE}">'
        f"{''.join(parts)}</svg><p class='legend'>{''.join(legend)}</p>"
    )


@dataclass(frozen=True)
class _View:
    centre: float
    half: float

    def at(self, value: complex) -> tuple[float, float]:
        """Where a number stands in the drawing."""
        scale = (_SIZE / 2 - _PAD) / self.half
        return (
            _SIZE / 2 + (value.real - self.centre) * scale,
            _SIZE / 2 - value.imag * scale,
        )

    def held(self, value: complex) -> tuple[complex, bool]:
        """The number, or the nearest at the edge; True where it lies beyond."""
        real = float(np.clip(value.real, self.centre - self.half, self.centre + self.half))
        imag = float(np.clip(value.imag, -self.half, self.half))
        return complex(real, imag), (real, imag) != (value.real, value.imag)


def _key(shape: str, label: str) -> str:
    drawing = f'<svg viewBox="-6 -6 12 12" aria-hidden="true">{shape}</svg>'
    return f'<span class="key">{drawing}{html.escape(label)}</span>'


def _axes(view: _View) -> list[str]:
    step = _round_step(view.half)
    parts = []
    first = int(np.ceil((view.centre - view.half) / step))
    last = int(np.floor((view.centre + view.half) / step))
    for number in range(first, last + 1):
        x, _ = view.at(complex(number * step, 0))
        parts.append(_line(x, _PAD, x, _SIZE - _PAD, "axis" if number == 0 else "grid"))
        parts.append(f'<text x="{x:.1f}" y="{_SIZE - _PAD + 14}">{_told(number * step)}</text>')
    for number in range(-int(view.half / step), int(view.half / step) + 1):
        _, y = view.at(complex(view.centre, number * step))
        parts.append(_line(_PAD, y, _SIZE - _PAD, y, "axis" if number == 0 else "grid"))
        parts.append(
            f'<text class="end" x="{_PAD - 7}" y="{y + 3.5:.1f}">{_told(number * step)}i</text>'
        )
    return parts


def _mark(view: _View, value: complex, kind: str, index: int) -> str:
    held, is_beyond = view.held(complex(value))
    x, y = view.at(held)
    told = f"{value.real:.5g} {value.imag:+.5g}i, size {abs(value):.5g}"
    if is_beyond:
        told += ", beyond the drawing"
    tone = f"c{index % 6}{' beyond' if is_beyond else ''}"
    return f"<g><title>{told}</title>{_shape(x, y, kind, tone)}</g>"


def _shape(x: float, y: float, kind: str, tone: str) -> str:
    if kind == "circle":
        return f'<circle class="mark {tone}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    turned = f' transform="rotate(45 {x:.1f} {y:.1f})"' if kind == "diamond" else ""
    return (
        f'<rect class="mark {tone}" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"'
        f"{turned}/>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _round_step(half: float) -> float:
    """A round distance of lines, of which about four fit into each half."""
    rough = half / 3
    power = 10 ** np.floor(np.log10(rough))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= rough))


def _told(value: float) -> str:
    return f"{value + 0.0:.3g}"


def _summary(groups: Sequence[Points]) -> str:
    words = []
    for each in groups:
        if len(each.values):
            lead = each.values[int(np.abs(each.values).argmax())]
            words.append(
                f"{each.label}: {len(each.values)} eigenvalues, the largest "
                f"{lead.real:.4g} {lead.imag:+.4g}i of size {abs(lead):.4g}"
            )
    return "; ".join(words)
