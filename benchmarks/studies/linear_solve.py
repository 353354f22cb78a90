"""Ax = b: what does the backward pass of a linear solve cost against the forward pass?

The lecture's Task 2. The derivatives are dL/db = A^-T dL/dx and dL/dA = -(dL/db) x^T, and the lecture says two things
of them: that the backward pass costs about as much as the forward pass, and that it costs less if the factorisation is
kept. Which of the two holds is a matter of the method. Factorising takes 2/3 n^3 operations (1/3 n^3 for Cholesky), a
solve with the factors 2 n^2 a right-hand side, the outer product n^2 (Golub and Van Loan, Matrix Computations, 4th ed.
2013, sections 3.2 and 4.2; the rule: Giles, "An extended collection of matrix derivative results", 2008, section 2.3).

Forward, backward and both are programs of their own: see ``benchmarks.workloads.passes``.
"""

from collections.abc import Iterator
from math import inf
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, lu_factor, lu_solve
from jaxtyping import Array, Float

from adcost.kept_solve import kept_solve
from adcost.suite.vocabulary import Case, Method, Params, Program, Study, once_a_size
from benchmarks.workloads import matrices, passes
from benchmarks.workloads.passes import by_jax, by_rule

AT = 64  # the order at which the condition is swept
ANCHORS = (256, 768, 1024, 1536, 2048)  # orders at which every part is asked for
BESIDE_AT = (256, 1536, 2048)  # orders at which methods stand beside the main ones
PUBLISHED_AT = 500  # the order of jax #1747
RIGHT_HAND_SIDES, BATCH = 64, 64
FLOAT32_DECADES = 4  # the one condition, besides 10, at which errors are taken in float32 too
SINGULAR = 400  # decades: 10^-400 is 0 in float64; the matrix has a column of zeros

Matrix = Float[Array, "n n"]
Right = Float[Array, "n *k"]


def outer(w: Right, x: Right) -> Matrix:
    """-w x^T, summed over right-hand sides."""
    return jnp.outer(-w, x) if w.ndim == 1 else -w @ x.T


# The lecture's rule: what is kept of the forward pass is the method's choice.


def keep_lu(a: Matrix, b: Right) -> tuple[Right, Any]:
    """The forward pass that keeps the LU factors."""
    factors = lu_factor(a)
    x = lu_solve(factors, b)
    return x, (factors, x)


def use_lu(residuals: Any, g: Right) -> tuple[Matrix, Right]:
    """Two triangular solves and an outer product."""
    factors, x = residuals
    w = lu_solve(factors, g, trans=1)
    return outer(w, x), w


def keep_matrix(a: Matrix, b: Right) -> tuple[Right, Any]:
    """The forward pass that keeps the matrix alone."""
    x = jnp.linalg.solve(a, b)
    return x, (a, x)


def factorise_again(residuals: Any, g: Right) -> tuple[Matrix, Right]:
    """A factorisation of A^T, and the rest."""
    a, x = residuals
    w = jnp.linalg.solve(a.T, g)
    return outer(w, x), w


def keep_inverse(a: Matrix, b: Right) -> tuple[Right, Any]:
    """The forward pass by the inverse, which is kept."""
    inverse = jnp.linalg.inv(a)
    x = inverse @ b
    return x, (inverse, x)


def use_inverse(residuals: Any, g: Right) -> tuple[Matrix, Right]:
    """A product with the inverse's transpose, and the outer product."""
    inverse, x = residuals
    w = inverse.T @ g
    return outer(w, x), w


def keep_cholesky(a: Matrix, b: Right) -> tuple[Right, Any]:
    """The forward pass for a symmetric positive definite matrix, whose Cholesky factor is kept."""
    factor = jnp.linalg.cholesky(a)
    x = cho_solve((factor, True), b)
    return x, (factor, x)


def use_cholesky(residuals: Any, g: Right) -> tuple[Matrix, Right]:
    """Two triangular solves with the factor, and the outer product."""
    factor, x = residuals
    w = cho_solve((factor, True), g)
    return outer(w, x), w


def factorise_cholesky_again(residuals: Any, g: Right) -> tuple[Matrix, Right]:
    """Another Cholesky factorisation, and the rest."""
    a, x = residuals
    w = keep_cholesky(a, g)[0]
    return outer(w, x), w


