"""An SVD and an eigendecomposition whose derivatives are finite everywhere: at equal values, near them, at zeros.

The derivatives of singular vectors hold 1 / (s_j^2 - s_i^2), infinite where two values are equal, for the vectors are
then not determined. The fraction is taken apart: s_j / (s_j^2 - s_i^2) is half of 1 / (s_j - s_i) plus 1 / (s_j + s_i),
so that nothing is squared, and the first part meets the Hermitian half of U^H dW V only, the second the other half.
Where two values are closer than eps^(2/3) of themselves what their gap divides is left out: a function that does not
depend on how vectors of equal values are chosen (the polar factor, a projector, the nuclear norm) then has its true
derivative, and no other is larger than rounding can vouch for.
"""

from typing import Any

import jax
import jax.numpy as jnp

from adcost._shapes import Array, Float, Inexact

Factors = tuple[Inexact[Array, "m k"], Float[Array, " k"], Inexact[Array, "k n"]]
Eigen = tuple[Float[Array, " n"], Inexact[Array, "n n"]]
ROUNDING = 16  # times eps and the largest value: what a gap between computed values may be off


def _require_a_matrix(w: Any, name: str) -> None:
    if jnp.ndim(w) != 2:
        raise ValueError(f"{name} takes one matrix, got an array {jnp.shape(w)}: jax.vmap takes a stack")


def _unless_zero(x: Array, smallest: Array) -> Array:
    """1 / x where x is larger than that, otherwise 0."""
    resolved = jnp.abs(x) > smallest
    return jnp.where(resolved, 1 / jnp.where(resolved, x, 1), 0)


def _over_gaps(values: Float[Array, " k"]) -> Float[Array, "k k"]:
    """1 / (values_j - values_i), 0 where the two may be equal: by eps^(2/3) of themselves, or by rounding."""
    eps, sizes = jnp.finfo(values.dtype).eps, jnp.abs(values)
    smallest = jnp.maximum(
        eps ** (2 / 3) * jnp.maximum(sizes[None, :], sizes[:, None]), ROUNDING * eps * jnp.max(sizes, initial=0)
    )
    return _unless_zero(values[None, :] - values[:, None], smallest)


@jax.custom_jvp
def safe_svd(w: Inexact[Array, "m n"]) -> Factors:
    """The thin SVD of a real or complex matrix, with derivatives that are finite everywhere, in both modes.

    Parameters
    ----------
    w
        The matrix.

    Returns
    -------
    u, s, vt
        With w = u diag(s) vt, s in falling order. Where singular values are well apart the derivatives are those of
        ``jnp.linalg.svd``. Where two are closer than eps^(2/3) of themselves (float32 2e-5, float64 4e-11), or 0, those
        of the vectors lack the part that their gap divides: right at equal values for whatever does not depend on the
        choice of the vectors. What weights such vectors by their values, as w put together again, loses the part that
        would split the values: use w itself there. So do second derivatives: there they hold at distinct values only.

    Raises
    ------
    ValueError
        If w is not one matrix; ``jax.vmap`` takes a stack.

    References
    ----------
    Townsend, "Differentiating the singular value decomposition" (2016); Wan and Zhang, "Automatic differentiation for
    complex valued SVD", arXiv:1909.02659 (2019).
    """
    _require_a_matrix(w, "safe_svd")
    u, s, vt = jnp.linalg.svd(w, full_matrices=False)
    return u, s, vt


@safe_svd.defjvp
def _(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Factors, Factors]:
    (w,), (dw,) = primals, tangents
    u, s, vt = safe_svd(w)
    v, largest = vt.conj().T, jnp.max(s, initial=0)
    rank = jnp.finfo(s.dtype).eps * max(w.shape) * largest
    inside = u.conj().T @ dw @ v
    half = inside / 2  # before anything is added: the largest numbers have no double
    hermitian, rest = half + half.conj().T, half - half.conj().T
    gaps, sums = _over_gaps(s), _unless_zero(s[None, :] / 2 + s[:, None] / 2, rank / 2) / 2
    by_gaps, by_sums = hermitian * gaps, rest * sums
    inverse = _unless_zero(s, rank)
    du, dv = u @ (by_gaps + by_sums), v @ (by_gaps - by_sums)
    if w.shape[0] > w.shape[1]:
        du += (dw @ v - u @ inside) * inverse
    if w.shape[1] > w.shape[0]:
        dv += (dw.conj().T @ u - v @ inside.conj().T) * inverse
    return (u, s, vt), (du, jnp.real(jnp.diagonal(inside)), dv.conj().T)


@jax.custom_jvp
def safe_eigh(a: Inexact[Array, "n n"]) -> Eigen:
    """Eigenvalues and eigenvectors of a Hermitian matrix, with derivatives that are finite everywhere, in both modes.

    Parameters
    ----------
    a
        The matrix; its Hermitian part is what counts.

    Returns
    -------
    values, vectors
        In rising order. Where eigenvalues are closer than eps^(2/3) of themselves, the derivatives of their vectors
        lack the part that their gap divides, as in ``safe_svd``.

    Raises
    ------
    ValueError
        If a is not one matrix; ``jax.vmap`` takes a stack.

    References
    ----------
    Magnus, "On differentiating eigenvalues and eigenvectors", Econometric Theory 1 (1985).
    """
    _require_a_matrix(a, "safe_eigh")
    values, vectors = jnp.linalg.eigh(a)
    return values, vectors


@safe_eigh.defjvp
def _(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Eigen, Eigen]:
    (a,), (da,) = primals, tangents
    values, vectors = safe_eigh(a)
    inside = vectors.conj().T @ (da / 2 + da.conj().T / 2) @ vectors
    return (values, vectors), (jnp.real(jnp.diagonal(inside)), vectors @ (inside * _over_gaps(values)))


def _norm_forward(w: Inexact[Array, "m n"]) -> tuple[Float[Array, ""], Any]:
    _require_a_matrix(w, "safe_nuclear_norm")
    u, s, vt = jnp.linalg.svd(w, full_matrices=False)
    kept = s > jnp.finfo(s.dtype).eps * max(w.shape) * jnp.max(s, initial=0)
    return jnp.sum(s), (u * kept, vt)


def _norm_backward(residuals: Any, cotangent: Float[Array, ""]) -> tuple[Inexact[Array, "m n"]]:
    u, vt = residuals
    return (cotangent * (u @ vt).conj(),)


@jax.custom_vjp
def safe_nuclear_norm(w: Inexact[Array, "m n"]) -> Float[Array, ""]:
    """The sum of the singular values of a real or complex matrix; reverse mode only.

    Parameters
    ----------
    w
        The matrix.

    Returns
    -------
    value
        The nuclear norm. Where singular values are 0 its gradient is the subgradient of least norm.

    Raises
    ------
    ValueError
        If w is not one matrix; ``jax.vmap`` takes a stack.

    References
    ----------
    Watson, "Characterization of the subdifferential of some matrix norms", Linear Algebra Appl. 170 (1992).
    """
    return _norm_forward(w)[0]


safe_nuclear_norm.defvjp(_norm_forward, _norm_backward)
