"""Where the eigenvalues of the flow may lie so that a rule of steps contracts.

A round of the rule turns an eigenvalue x = h lambda of the flow, h the step, into the roots mu of a
polynomial with coefficients in x. The border of the region is where a root passes the unit circle:
x as a function of mu = e^(i phi). It exists where both players step by the same rule at the same
time. Players that take turns have no such region, as their matrix is no function of the flow's; its
own eigenvalues mu have the unit circle.
"""

from dataclasses import dataclass

import numpy as np

from training.stability.rounds.round_operator import RoundOperator
from training.stability.spectrum import Complexes

_NUM_POINTS = 240
_KNOWN = ("simultaneous", "alternating", "extragradient")


@dataclass(frozen=True, kw_only=True)
class Region:
    """A border in the plane of x = h lambda."""

    border: Complexes
    """Points on it, [k]."""
    rule: str
    """The rule in words."""
    is_exact: bool
    """True where the round is that rule; False where its players take turns, which it tells of
    only for small steps."""


def region_of(played: RoundOperator) -> Region | None:
    """Returns the region of the round's rule; None where the players' rules differ."""
    G, D = played.optimizers["G"], played.optimizers["D"]
    if (G.momentum, G.optimistic) != (D.momentum, D.optimistic) or played.lookahead_steps:
        return None
    if played.update not in _KNOWN:
        return None
    b, circle = G.momentum, np.exp(2j * np.pi * np.arange(_NUM_POINTS + 1) / _NUM_POINTS)
    if played.update == "extragradient":
        if b or G.optimistic:
            return None
        border, rule = _extragradient(circle), "extragradient"
    elif G.optimistic:
        if b:
            return None
        # mu^2 - (1 + 2 x) mu + x = 0
        border, rule = (circle**2 - circle) / (2 * circle - 1), "optimistic steps"
    else:
        # mu^2 - (1 + b + (1 - b) x) mu + b = 0
        border = (circle - 1) * (circle - b) / ((1 - b) * circle)
        rule = f"steps with momentum {b:g}" if b else "plain steps"
    alone = played.steps_D == played.steps_G == 1
    return Region(border=border, rule=rule, is_exact=played.update != "alternating" and alone)


def _extragradient(circle: Complexes) -> Complexes:
    """X with 1 + x + x^2 = mu: both branches, one after the other around the region."""
    root = np.sqrt(1 - 4 * (1 - circle) + 0j)
    # The branch of the root is followed, where numpy's own jumps.
    for index in range(1, len(root)):
        if abs(root[index] - root[index - 1]) > abs(root[index] + root[index - 1]):
            root[index] = -root[index]
    first, second = (-1 + root) / 2, (-1 - root) / 2
    found: Complexes = np.concatenate([first, second])
    return found
