"""How an eigenvalue moves with a number that the matrix depends on (Lancaster 1964).

d lambda / d gamma = w^H (dJ/d gamma) u / (w^H u), u and w its right and left eigenvectors.
"""

from collections.abc import Callable

import numpy as np

from training.stability.spectrum import Complexes, Floats


def slopes(
    derivative: Floats | Callable[[Floats], Floats], right: Complexes, left: Complexes
) -> Complexes:
    """Returns d lambda / d gamma of each eigenpair, [k].

    Args:
        derivative: dJ / d gamma, [n, n], or the product with it.
        right: eigenvectors u of J, [n, k].
        left: eigenvectors w, w^H J = lambda w^H, [n, k] in the same order.
    """
    product = derivative if callable(derivative) else derivative.__matmul__
    moved = np.stack([product(u.real) + 1j * product(u.imag) for u in right.T], axis=1)
    found: Complexes = (left.conj() * moved).sum(0) / (left.conj() * right).sum(0)
    return found
