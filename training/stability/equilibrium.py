"""What kind of point a game stands at: each player's own Hessian, the Schur complement, tau*.

H_G and H_D are the Hessians of each player's loss by its own parameters, A = -J. Both positive: a
strict local Nash equilibrium. H_D and the Schur complement A_GG - A_GD A_DD^-1 A_DG positive: a
strict local minmax point, or differential Stackelberg equilibrium (Fiez and Ratliff 2020,
arXiv:2009.14820), which is stable once D is fast enough: tau* is the ratio of rates, D's to G's,
from which on it is.
A point may be stable and neither. This module knows no loss and no optimiser.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from training.stability.field import PLAYERS, Linearization
from training.stability.progress import Progress
from training.stability.spectrum import DENSE_SIZE, Extremes, Floats, extremes, matrix_of

_RATIOS = np.logspace(-4, 4, 161)
_CG_STEPS = 40
_CG_TOLERANCE = 1e-10


@dataclass(frozen=True, kw_only=True)
class Equilibrium:
    """The second-order picture of a point."""

    block_G: Extremes
    """The smallest and the largest eigenvalue of H_G."""
    block_D: Extremes
    """The same of H_D."""
    schur_G: Extremes | None
    """The same of the symmetric part of G's Schur complement; None where H_D isn't positive."""
    tau: float | None
    """D's rate over G's from which on the point is stable; None where it wasn't looked for, or
    where there is none."""
    unresolved: tuple[str, ...] = ()
    """What an iteration didn't find, in sentences."""

    def kind(self, *, is_stable: bool) -> str:
        """The point in words. is_stable: of the flow at equal rates."""
        least = [self.block_G[0], self.block_D[0]]
        known = [value for value in least if value is not None]
        if len(known) < len(least) and all(value > 0 for value in known):
            return "undecided, as an eigenvalue of a player's Hessian wasn't found"
        if all(value > 0 for value in known):
            return "strict local Nash equilibrium"
        if self.schur_G is not None and self.schur_G[0] is None:
            return "not Nash; minmax or not is undecided, as G's Schur complement wasn't found"
        if self.schur_G is not None and self.schur_G[0] is not None and self.schur_G[0] > 0:
            minmax = "strict local minmax point, not Nash: a saddle or maximum of G's own loss"
            return minmax if is_stable else f"{minmax}; unstable at equal rates"
        if is_stable:
            return "stable but not Nash: a player alone could still gain"
        return "unstable: neither Nash nor strict local minmax"


def equilibrium(at: Linearization, progress: Progress | None = None) -> Equilibrium:
    """Computes the blocks' extreme eigenvalues; Schur complement and tau* where they exist."""
    progress = progress or Progress(lambda line: None)
    blocks = {
        player: extremes(
            progress.counted(f"Hessian of {player}", partial(at.own_block, player)),
            at.sizes[player],
        )
        for player in PLAYERS
    }
    unresolved = [
        f"ARPACK didn't find the {end} eigenvalue of {player}'s own Hessian"
        for player, block in blocks.items()
        for end, value in zip(("smallest", "largest"), block, strict=True)
        if value is None
    ]
    schur, least_D = None, blocks["D"][0]
    if least_D is not None and least_D > 0:
        schur = _schur(at)
        if None in schur:
            unresolved.append(
                "G's Schur complement wasn't found: conjugate gradients on D's Hessian, or ARPACK "
                "on the complement, didn't converge"
            )
    return Equilibrium(
        block_G=blocks["G"],
        block_D=blocks["D"],
        schur_G=schur,
        tau=_tau(at),
        unresolved=tuple(unresolved),
    )


def _schur(at: Linearization) -> Extremes:
    """A_GG - A_GD A_DD^-1 A_DG; A_DD u = b by conjugate gradients, as H_D is positive.

    Nothing is known of the complement where these don't converge.
    """
    num_D = at.sizes["D"]
    num_steps = max(_CG_STEPS, min(num_D, 10 * _CG_STEPS))
    num_failed = 0

    def solve(b: Tensor) -> Tensor:
        nonlocal num_failed

        def product(vector: Floats) -> Floats:
            u = torch.from_numpy(np.ascontiguousarray(vector.reshape(-1)))
            found: Floats = at.own_block("D", u).numpy()
            return found

        operator = LinearOperator((num_D, num_D), matvec=product, dtype=np.float64)
        found, info = cg(operator, b.numpy(), rtol=_CG_TOLERANCE, maxiter=num_steps)
        num_failed += info != 0
        return torch.from_numpy(found)

    def complement(u: Tensor) -> Tensor:
        whole = torch.zeros(at.size, dtype=torch.float64)
        whole[at.rows("G")] = u
        answer = torch.zeros_like(whole)
        answer[at.rows("D")] = solve(at.jvp_of("D", whole))
        # D's answer to u is -A_DD^-1 A_DG u = H_D^-1 J_DG u: G sees its own rows of J there.
        return -at.jvp_of("G", whole + answer)

    found = extremes(complement, at.sizes["G"])
    return (None, None) if num_failed else found


def _tau(at: Linearization) -> float | None:
    """Finds the ratio by the dense Jacobian, in [1e-4, 1e4]; None for a large game."""
    if at.size > DENSE_SIZE:
        return None
    J = matrix_of(at.jvp, at.size)
    num_G = at.sizes["G"]

    def abscissa(ratio: float) -> float:
        scaled = J.copy()
        scaled[num_G:] *= ratio
        return float(np.linalg.eigvals(scaled).real.max())

    unstable = [ratio for ratio in _RATIOS if abscissa(ratio) >= 0]
    if not unstable:
        return 0.0
    low = unstable[-1]
    if low == _RATIOS[-1]:
        return None
    high = _RATIOS[np.searchsorted(_RATIOS, low) + 1]
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if abscissa(middle) >= 0 else (low, middle)
    return float(high)
