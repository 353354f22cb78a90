"""f(X) = tr(A X^-1 B): the gradient in closed form against automatic differentiation.

The lecture's exercise: the gradient is -X^-T A^T B^T X^-T. Automatic differentiation gets there through ``inv``, which
computes the inverse, or through ``solve``, which only factorises X; and the trace of a product of matrices can be had
for n^2 operations by an einsum instead of n^3. How far each is from the truth is held against cond(X): both apply the
inverse twice, so the error is expected to grow as cond(X) x eps (Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed. 2002, chapter 14).
"""

from collections.abc import Callable
from functools import partial
from math import inf

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from adcost.suite.vocabulary import Case, Method, Params, Program, Study, once_a_size
from benchmarks.workloads import matrices

AT = 64  # the order at which the condition is swept

Matrix = Float[Array, "n n"]
Scalar = Float[Array, ""]
Value = Callable[[Matrix, Matrix, Matrix], Scalar]


# Values: A, X and B to f(X).


def by_inverse(a: Matrix, x: Matrix, b: Matrix) -> Scalar:
    """As it is written, through the inverse."""
    return jnp.trace(a @ jnp.linalg.inv(x) @ b)


def by_solve(a: Matrix, x: Matrix, b: Matrix) -> Scalar:
    """Through a solve, without the inverse."""
    return jnp.trace(a @ jnp.linalg.solve(x, b))


def by_solve_einsum(a: Matrix, x: Matrix, b: Matrix) -> Scalar:
    """The same, and only the diagonal of the last product."""
    return jnp.einsum("ij,ji->", a, jnp.linalg.solve(x, b))


def by_inverse_einsum(a: Matrix, x: Matrix, b: Matrix) -> Scalar:
    """Through the inverse, and only the diagonal of the last product."""
    return jnp.einsum("ij,ji->", a @ jnp.linalg.inv(x), b)


# Methods: values to gradients with respect to X.


def closed_form(a: Matrix, x: Matrix, b: Matrix) -> Matrix:
    """-X^-T A^T B^T X^-T by one factorisation and two solves."""
    factors = jax.scipy.linalg.lu_factor(x)
    left = jax.scipy.linalg.lu_solve(factors, a.T, trans=1)  # X^-T A^T
    return -jax.scipy.linalg.lu_solve(factors, (left @ b.T).T).T


def by_ad(value: Value) -> Value:
    """Reverse mode through a value."""
    return jax.grad(value, argnums=1)


def _asked(case: Case) -> bool:
    """Orders are swept in float32 alone; conditions in both precisions."""
    return case.dtype == "float32" or case["n"] == AT


METHODS = {
    "closed_form": Method(closed_form, where=_asked),
    "ad_solve": Method(by_ad(by_solve), where=_asked),
    "ad_solve_einsum": Method(by_ad(by_solve_einsum), where=_asked),
    "ad_inverse": Method(by_ad(by_inverse), where=_asked),
    "ad_inverse_einsum": Method(by_ad(by_inverse_einsum), where=_asked),
    "value": Method(by_solve_einsum, differentiates=False, where=lambda case: _asked(case) and case["decades"] == 1),
}


def program(case: Case) -> Program:
    """The gradient of f with respect to X, or f itself."""
    return Program(METHODS[case.method].build, partial(inputs, case))


@once_a_size
def inputs(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal A and B, and X with singular values spread evenly on a log scale from 1 down to 1 / cond(X)."""
    n = case["n"]
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n, n))
    x = matrices.with_condition(n, case["decades"], rng)
    return a.astype(case.dtype), x.astype(case.dtype), b.astype(case.dtype)


@once_a_size
def reference(case: Case) -> np.ndarray:
    """The closed form from an inverse that is exact to more digits than the case has."""
    a, x, b = inputs(case)
    inverse = matrices.inverse(x)
    return (-inverse.T @ a.T @ b.T @ inverse.T).astype(float)


def rounding(case: Case) -> float:
    """cond(X) x eps: the relative error to expect."""
    return float(10.0 ** case["decades"] * np.finfo(case.dtype).eps)


def tolerance(case: Case) -> float:
    """A hundred times the error to expect; where nothing can be expected any more the error is the finding."""
    allowed = 100 * rounding(case)
    return allowed if allowed < 1 else inf


def sizes(orders: tuple[int, ...], decades: tuple[int, ...]) -> list[Params]:
    """Orders at cond(X) = 10, and conditions at one order."""
    return [*({"n": n, "decades": 1} for n in orders), *({"n": AT, "decades": k} for k in decades if k != 1)]


STUDY = Study(
    name="closed_forms",
    question="What does automatic differentiation cost against a gradient in closed form, and is it as exact?",
    methods=METHODS,
    sizes={
        "quick": sizes((16, 32, 48, 64, 96, 128, 192, 256), (0, 2, 4, 6)),
        "full": sizes((16, 32, 64, 96, 128, 192, 256, 384, 512, 1024), (0, 2, 3, 4, 5, 6, 8, 10, 12)),
    },
    program=program,
    reference=reference,
    tolerance=tolerance,
    baselines=("closed_form", "value"),
    together=("n", "decades"),
    compared={"n": ()},
    dtypes=("float32", "float64"),
)
