"""Eigenvalues of a linear map that is known by its products: dense where it is small, else Krylov.

One Krylov space (Arnoldi 1951) from a fixed vector gives the eigenvalues of largest modulus (LM)
and of largest real part (LR) at once. Where the leading one's residual is large, ARPACK's restarts
(Lehoucq et al. 1998) go on from it. Every pair comes with its residual |A u - mu u| / |mu|. The
largest imaginary part (LI) is not asked for, as ARPACK's answers to it didn't agree with dense
ones. This module knows no game.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, eigsh
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""A vector [n] float64 to the product with it, [n]."""

Complexes = npt.NDArray[np.complex128]
Floats = npt.NDArray[np.float64]
Extremes = tuple[float | None, float | None]
"""The smallest and the largest eigenvalue; None for one that wasn't found."""

DENSE_SIZE = 64
"""Up to this size the whole matrix is computed."""
NUM_VECTORS = 60
"""Of the Krylov space."""
REFINED = 1e-2
"""Residual of the leading eigenvalue above which ARPACK goes on."""
_REFINE = {"tol": 1e-3, "ncv": 40, "maxiter": 4}
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Some eigenvalues of a map, the leading one first."""

    values: Complexes
    """[k]."""
    vectors: Complexes
    """[n, k], right eigenvectors of norm 1."""
    residuals: Floats
    """[k]: |A u - mu u| / |mu|."""
    num_products: int
    """Products with the map that were needed."""
    is_whole: bool
    """True where these are all of its eigenvalues."""

    @property
    def radius(self) -> float:
        """The largest modulus among them."""
        return float(np.abs(self.values).max())

    @property
    def abscissa(self) -> float:
        """The largest real part among them."""
        return float(self.values.real.max())


def without_vectors(found: Spectrum) -> Spectrum:
    """The same without its vectors, which take memory."""
    return replace(found, vectors=np.zeros((0, len(found.values)), dtype=np.complex128))


def matrix_of(product: Product, size: int) -> Floats:
    """Returns the whole matrix [size, size], a product for each column."""
    columns = [product(column) for column in torch.eye(size, dtype=torch.float64)]
    return torch.stack(columns, dim=1).numpy()


def spectrum(
    product: Product,
    size: int,
    which: str,
    *,
    num: int = 6,
    start: Floats | None = None,
    num_vectors: int = NUM_VECTORS,
    refine: bool = True,
) -> Spectrum:
    """Finds leading eigenvalues of one kind; all of a map that is small (`spectra`)."""
    (found,) = spectra(
        product, size, (which,), num=num, start=start, num_vectors=num_vectors, refine=refine
    )
    return found


def spectra(
    product: Product,
    size: int,
    kinds: Sequence[str] = ("LM", "LR"),
    *,
    num: int = 6,
    start: Floats | None = None,
    num_vectors: int = NUM_VECTORS,
    refine: bool = True,
) -> tuple[Spectrum, ...]:
    """Finds leading eigenvalues of several kinds in one Krylov space; all of a map that is small.

    Args:
        product: the map.
        size: of its vectors, n.
        kinds: LM, LR.
        num: eigenvalues of each kind.
        start: vector [n] to start from; a fixed random one if None.
        num_vectors: dimension of the Krylov space.
        refine: let ARPACK go on where the leading residual is above REFINED.
    """
    if size <= DENSE_SIZE:
        return tuple(dense_spectrum(product, size, which) for which in kinds)
    counted = _Counted(product, size)
    basis, hessenberg = _arnoldi(
        counted, start_vector(size) if start is None else start, num_vectors
    )
    found = [_ritz(basis, hessenberg, which, num, counted.num_products) for which in kinds]
    del basis  # ARPACK needs as much again
    if refine:
        pairs = zip(kinds, found, strict=True)
        found = [_better(product, size, which, ritz) for which, ritz in pairs]
    return tuple(found)


def _better(product: Product, size: int, which: str, ritz: Spectrum) -> Spectrum:
    return _refined(product, size, which, ritz) if ritz.residuals[0] > REFINED else ritz


def _arnoldi(product: Callable[[Floats], Floats], start: Floats, num: int) -> tuple[Floats, Floats]:
    """Returns an orthonormal basis [num + 1, n] and A's projection on it, [num + 1, num]."""
    num = min(num, len(start) - 1)
    basis, hessenberg = np.zeros((num + 1, len(start))), np.zeros((num + 1, num))
    basis[0] = start / np.linalg.norm(start)
    for j in range(num):
        rest = product(basis[j]).copy()
        before = np.linalg.norm(rest)
        # A second pass where much cancelled (Daniel et al. 1976): rounding would tilt the basis.
        for _ in range(2):
            shares = basis[: j + 1] @ rest
            rest -= shares @ basis[: j + 1]
            hessenberg[: j + 1, j] += shares
            if np.linalg.norm(rest) > 0.7 * before:
                break
        hessenberg[j + 1, j] = np.linalg.norm(rest)
        if hessenberg[j + 1, j] <= _TINY * max(float(before), _TINY):  # the space is invariant
            return basis[: j + 2], hessenberg[: j + 2, : j + 1]
        basis[j + 1] = rest / hessenberg[j + 1, j]
    return basis, hessenberg


