"""A thin SVD whose derivative is finite everywhere: at equal singular values, near them, and where they are 0.

The derivatives of U and V hold 1 / (s_j^2 - s_i^2): they are infinite where two singular values are equal, for the
singular vectors are then not determined. Here x / (x^2 + e^2) stands for 1 / x (Liao, Liu, Wang and Xiang,
"Differentiable programming tensor networks", Phys. Rev. X 9 (2019), section III.A), and likewise for 1 / s. Where gaps
are wide it changes nothing that rounding does not; elsewhere the gradient is bounded, and is not the true one.
"""

from typing import Any

import jax
import jax.numpy as jnp

from adcost._shapes import Array, Float

Factors = tuple[Float[Array, "m k"], Float[Array, " k"], Float[Array, "k n"]]


def _forward(w: Float[Array, "m n"]) -> tuple[Factors, Factors]:
    u, s, vt = jnp.linalg.svd(w, full_matrices=False)
    return (u, s, vt), (u, s, vt)


def _backward(residuals: Factors, cotangents: Factors) -> tuple[Float[Array, "m n"]]:
    """Townsend, "Differentiating the singular value decomposition" (2016), section 1."""
    u, s, vt = residuals
    by_u, by_s, by_vt = cotangents
    v, by_v = vt.T, by_vt.T
    resolved = jnp.finfo(s.dtype).eps * s.size * s[0] ** 2  # of squares of singular values
    gaps = _inverse(s[None, :] ** 2 - s[:, None] ** 2, resolved)
    inverse = s * _inverse(s**2, resolved)  # 1 / s
    left, right = u.T @ by_u, v.T @ by_v
    middle = jnp.diag(by_s) + (gaps * (left - left.T)) * s[None, :] + s[:, None] * (gaps * (right - right.T))
    by_w = u @ middle @ vt
    by_w += (by_u - u @ left) * inverse @ vt
    by_w += (u * inverse) @ (by_v - v @ right).T
    return (by_w,)


def _inverse(x: Array, e: Array) -> Array:
    return x / (x * x + e * e)


@jax.custom_vjp
def safe_svd(w: Float[Array, "m n"]) -> Factors:
    """The thin SVD of a real matrix, with a gradient that is finite everywhere; reverse mode only.

    Parameters
    ----------
    w
        The matrix.

    Returns
    -------
    u, s, vt
        With w = u diag(s) vt, s in falling order. Where singular values are well apart the gradients are those of
        ``jnp.linalg.svd``; near equal values they are bounded, and are not the true ones, which are infinite.

    References
    ----------
    Liao, Liu, Wang and Xiang, "Differentiable programming tensor networks", Phys. Rev. X 9 (2019), section III.A.
    """
    return _forward(w)[0]


safe_svd.defvjp(_forward, _backward)


def _norm_forward(w: Float[Array, "m n"]) -> tuple[Float[Array, ""], Any]:
    u, s, vt = jnp.linalg.svd(w, full_matrices=False)
    kept = s > jnp.finfo(s.dtype).eps * max(w.shape) * s[0]
    return jnp.sum(s), (u * kept, vt)


def _norm_backward(residuals: Any, cotangent: Float[Array, ""]) -> tuple[Float[Array, "m n"]]:
    u, vt = residuals
    return (cotangent * (u @ vt),)


@jax.custom_vjp
def safe_nuclear_norm(w: Float[Array, "m n"]) -> Float[Array, ""]:
    """The sum of the singular values of a real matrix; reverse mode only.

    Parameters
    ----------
    w
        The matrix.

    Returns
    -------
    value
        The nuclear norm. Where singular values are 0 its gradient is the subgradient of least norm.

    References
    ----------
    Watson, "Characterization of the subdifferential of some matrix norms", Linear Algebra Appl. 170 (1992).
    """
    return _norm_forward(w)[0]


safe_nuclear_norm.defvjp(_norm_forward, _norm_backward)
