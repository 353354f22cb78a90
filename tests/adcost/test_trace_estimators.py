"""Estimators where they used to fail: low rank, zero, more products than dimensions, few probes, complex matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcost.trace_estimators import hutchinson, hutchpp, quadratic_forms, xtrace

DTYPES = st.sampled_from(["float32", "float64", "complex64", "complex128"])


def hermitian(d, rank, dtype, scale=1.0):
    rng = np.random.default_rng(d + rank)
    x = rng.normal(size=(d, rank)) + (1j * rng.normal(size=(d, rank)) if "complex" in dtype else 0)
    return scale * x @ np.diag(rng.choice([-1.0, 2.0], size=rank)) @ x.conj().T


def random_probes(d, k, dtype):
    rng = np.random.default_rng(k)
    x = rng.normal(size=(d, k)) + (1j * rng.normal(size=(d, k)) if "complex" in dtype else 0)
    return jnp.asarray(x / np.sqrt(2) if "complex" in dtype else x, dtype)


def estimate(estimator, matrix, probes):
    matrix = jnp.asarray(matrix, probes.dtype)
    return complex(jax.jit(lambda v: estimator(lambda columns: matrix @ columns, v))(probes))


@given(st.integers(1, 12), st.integers(0, 4), st.integers(12, 60), DTYPES, st.sampled_from([1e-12, 1.0, 1e12]))
def test_where_the_probes_span_the_range_the_trace_is_exact(d, rank, k, dtype, scale):
    """Of low rank, of rank 0, and with more products than dimensions: then by every sketch."""
    matrix = hermitian(d, min(rank, d), dtype, scale)
    probes = random_probes(d, k, dtype)
    size = np.sum(np.abs(np.linalg.eigvalsh(matrix)))
    tolerance = (2e-4 if dtype in ("float32", "complex64") else 1e-9) * size
    for estimator, sketch in ((xtrace, k // 2), (hutchpp, k // 3)):
        if min(rank, d) < sketch or d < sketch:
            assert estimate(estimator, matrix, probes) == pytest.approx(np.trace(matrix), abs=tolerance)


@given(st.integers(2, 10), DTYPES)
def test_a_matrix_of_full_rank_has_the_mean_of_sketches_that_leave_one_out(d, dtype):
    matrix, half = hermitian(d, d, dtype), d // 2 + 1
    probes = random_probes(d, 2 * half, dtype)
    right = []
    for i in range(half):
        q = np.linalg.qr(matrix @ np.delete(np.asarray(probes, complex)[:, :half], i, axis=1))[0]
        rest = np.asarray(probes, complex)[:, i]
        rest = rest - q @ (q.conj().T @ rest)
        right.append(np.trace(q.conj().T @ matrix @ q) + rest.conj() @ matrix @ rest)
    digits = 2e-2 if dtype in ("float32", "complex64") else 1e-6
    assert estimate(xtrace, matrix, probes) == pytest.approx(np.mean(right), abs=digits * np.sum(np.abs(matrix)))


def test_estimates_of_a_complex_matrix_have_its_trace_as_mean():
    matrix = hermitian(6, 6, "complex128")
    forms = quadratic_forms(lambda columns: matrix @ columns, random_probes(6, 200_000, "complex128"))
    assert float(jnp.max(jnp.abs(forms.imag))) < 1e-9 * float(jnp.max(jnp.abs(forms)))
    error = float(jnp.std(forms.real)) / np.sqrt(200_000)
    assert float(jnp.mean(forms.real)) == pytest.approx(np.trace(matrix).real, abs=5 * error)


@pytest.mark.parametrize(("estimator", "least"), [(hutchinson, 1), (xtrace, 2), (hutchpp, 3)])
def test_too_few_probes_are_refused_in_a_line(estimator, least):
    identity = np.eye(5)
    with pytest.raises(ValueError, match=f"{estimator.__name__} needs at least {least} probes, got {least - 1}"):
        estimator(lambda columns: identity @ columns, np.ones((5, least - 1)))
    assert np.isfinite(estimate(estimator, identity, random_probes(5, least, "float64")))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rank", "half"), [(1, 2), (3, 4), (9, 10), (9, 11)])
def test_a_probe_that_others_hardly_replace_is_replaced(rank, half, dtype):
    """The null space may reach a probe with a small weight: the range without it is the same, and the trace exact."""
    matrix = jnp.diag(jnp.where(jnp.arange(64) < rank, 1.0, 0.0)).astype(dtype)
    probes = np.random.default_rng(0).normal(size=(500, 64, 2 * half)).astype(dtype)
    found = jax.jit(jax.vmap(lambda v: xtrace(lambda columns: matrix @ columns, v)))(probes)
    off = np.abs(np.asarray(found) - rank) / rank
    assert np.mean(off > 1e-2) <= 0.002


@pytest.mark.parametrize("estimator", [hutchinson, hutchpp, xtrace])
def test_derivatives_are_finite_where_the_sketch_is_singular(estimator):
    low = jnp.diag(jnp.array([1.0, 2.0, 0.0, 0.0]))
    probes = random_probes(4, 12, "float64")
    slope = jax.grad(lambda t: estimator(lambda columns: t * (low @ columns), probes))(1.0)
    assert slope == pytest.approx(float(estimator(lambda columns: low @ columns, probes)))
    assert np.isfinite(jax.grad(lambda z: estimator(lambda columns: z @ columns, probes))(jnp.zeros((4, 4)))).all()


@pytest.mark.parametrize("rank", [1, 10, 31, 47])
def test_a_hessian_of_few_data_points_has_its_trace(rank):
    """Laplace #281, matfree #182: probes beyond the rank must not spoil it."""
    points = np.random.default_rng(rank).normal(size=(rank, 300))
    probes = np.sign(np.random.default_rng(0).normal(size=(300, 96)))
    found = float(xtrace(lambda columns: points.T @ (points @ columns), probes))
    assert found == pytest.approx(np.sum(points**2), rel=1e-9)
