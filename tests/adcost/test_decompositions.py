"""Decompositions with finite derivatives, held in float64 against derivatives that need no decomposition."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from adcost import kept_solve, safe_eigh, safe_nuclear_norm, safe_svd

SHAPES = st.sampled_from([(1, 1), (1, 4), (4, 1), (3, 3), (5, 3), (3, 6), (8, 8)])
SCALES = st.sampled_from([1e-12, 1.0, 1e12])
DTYPES = st.sampled_from(["float32", "float64", "complex64", "complex128"])
DIGITS = {"float32": 5e-4, "complex64": 5e-4, "float64": 1e-8, "complex128": 1e-8}


def is_complex(dtype):
    return np.issubdtype(dtype, np.complexfloating)


def normal(rng, shape, dtype):
    x = rng.normal(size=shape)
    return x + 1j * rng.normal(size=shape) if is_complex(dtype) else x


def with_values(values, shape, dtype, seed=0):
    """A matrix with these singular values, in float64 or complex128."""
    rng, k = np.random.default_rng(seed), min(shape)
    u, v = (np.linalg.qr(normal(rng, (n, n), dtype))[0][:, :k] for n in shape)
    return (u * values) @ v.conj().T


def hermitian(values, dtype, seed=0):
    q = np.linalg.qr(normal(np.random.default_rng(seed), (len(values),) * 2, dtype))[0]
    return (q * values) @ q.conj().T


def apart(found, right):
    """The largest error, relative to the largest entry."""
    found, right = np.asarray(found), np.asarray(right)
    assert np.isfinite(found).all()
    return np.max(np.abs(found - right), initial=0) / max(np.max(np.abs(right), initial=0), 1e-300)


def polar(w):
    u, _, vt = safe_svd(w)
    return u @ vt


def polar_by_roots(w):
    """The same by w (w^H w)^-1/2, whose derivative comes from Newton's iteration for the root's inverse."""
    x = w / jnp.linalg.norm(w)
    for _ in range(60):
        x = 1.5 * x - 0.5 * x @ x.conj().T @ x
    return x


@given(SHAPES, SCALES, DTYPES)
def test_the_polar_factor_is_right_at_equal_values(shape, scale, dtype):
    c = normal(np.random.default_rng(1), shape, dtype)
    w = scale * with_values(np.ones(min(shape)), shape, dtype)
    found = jax.grad(lambda w: jnp.real(jnp.sum(jnp.asarray(c, dtype) * polar(w))))(jnp.asarray(w, dtype))
    right = jax.grad(lambda w: jnp.real(jnp.sum(c * polar_by_roots(w))))(jnp.asarray(w / scale)) / scale
    assert apart(found * scale, right * scale) < DIGITS[dtype]


@given(SHAPES, SCALES, DTYPES, st.integers(0, 3))
def test_where_values_are_apart_it_is_jax_in_float64(shape, scale, dtype, seed):
    k = min(shape)
    w = scale * with_values(np.linspace(1, 2, k)[::-1], shape, dtype, seed)
    cu, cs, cv = (normal(np.random.default_rng(seed), size, dtype) for size in ((shape[0], k), (k,), (k, shape[1])))

    def loss(svd):
        def of(w):
            u, s, vt = svd(w)
            outer = jnp.einsum("ik,kj->kij", u, vt)  # does not depend on the phases
            return jnp.sum(jnp.abs(cu.T @ outer[0] @ cv.T)) + jnp.sum(jnp.real(cs) * s) / scale

        return of

    found = jax.grad(loss(safe_svd))(jnp.asarray(w, dtype)) * scale
    wide = "complex128" if is_complex(dtype) else "float64"
    right = jax.grad(loss(lambda w: jnp.linalg.svd(w, full_matrices=False)))(jnp.asarray(w, wide)) * scale
    assert apart(found, right) < 20 * DIGITS[dtype]


@pytest.mark.parametrize("dtype", DIGITS)
@pytest.mark.parametrize("decades", [4, 6])
def test_graded_values_cost_no_digits_that_jax_keeps(dtype, decades):
    """Entries of the leading subspace's projector: its derivative has gaps from 1 to the least."""
    w = with_values(np.logspace(0, -decades, 5), (7, 5), dtype)
    c = normal(np.random.default_rng(2), (7, 7), dtype)

    def loss(svd):
        return lambda w: jnp.real(jnp.sum(c * (svd(w)[0][:, :3] @ svd(w)[0][:, :3].conj().T)))

    plain = lambda w: jnp.linalg.svd(w, full_matrices=False)  # noqa: E731
    wide = "complex128" if is_complex(dtype) else "float64"
    right = jax.grad(loss(plain))(jnp.asarray(w, wide))
    ours, jaxs = (apart(jax.grad(loss(svd))(jnp.asarray(w, dtype)), right) for svd in (safe_svd, plain))
    assert ours <= 3 * jaxs + 1e-12


