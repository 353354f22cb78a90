"""Decompositions where values coincide, least squares, traces of Hessians."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from tests.field.case import Case, Program, shape

thin = partial(jnp.linalg.svd, full_matrices=False)

# ---------------------------------------------------------------- derivatives at equal eigenvalues and singular values


def top_eigenvector(largest: float) -> Program:
    """One entry of an eigenvector whose eigenvalue is simple, while the others coincide."""

    def f(M):
        values, vectors = jnp.linalg.eigh((M + M.T) / 2)
        v = vectors[:, jnp.argmax(jnp.abs(values))]
        return v[1] * jnp.sign(v[0])

    return f, (jnp.diag(jnp.asarray([largest, 1.0, 1.0])),)


def swap(gap: float):
    return lambda M: jnp.zeros((3, 3)).at[0, 1].set(0.5 / gap).at[1, 0].set(0.5 / gap)


def rebuilt_norm() -> Program:
    """``svd`` is an argument, so that another one can take its place."""

    def f(A, svd=thin):
        u, s, vt = svd(A)
        return jnp.linalg.norm((u * s) @ vt)

    return f, (jnp.diag(jnp.asarray([1.0, 1, 2, 3])),)


WEIGHTS = jnp.arange(25.0).reshape(5, 5)


def best_rank_one() -> Program:
    def f(B, svd=thin):
        u, s, vt = svd(B)
        return jnp.sum((u[:, 0] * s[0])[:, None] * vt[0] * WEIGHTS)

    return f, (jnp.outer(jnp.arange(1.0, 6), jnp.ones(5)) / 5,)


def tangent_space(B):
    """The gradient of the best approximation of rank one, where it is exact: the projection on the tangent space."""
    u, _, vt = jnp.linalg.svd(B)
    P, Q = jnp.outer(u[:, 0], u[:, 0]), jnp.outer(vt[0], vt[0])
    return P @ WEIGHTS + WEIGHTS @ Q - P @ WEIGHTS @ Q


# ---------------------------------------------------------------- least squares, many at once


def by_lstsq(X, y):
    return jnp.mean((X @ jnp.linalg.lstsq(X, y)[0] - y) ** 2)


def by_normal_equations(X, y):
    return jnp.mean((X @ jnp.linalg.solve(X.T @ X, X.T @ y) - y) ** 2)


def one_fit() -> Program:
    X = jnp.asarray(np.random.default_rng(0).normal(size=(40, 2)), jnp.float32)
    return by_lstsq, (X, jnp.arange(40.0))


def many_fits() -> Program:
    return lambda X, y: jnp.sum(jax.vmap(by_lstsq)(X, y)), (shape(50, 5000, 2), shape(50, 5000))


# ---------------------------------------------------------------- Hessians that are only asked for their trace


def quartic(d: int = 4096) -> Program:
    """The Hessian is diag(12 w x^2) plus a matrix of ones."""
    w = jnp.linspace(0, 1, d)
    return lambda x: jnp.sum(w * x**4) + 0.5 * jnp.sum(x) ** 2, (jnp.ones(d),)


def gauss_newton(rank: int, d: int = 1000) -> Program:
    A = jnp.asarray(np.random.default_rng(rank).normal(size=(rank, d)), jnp.float32)
    return lambda x: 0.5 * jnp.sum((A @ x) ** 2), (jnp.ones(d),)


def gauss_newton_trace(rank: int, d: int = 1000) -> float:
    return float(np.sum(np.random.default_rng(rank).normal(size=(rank, d)) ** 2))


d = 4096
nan = "The derivative is finite, but a difference of equal values is divided by."
CASES = [
    *(
        Case(
            f"simple eigenvector, eigenvalue {largest:g} beside 1, 1",
            "jax #4646",
            nan,
            lambda largest=largest: top_eigenvector(largest),
            {"plain_is_nan": True, "gradient": swap(largest - 1)},
        )
        for largest in (4.0, -4.0)
    ),
    Case(
        "norm through equal singular values",
        "jax #8732",
        nan,
        rebuilt_norm,
        {"plain_is_nan": True, "gradient": lambda A: A / jnp.linalg.norm(A)},
    ),
    Case(
        "best rank one of a rank-one matrix",
        "jax #2311",
        nan,
        best_rank_one,
        {"plain_is_nan": True, "gradient": tangent_space},
    ),
    Case(
        "eigenvalues of a symmetric matrix",
        "jax #669",
        "Eigenvalues alone are safe.",
        lambda: (lambda M: jnp.sum(jnp.linalg.eigvalsh(M) ** 2), (jnp.diag(jnp.asarray([4.0, 1, 1])),)),
        {"mode": "reverse", "gradient": lambda M: 2 * M},
    ),
    Case(
        "least squares, 40 x 2",
        "jax #7404",
        "Least squares as a layer.",
        one_fit,
        {"mode": "reverse", "gradient": jax.grad(by_normal_equations)},
    ),
    Case(
        "least squares, 50 times 5000 x 2",
        "jax #7404",
        "Under vmap a full m x m factor ran out of memory.",
        many_fits,
        {"plain_mib": 4.78, "temp_at_most_mib": 10},
        lambda: lambda X, y: jnp.sum(jax.vmap(by_normal_equations)(X, y)),
    ),
    Case(
        "trace and diagonal of a Hessian, 4096",
        "jax #3801",
        "The trace was asked for, the Hessian was built.",
        quartic,
        {
            "mode": "reverse",
            "hessian_trace": float(jnp.sum(12 * jnp.linspace(0, 1, d)) + d),
            "hessian_diagonal": lambda x: 12 * jnp.linspace(0, 1, d) * x**2 + 1,
            "hessian_mib": 64,
        },
    ),
    Case(
        "trace of a matrix of ones",
        "matfree #182",
        "An estimator gave no number where the sketch is singular.",
        lambda: (lambda x: 0.5 * jnp.sum(x) ** 2, (jnp.ones(d),)),
        {"hessian_trace": float(d), "rank": 1},
    ),
    Case(
        "trace of a zero matrix",
        "matfree #182",
        "Nor where everything is 0.",
        lambda: (lambda x: 0 * jnp.sum(x**2), (jnp.ones(64),)),
        {"hessian_trace": 0.0, "rank": 0},
    ),
    *(
        Case(
            f"trace of a Gauss-Newton matrix, rank {rank}",
            "Laplace #281",
            "Few data points: the rank is low, and probes beyond it must not spoil the trace.",
            lambda rank=rank: gauss_newton(rank),
            {"hessian_trace": gauss_newton_trace(rank), "rank": rank},
        )
        for rank in (1, 10, 31, 47, 48, 100)
    ),
]
