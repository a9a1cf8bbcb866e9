"""Regularisers: terms that are added to a player's loss, composable, each a small pure function.

A penalty sees one play (`training.play`): the images, what D said of them and, if it asks, the
gradients of D's logits by the images. Its weight and its interval are the recipe's. A new penalty
is one more entry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from training.play import Play, Side


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """One term of a player's loss."""

    player: Literal["D", "G"]
    """Whose loss it is added to."""
    value: Callable[[Play], Tensor]
    """The play to a scalar, before its weight."""
    paper: str
    """Where it is from."""
    gradients: frozenset[Side] = frozenset()
    """Images by which it needs the gradients of D's logits."""


def half_squared_norm(gradient: Tensor) -> Tensor:
    """1/2 E[|gradient|^2], the norm over all but the first dimension.

    gradient: [N, ...] float32. Returns a scalar.
    """
    return 0.5 * gradient.square().sum() / len(gradient)


def r1(play: Play) -> Tensor:
    """1/2 E[|dD/dx|^2] on real images; weight gamma (Mescheder et al. 2018, eq. 9)."""
    return half_squared_norm(play.gradient("real"))


def r2(play: Play) -> Tensor:
    """1/2 E[|dD/dx|^2] on generated images; weight gamma (Mescheder et al. 2018, eq. 10)."""
    return half_squared_norm(play.gradient("fake"))


PENALTIES: dict[str, Penalty] = {
    "r1": Penalty(
        player="D",
        value=r1,
        gradients=frozenset({"real"}),
        paper="Mescheder et al. 2018, arXiv:1801.04406, eq. 9",
    ),
    "r2": Penalty(
        player="D",
        value=r2,
        gradients=frozenset({"fake"}),
        paper="Mescheder et al. 2018, arXiv:1801.04406, eq. 10",
    ),
}
