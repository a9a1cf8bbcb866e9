"""The largest stable step: how far both learning rates can be raised before a round expands.

The radius of the round's operator is followed over a factor on the rates, and the factor at which
it passes 1 is found by bisection. This module knows neither networks nor optimisers.
"""

from collections.abc import Callable

SLACK = 1e-9
"""Radii up to 1 + SLACK count as stable: eigenvalues on the circle are never exactly on it."""
LARGEST, SMALLEST = 2.0**20, 2.0**-20

Radius = Callable[[float], float]
"""A factor on the rates to the spectral radius of the round."""


def largest_stable_factor(
    radius: Radius, *, tolerance: float = 1e-9, slack: float = SLACK
) -> float | None:
    """Returns the first factor on both rates at which the round stops contracting.

    Where it expands at the present rates, the factor is below 1.

    Args:
        radius: of the round at a factor.
        tolerance: relative width at which the bisection ends.
        slack: by how much a radius may pass 1.

    Returns:
        The factor; None where no factor is stable, infinity where all are.
    """
    low = high = 1.0
    if radius(1.0) <= 1 + slack:
        while radius(high) <= 1 + slack:
            low, high = high, 2 * high
            if high > LARGEST:
                return float("inf")
    else:
        while radius(low) > 1 + slack:
            high, low = low, low / 2
            if low < SMALLEST:
                return None
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (middle, high) if radius(middle) <= 1 + slack else (low, middle)
    return low
