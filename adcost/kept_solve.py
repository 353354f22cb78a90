"""A linear solve whose gradient takes the factorisation that the solve has made, without a copy."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import lu_factor, lu_solve

from adcost._shapes import Array, Inexact

Matrix = Inexact[Array, "n n"]
Right = Inexact[Array, "n *k"]


@jax.custom_vjp
def kept_solve(a: Matrix, b: Right) -> Right:
    """The solution x of a x = b for a general matrix; reverse mode only.

    The backward pass solves twice with the triangular factors, n^2 operations a right-hand side each, and makes one
    outer product: dL/db = a^-T dL/dx and dL/da = -dL/db x^T. The factors are kept as LAPACK makes them, column by
    column: in JAX's own order, row by row, each backward pass would copy them first.

    Parameters
    ----------
    a
        A square matrix.
    b
        One right-hand side or several, a column each.

    Returns
    -------
    x
        Of the shape of b. Where a is singular x is not finite, and nothing is raised.

    Raises
    ------
    ValueError
        If a is not square or b does not fit; ``jax.vmap`` takes a stack.

    References
    ----------
    Giles, "An extended collection of matrix derivative results for forward and reverse mode automatic
    differentiation" (2008), section 2.3; jax #1747 asks for the factors to be kept.
    """
    return _forward(a, b)[0]


def _forward(a: Matrix, b: Right) -> tuple[Right, Any]:
    if a.ndim != 2 or a.shape[0] != a.shape[1] or b.ndim not in (1, 2) or b.shape[0] != a.shape[0]:
        raise ValueError(f"a must be square, and b a column or columns of its length: not {a.shape} and {b.shape}")
    factors, pivots = lu_factor(a)
    x = lu_solve((factors, pivots), b)
    return x, (factors.T, pivots, x)


def _backward(residuals: Any, cotangent: Right) -> tuple[Matrix, Right]:
    transposed, pivots, x = residuals
    w = lu_solve((transposed.T, pivots), cotangent, trans=1)
    return -(jnp.outer(w, x) if w.ndim == 1 else w @ x.T), w


kept_solve.defvjp(_forward, _backward)