@given(SHAPES, SCALES, DTYPES, st.integers(0, 8))
def test_derivatives_are_finite_at_every_rank(shape, scale, dtype, rank):
    """And the nuclear norm's is the subgradient of least norm."""
    values = (np.arange(min(shape)) < rank).astype(float)
    w = jnp.asarray(scale * with_values(values, shape, dtype), dtype)
    assert np.isfinite(jax.grad(lambda w: jnp.real(jnp.sum(polar(w) ** 2)))(w)).all()
    least = with_values(values, shape, dtype).conj()  # values 1 and 0
    assert apart(jax.grad(safe_nuclear_norm)(w), least) < DIGITS[dtype] or rank == 0
    u, s, vt = safe_svd(w)
    assert apart((u * s) @ vt, w) < DIGITS[dtype] or rank == 0


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (2, 5), (0, 3)])
def test_a_zero_matrix_has_no_nan(shape):
    w = jnp.zeros(shape)
    assert np.isfinite(jax.grad(lambda w: jnp.sum(polar(w)) + jnp.sum(safe_svd(w)[1]))(w)).all()
    np.testing.assert_array_equal(jax.grad(safe_nuclear_norm)(w), w)


def test_the_best_approximation_of_a_rank_is_right_where_zeros_meet():
    """Its derivative is the projection on the tangent space (jax #2311)."""
    weights, b = jnp.arange(25.0).reshape(5, 5), jnp.outer(jnp.arange(1.0, 6), jnp.ones(5)) / 5

    def best(b):
        u, s, vt = safe_svd(b)
        return jnp.sum(s[0] * jnp.outer(u[:, 0], vt[0]) * weights)

    u, vt = np.linalg.svd(b)[::2]
    p, q = np.outer(u[:, 0], u[:, 0]), np.outer(vt[0], vt[0])
    assert apart(jax.grad(best)(b), p @ weights + weights @ q - p @ weights @ q) < 1e-8


@given(st.integers(2, 7), st.integers(1, 6), SCALES, DTYPES, st.integers(0, 3))
def test_projectors_on_equal_eigenvalues_are_right(n, equal, scale, dtype, seed):
    """The projector on the eigenvalue 1, others -1 and 3: derivative by (a - wj) / (1 - wj), a polynomial of a."""
    equal = min(equal, n - 1)
    values = np.array([1.0] * equal + [-1.0, 3.0, 3.0, 3.0, 3.0, 3.0][: n - equal])
    c = normal(np.random.default_rng(seed), (n, n), dtype)
    c = c + c.conj().T
    a = scale * hermitian(values, dtype, seed)

    def projector(a):
        w, v = safe_eigh(a)
        chosen = jnp.abs(w / scale - 1) < 0.5
        return (v * chosen) @ v.conj().T

    def closed(da):
        """Derivative of the projector: sum of P da Q over the reduced resolvent."""
        p = hermitian((values == 1.0).astype(float), dtype, seed)
        s = hermitian(np.where(values == 1.0, 0, 1 / np.where(values == 1.0, 1, 1 - values)), dtype, seed)
        return p @ da @ s + s @ da @ p

    da = normal(np.random.default_rng(seed + 9), (n, n), dtype)
    da = da + da.conj().T
    found = jax.jvp(projector, (jnp.asarray(a, dtype),), (jnp.asarray(scale * da, dtype),))[1]
    assert apart(found, closed(da)) < 20 * DIGITS[dtype]
    gradient = jax.grad(lambda a: jnp.real(jnp.sum(jnp.asarray(c, dtype) * projector(a))))(jnp.asarray(a, dtype))
    along = np.real(np.sum(np.asarray(gradient) * scale * da))  # the gradient is that by x less i times that by y
    right = np.real(np.sum(c * closed(da)))
    assert along == pytest.approx(right, abs=20 * DIGITS[dtype] * np.linalg.norm(c) * np.linalg.norm(da))