def keep_definite_matrix(a: Matrix, b: Right) -> tuple[Right, Any]:
    """The forward pass by Cholesky that keeps the matrix alone."""
    x = keep_cholesky(a, b)[0]
    return x, (a, x)


# What JAX derives by itself.


def by_inverse(a: Matrix, b: Right) -> Right:
    """inv(A) @ b."""
    return jnp.linalg.inv(a) @ b


def by_lu_factor(a: Matrix, b: Right) -> Right:
    """``lu_factor`` and ``lu_solve``: JAX differentiates the factorisation itself."""
    return lu_solve(lu_factor(a), b)


def by_cholesky(a: Matrix, b: Right) -> Right:
    """``cholesky`` and ``cho_solve``: JAX differentiates the factorisation itself."""
    return cho_solve((jnp.linalg.cholesky(a), True), b)


def by_lineax(a: Matrix, b: Right) -> Right:
    """Lineax's LU solver."""
    import lineax

    return lineax.linear_solve(lineax.MatrixLinearOperator(a), b, solver=lineax.LU()).value


def _asked(case: Case) -> bool:
    """Both passes in one program at the anchors, and where the condition is swept, which is done in float64 too."""
    if case.word("part") == "both" and case["n"] == AT:
        return case.dtype == "float64" or case["decades"] == FLOAT32_DECADES
    return case.dtype == "float32" and (case.word("part") != "both" or (_one(case) and case["n"] in ANCHORS))


def _one(case: Case) -> bool:
    return case["rhs"] == case["batch"] == 1


def _single(case: Case) -> bool:
    """Methods whose growth no claim is about: where all are held against each other."""
    return _asked(case) and _one(case) and case["n"] in (AT, 128, 512, PUBLISHED_AT, *ANCHORS)


def _beside(case: Case) -> bool:
    """Methods that stand beside the main ones."""
    return _asked(case) and _one(case) and case["n"] in BESIDE_AT


DEFINITE = ("definite",)  # symmetric positive definite matrices
METHODS = {
    "jax_solve": Method(by_jax(jnp.linalg.solve), label="jnp.linalg.solve, which keeps it too", where=_asked),
    "kept_lu": Method(by_rule(keep_lu, use_lu), label="the lecture's rule with the LU kept", where=_asked),
    "kept_columns": Method(
        by_jax(kept_solve),
        label="the lecture's rule with the LU kept in LAPACK's order",
        where=lambda case: _asked(case) and _one(case),
    ),
    "factorised_again": Method(
        by_rule(keep_matrix, factorise_again),
        label="the lecture's rule, factorising again",
        where=lambda case: _single(case) or (_asked(case) and not _one(case)),
    ),
    "kept_inverse": Method(
        by_rule(keep_inverse, use_inverse), label="the lecture's rule with the inverse kept", where=_single
    ),
    "jax_inverse": Method(by_jax(by_inverse), where=_single),
    "jax_lu_factor": Method(by_jax(by_lu_factor), where=_single),
    "lineax": Method(by_jax(by_lineax), where=_beside, extra=("peers", "lineax")),
    "kept_cholesky": Method(by_rule(keep_cholesky, use_cholesky), needs=DEFINITE, where=_beside),
    "cholesky_again": Method(by_rule(keep_definite_matrix, factorise_cholesky_again), needs=DEFINITE, where=_beside),
    "jax_cholesky": Method(by_jax(by_cholesky), needs=DEFINITE, form="symmetric", where=_beside),
}


def program(case: Case) -> Program:
    """The case's pass, with A and b as inputs."""
    a, b, g = inputs(case)
    make = METHODS[case.method].build
    return passes.program(passes.batched(make) if case["batch"] > 1 else make, case.word("part"), (a, b), g)


def definite(case: Case) -> bool:
    """Is the method one for symmetric positive definite matrices?"""
    return "definite" in METHODS[case.method].needs


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A of the case's condition, positive definite where the method wants it, b, and the cotangent of x."""
    general, symmetric, b, g = _all_inputs(passes.with_part(case, ""))
    return (symmetric if definite(case) else general), b, g


