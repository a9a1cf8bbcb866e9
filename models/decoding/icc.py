"""Makes ICC profiles (version 2, matrix and curve) for spaces that files name without a profile."""

import functools
import struct

import numpy as np
import numpy.typing as npt

Primaries = tuple[tuple[float, float], ...]
"""Chromaticities x, y of the white point, red, green and blue."""

_D65 = (0.3127, 0.3290)
SRGB: Primaries = (_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_RGB: Primaries = (_D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3: Primaries = (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_GAMMA = 563 / 256
P3_CODE = 12  # of H.273's colour primaries

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_CURVE_POINTS = 1024


@functools.lru_cache(maxsize=64)
def profile(primaries: Primaries, gamma: float | None) -> bytes:
    """Makes the profile of an RGB display.

    Args:
        primaries: of the space.
        gamma: exponent of its curve; None for sRGB's curve.

    Raises:
        numpy.linalg.LinAlgError: the primaries lie on a line.
    """
    columns = _adapted(primaries).T
    curve = _curve(gamma)
    tags = {
        b"wtpt": _xyz(_D50),
        **{name: _xyz(xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ "
    )
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *_fixed(_D50))
    return header.ljust(128, b"\0") + table + body


def _adapted(primaries: Primaries) -> npt.NDArray[np.float64]:
    """The matrix from linear RGB to XYZ, adapted from the white point to D50 (Bradford)."""
    white, *colours = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in primaries)
    matrix = np.stack(colours, 1)
    matrix = matrix * np.linalg.solve(matrix, white)
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted: npt.NDArray[np.float64] = np.linalg.inv(_BRADFORD) * scale @ _BRADFORD @ matrix
    return adapted


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return struct.pack(">4s4xIH2x", b"curv", 1, round(min(gamma, 255.0) * 256))
    x = np.linspace(0, 1, _CURVE_POINTS)
    y = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return (
        struct.pack(">4s4xI", b"curv", _CURVE_POINTS) + (y * 65535).round().astype(">u2").tobytes()
    )


def _xyz(value: npt.NDArray[np.float64]) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *_fixed(value))


def _fixed(value: npt.NDArray[np.float64]) -> list[int]:
    return [int(number) for number in (value * 65536).round()]
