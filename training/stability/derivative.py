"""Is there a Jacobian: products with it against finite differences, before it is analysed.

A network of ReLUs has a border at each unit, where D's gradient jumps, and with it the field, as
penalties contain that gradient. A difference across a border says nothing of the place itself. The
shorter the step, the fewer borders it crosses; at a kink where the game stands, no step is short
enough. So a direction agrees where one of several steps does, and all directions must.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from training.errors import StabilityError
from training.stability.field import Linearization, VectorField

_STEPS = (1e-5, 1e-6, 1e-7)
"""Of the finite differences. Their error is of the order of a step's square, and of rounding
divided by the step."""
_SEEDS = (2, 3, 4)  # of the directions
_AGREEMENT = 1e-3
_ONE_CENTRED = frozenset({"wgan-gp", "dragan"})


def require_derivative(
    field: VectorField, at: Linearization, penalties: Iterable[str] = (), where: str = ""
) -> float:
    """Compares J u with central differences along fixed random u.

    Args:
        field: v.
        at: the field, linearised where it stands.
        penalties: names of the game's penalties, for the reason.
        where: the batch in words, for the message, where there are several.

    Returns:
        The relative difference at each direction's best step, the largest of them.

    Raises:
        StabilityError: the field isn't finite, or they differ at every step, as at a kink, where
            there is no Jacobian.
    """
    if not bool(torch.isfinite(at.value).all()):
        raise StabilityError(
            f"the field isn't finite at this checkpoint{where}: the game has diverged here; choose "
            "an earlier one with --checkpoint"
        )
    largest = 0.0
    for seed in _SEEDS:
        u = torch.from_numpy(np.random.default_rng(seed).standard_normal(field.size))
        found = _difference(field, at, u / u.norm())
        if not found <= _AGREEMENT:  # also where it is no number
            raise StabilityError(_reason(found, penalties, where))
        largest = max(largest, found)
    return largest


def _difference(field: VectorField, at: Linearization, u: Tensor) -> float:
    """The relative difference along u at the first step that agrees, else at the best one."""
    product, place = at.jvp(u), field.place
    least = float("inf")
    for step in _STEPS:
        central = (field(place + step * u) - field(place - step * u)) / (2 * step)
        size = max(central.norm().item(), product.norm().item(), 1e-300)
        least = min(least, (product - central).norm().item() / size)
        if least <= _AGREEMENT:
            break
    return least


def _reason(difference: float, penalties: Iterable[str], where: str) -> str:
    kinks = ", ".join(name for name in penalties if name in _ONE_CENTRED)
    cause = "at a border of a network's units, or its derivatives are wrong"
    if kinks:
        cause = f"as its one-centred penalties ({kinks}) have where D's gradient is 0"
    return (
        f"a product with the Jacobian differs from finite differences{where} by {difference:.1e} "
        f"at every step from {_STEPS[0]:g} to {_STEPS[-1]:g}: the game has a kink here, {cause}; "
        "there is no Jacobian to analyse; `exponent` measures such a game"
    )