@once_a_size
def _all_inputs(case: Case) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    n, k, batch, decades = (case[name] for name in ("n", "rhs", "batch", "decades"))

    def matrix(definite: bool) -> np.ndarray:
        a = matrices.with_condition(n, 0 if decades == SINGULAR else decades, rng, definite)
        a[:, -1] *= decades != SINGULAR
        return a

    shape = (n,) if k == 1 else (n, k)
    systems = [(matrix(False), matrix(True), *rng.normal(size=(2, *shape))) for _ in range(batch)]
    stacked = (np.stack(arrays) if batch > 1 else arrays[0] for arrays in zip(*systems, strict=True))
    return tuple(array.astype(case.dtype) for array in stacked)


def reference(case: Case) -> Any:
    """x, or the lecture's two derivatives, with an inverse of more digits than the case has.

    JAX's own derivative with respect to a symmetric matrix is symmetric: half of it from each triangle. At a singular
    matrix there is no truth; the ones that stand for it let an infinity or a NaN of the result show.
    """
    of_definite = _of_definite if definite(case) else _of_general
    x, by_a, by_b = of_definite(passes.with_part(case, ""))
    if METHODS[case.method].form == "symmetric":
        by_a = (by_a + by_a.swapaxes(-1, -2)) / 2
    return x if case.word("part") == "forward" else (by_a, by_b)


@once_a_size
def _of_general(case: Case) -> tuple[np.ndarray, ...]:
    general, _, b, g = _all_inputs(case)
    return _solved(case, general, b, g)


@once_a_size
def _of_definite(case: Case) -> tuple[np.ndarray, ...]:
    _, symmetric, b, g = _all_inputs(case)
    return _solved(case, symmetric, b, g)


def _solved(case: Case, a: np.ndarray, b: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, ...]:
    """x and the cotangents of A and b."""
    if case["decades"] == SINGULAR:
        return np.ones(b.shape), np.ones(a.shape), np.ones(b.shape)
    if a.ndim == 3:
        found = [_solved(case, *system) for system in zip(a, b, g, strict=True)]
        return tuple(map(np.stack, zip(*found, strict=True)))
    inverse = matrices.inverse(a)
    x, w = inverse @ b, inverse.T @ g
    by_a = -np.outer(w, x) if w.ndim == 1 else -w @ x.T
    return x.astype(float), by_a.astype(float), w.astype(float)


def tolerance(case: Case) -> float:
    """A hundred times cond(A) x eps x sqrt(n); where no digit can be expected any more the error is the finding."""
    if case["decades"] == SINGULAR:
        return inf
    allowed = 100 * 10.0 ** case["decades"] * float(np.finfo(case.dtype).eps) * case["n"] ** 0.5
    return allowed if allowed < 1 else inf


def sizes(orders: tuple[int, ...], decades: tuple[int, ...]) -> list[Params]:
    """Orders at cond(A) = 10, many right-hand sides, many small systems, and conditions at one order."""

    def all_sizes() -> Iterator[Params]:
        for n, rhs, batch in [*((n, 1, 1) for n in orders), (256, RIGHT_HAND_SIDES, 1), (16, 1, BATCH)]:
            for part in passes.PARTS:
                yield {"part": part, "n": n, "rhs": rhs, "batch": batch, "decades": 1}
        for k in decades:
            yield {"part": "both", "n": AT, "rhs": 1, "batch": 1, "decades": k}

    return list(all_sizes())


STUDY = Study(
    name="linear_solve",
    question="What does the backward pass of a linear solve cost against the forward pass?",
    methods=METHODS,
    sizes={
        # Powers of two are special to caches; at least eight orders are none.
        "quick": sizes((96, 144, 192, 256, 288, 384, 448, 500, 512, 576), (0, 4, 8, 12, SINGULAR)),
        "full": sizes(
            (64, 96, 128, 144, 192, 256, 288, 384, 500, 512, 576, 768, 1000, 1024, 1536, 2048),
            (0, 2, 4, 6, 8, 10, 12, 14, SINGULAR),
        ),
    },
    program=program,
    reference=reference,
    tolerance=tolerance,
    baselines=("jax_solve", "factorised_again"),
    against=lambda case: passes.against_forward(case) if case["n"] != AT or case.word("part") != "both" else {},
    together=("part", "n", "rhs", "batch", "decades"),
    in_turn=("n", "rhs", "batch", "decades"),
    compared={"n": (1024,)},
    dtypes=("float32", "float64"),
)