def _ritz(basis: Floats, hessenberg: Floats, which: str, num: int, num_products: int) -> Spectrum:
    """The eigenpairs of the projection; the residual's size follows from the last coefficient."""
    values, inner = np.linalg.eig(hessenberg[:-1])
    order = _order(values, which)[:num]
    chosen = inner[:, order]
    errors = abs(hessenberg[-1, -1]) * np.abs(chosen[-1])
    # Row by row, or the whole basis would be copied as complex numbers, and the sums once more.
    vectors = np.empty((len(order), basis.shape[1]), dtype=np.complex128)
    for vector, shares in zip(vectors, chosen.T, strict=True):
        vector.real, vector.imag = shares.real @ basis[:-1], shares.imag @ basis[:-1]
    return Spectrum(
        values=values[order].astype(np.complex128),
        vectors=vectors.T,
        residuals=errors / _scale(values[order]),
        num_products=num_products,
        is_whole=False,
    )


def _refined(product: Product, size: int, which: str, ritz: Spectrum) -> Spectrum:
    """Lets ARPACK go on from the leading vector; the better of both."""
    leading = ritz.vectors[:, 0]
    start = leading.real + leading.imag
    counted = _Counted(product, size)
    try:
        options = {"k": 2, "which": which, "v0": start, **_REFINE}
        values, vectors = eigs(counted.operator, **options)
    except ArpackNoConvergence as error:
        values, vectors = error.eigenvalues, error.eigenvectors
    num_products = ritz.num_products + counted.num_products
    if not len(values):
        return replace(ritz, num_products=num_products)
    images = np.stack([_complex_product(counted, vector) for vector in vectors.T], axis=1)
    found = _sorted(images, values, vectors, which, num_products=num_products, is_whole=False)
    # Those that ARPACK didn't look for stay behind those that it found.
    apart = np.abs(np.subtract.outer(ritz.values, found.values)).min(1)
    kept = apart > ritz.residuals * np.abs(ritz.values)
    joined = np.concatenate([found.values, ritz.values[kept]])
    order = _order(joined, which)[: len(ritz.values)]
    return Spectrum(
        values=joined[order],
        vectors=np.concatenate([found.vectors, ritz.vectors[:, kept]], axis=1)[:, order],
        residuals=np.concatenate([found.residuals, ritz.residuals[kept]])[order],
        num_products=num_products,
        is_whole=False,
    )


def dense_spectrum(product: Product, size: int, which: str) -> Spectrum:
    """Finds all eigenvalues by the dense matrix, in the order that `which` says."""
    matrix = matrix_of(product, size)
    values, vectors = np.linalg.eig(matrix)
    return _sorted(matrix @ vectors, values, vectors, which, num_products=size, is_whole=True)