def test_a_simple_eigenvector_beside_equal_eigenvalues():
    """jax #4646: the derivative is 1 / (2 gap) in two entries, and NaN by jnp.linalg.eigh."""

    def entry(eigh):
        def of(m):
            w, v = eigh((m + m.T) / 2)
            top = v[:, jnp.argmax(jnp.abs(w))]
            return top[1] * jnp.sign(top[0])

        return of

    for largest in (4.0, -4.0):
        m = jnp.diag(jnp.asarray([largest, 1.0, 1.0]))
        right = np.zeros((3, 3))
        right[0, 1] = right[1, 0] = 0.5 / (largest - 1)
        np.testing.assert_allclose(jax.grad(entry(safe_eigh))(m), right, atol=1e-12)
        assert np.isnan(jax.grad(entry(jnp.linalg.eigh))(m)).any()


@pytest.mark.parametrize("decomposition", [safe_svd, safe_eigh, safe_nuclear_norm])
def test_a_stack_is_refused_in_a_line(decomposition):
    with pytest.raises((ValueError, TypeCheckError)):  # shapes are checked where jaxtyping is at work
        decomposition(jnp.ones((2, 3, 3)))
    assert jax.vmap(decomposition)(jnp.ones((2, 3, 3))) is not None


def test_the_largest_numbers_have_no_nan():
    w = jnp.eye(3, dtype="float32") * 3e38
    assert np.isfinite(jax.jvp(polar, (w,), (w,))[1]).all()
    np.testing.assert_allclose(jax.jvp(lambda a: safe_eigh(a)[0], (w,), (w,))[1], 3e38, rtol=1e-6)


def test_second_derivatives_are_finite():
    w = jnp.diag(jnp.asarray([1.0, 1.0, 2.0]))
    assert np.isfinite(jax.hessian(lambda w: jnp.sum(polar(w) ** 3))(w)).all()


@pytest.mark.parametrize("columns", [None, 3])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_solve_that_keeps_its_factors_has_the_gradients_of_jax(columns, dtype):
    rng = np.random.default_rng(0)
    shape = (6,) if columns is None else (6, columns)
    a, b, g = (
        rng.normal(size=size) + (1j * rng.normal(size=size) if dtype == "complex128" else 0)
        for size in ((6, 6), shape, shape)
    )
    x, pull = jax.vjp(kept_solve, a, b)
    expected, by_jax = jax.vjp(jnp.linalg.solve, a, b)
    np.testing.assert_allclose(x, expected, rtol=1e-10)
    for found, right in zip(pull(g), by_jax(g), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-9)


def test_a_solve_that_keeps_its_factors_copies_none_of_them():
    a, b = jax.ShapeDtypeStruct((64, 64), jnp.float32), jax.ShapeDtypeStruct((64,), jnp.float32)
    kept = jax.eval_shape(lambda a, b: jax.vjp(kept_solve, a, b)[1], a, b)
    text = jax.jit(lambda pull, g: pull(g)).lower(kept, b).compile().as_text()
    assert not re.search(r"f32\[64,64\]\S* copy\(", text)
    assert "getrf" not in text


def test_a_stack_of_solves():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 4, 4)), rng.normal(size=(5, 4))

    def loss(solve):
        return jax.grad(lambda a: jnp.sum(jnp.sin(jax.vmap(solve)(a, b))))(a)

    np.testing.assert_allclose(loss(kept_solve), loss(jnp.linalg.solve), rtol=1e-9)


def test_what_does_not_fit_is_refused_in_a_line():
    with pytest.raises((ValueError, TypeError)):
        kept_solve(jnp.ones((3, 2)), jnp.ones(3))