def extremes(product: Product, size: int) -> Extremes:
    """Returns the smallest and the largest eigenvalue of a symmetric map.

    None stands for one that ARPACK didn't find.
    """
    if size <= DENSE_SIZE:
        matrix = matrix_of(product, size)
        values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
        return float(values[0]), float(values[-1])
    counted = _Counted(product, size)
    options = {"k": 1, "v0": start_vector(size), "ncv": min(size, 20), "tol": 1e-4}
    found: list[float | None] = []
    for which in ("SA", "LA"):
        try:
            values = eigsh(
                counted.operator, which=which, return_eigenvectors=False, maxiter=10, **options
            )
        except ArpackNoConvergence as error:
            values = error.eigenvalues
        found.append(float(values[0]) if len(values) else None)
    return found[0], found[1]


def start_vector(size: int) -> Floats:
    """Returns the fixed vector [size] that every search starts from."""
    return np.random.default_rng(0).standard_normal(size)


def rotation_ratio(jvp: Product, vjp: Product, size: int, *, num_probes: int = 8) -> float:
    """|A|_F / |S|_F, J = S + A its symmetric and antisymmetric part (Balduzzi et al. 2018, sec. 2).

    0 is a potential game, infinity a Hamiltonian one, which only turns. Norms by Hutchinson's
    estimator over random signs: E|A u|^2 = |A|_F^2. Exact for small games.
    """
    if size <= DENSE_SIZE:
        J = matrix_of(jvp, size)
        symmetric, antisymmetric = np.linalg.norm(J + J.T), np.linalg.norm(J - J.T)
    else:
        rng, squares = np.random.default_rng(1), np.zeros(2)
        for _ in range(num_probes):
            u = torch.from_numpy(rng.choice([-1.0, 1.0], size))
            forward, back = jvp(u), vjp(u)
            squares += [(forward + back).square().sum(), (forward - back).square().sum()]
        symmetric, antisymmetric = np.sqrt(squares)
    return float(antisymmetric / symmetric) if symmetric > _TINY else float("inf")


def numerical_abscissa(jvp: Product, vjp: Product, size: int) -> float | None:
    """The largest eigenvalue of (J + J^T) / 2: how fast a deviation can grow at first.

    None where ARPACK didn't find it.

    Where J is not normal it is larger than the spectral abscissa, and a stable game can still send
    deviations far before they decay (Trefethen and Embree 2005, ch. 17).
    """
    return extremes(lambda u: (jvp(u) + vjp(u)) / 2, size)[1]


class _Counted:
    """A product as scipy takes it, and how often it was asked for.

    Raises FloatingPointError where a product isn't finite: no eigenvalue would be either.
    """

    def __init__(self, product: Product, size: int) -> None:
        self._product = product
        self.num_products = 0
        self.operator = LinearOperator((size, size), matvec=self, dtype=np.float64)

    def __call__(self, vector: Floats) -> Floats:
        self.num_products += 1
        vector = np.ascontiguousarray(vector, dtype=np.float64).reshape(-1)
        found: Floats = self._product(torch.from_numpy(vector)).numpy()
        if not np.isfinite(found).all():
            raise FloatingPointError("a product with the map is not finite")
        return found


def _complex_product(product: Callable[[Floats], Floats], vector: Complexes) -> Complexes:
    real = product(vector.real)
    if not np.any(vector.imag):
        return real.astype(np.complex128)
    return real + 1j * product(vector.imag)


def _sorted(
    images: Complexes,
    values: Complexes,
    vectors: Complexes,
    which: str,
    *,
    num_products: int,
    is_whole: bool,
) -> Spectrum:
    errors = np.linalg.norm(images - vectors * values, axis=0)
    order = _order(values, which)
    return Spectrum(
        values=values[order].astype(np.complex128),
        vectors=vectors[:, order].astype(np.complex128),
        residuals=errors[order] / _scale(values[order]),
        num_products=num_products,
        is_whole=is_whole,
    )


def _order(values: Complexes, which: str) -> npt.NDArray[np.intp]:
    """Indices, the leading eigenvalue first; of a pair the one above the axis."""
    size = np.abs(values) if which == "LM" else values.real
    return np.lexsort((-values.imag, -np.round(size, 12)))


def _scale(values: Complexes) -> Floats:
    modulus = np.abs(values)
    return np.where(modulus > _TINY, modulus, 1.0)
