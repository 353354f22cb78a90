"""Trace estimators against matrices whose trace is known, the network's Hessian, the ruler ``estimate``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcost import trace_estimators
from adcost.rulers import estimate
from adcost.suite.vocabulary import Case
from analysis import theory
from benchmarks import all_studies
from benchmarks.studies import trace

PRODUCTS = [name for name in trace.METHODS if name not in ("gradient", "exact", "estimates")]


def case(method, question="costs", probes=5, draws=1, kind="rademacher"):
    params = {"question": question, "network": "small", "kind": kind, "probes": probes, "draws": draws}
    return Case("trace", method, tuple(params.items()), "float64")


def symmetric(d, seed=0, rank=None):
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    values = np.where(np.arange(d) < (rank or d), rng.normal(size=d) + 2, 0)
    return (q * values) @ q.T


@pytest.mark.parametrize("method", [name for name in PRODUCTS if trace.METHODS[name].differentiates])
def test_every_order_gives_the_quadratic_forms_by_hand(method):
    program = trace.program(case(method))
    np.testing.assert_allclose(program.run(*program.inputs()), trace.reference(case(method)), rtol=1e-6)


def test_the_exact_trace_is_that_of_the_hessian_by_hand():
    program = trace.program(case("exact"))
    assert program.run(*program.inputs()) == pytest.approx(trace.reference(case("exact")), rel=1e-7)


def test_the_gradient_by_hand_is_that_of_jax():
    weights, images, labels = trace.trained("small")
    layers = trace.LAYERS["small"]
    by_jax = jax.grad(trace.loss)(weights, images, labels, layers)
    np.testing.assert_allclose(trace.gradient(weights, images, labels, layers), by_jax, rtol=1e-9, atol=1e-12)
    assert len(weights) == trace.dimension("small") == 388
    assert trace.dimension("large") > 10**5


def test_the_network_has_learned():
    weights, images, labels = trace.trained("small")
    before = trace.loss(np.zeros_like(weights), images, labels, trace.LAYERS["small"])
    assert trace.loss(weights, images, labels, trace.LAYERS["small"]) < before / 4


@pytest.mark.parametrize("name", ["hutchpp", "xtrace"])
def test_a_matrix_of_low_rank_has_its_trace_from_few_products(name):
    matrix = symmetric(30, rank=4)
    probes = np.random.default_rng(1).normal(size=(30, 24))
    estimator = getattr(trace_estimators, name)
    assert estimator(lambda columns: matrix @ columns, probes) == pytest.approx(np.trace(matrix), rel=1e-8)


@given(st.integers(6, 12), st.integers(2, 4))
def test_xtrace_is_what_it_is_defined_to_be(d, half):
    """Every probe left out of its own sketch, one after the other."""
    matrix = symmetric(d, seed=d)
    probes = np.random.default_rng(half).normal(size=(d, 2 * half))
    expected = []
    for i in range(half):
        q = np.linalg.qr(matrix @ np.delete(probes[:, :half], i, axis=1))[0]
        rest = probes[:, i] - q @ (q.T @ probes[:, i])
        expected.append(np.trace(q.T @ matrix @ q) + rest @ matrix @ rest)
    assert trace_estimators.xtrace(lambda columns: matrix @ columns, probes) == pytest.approx(
        np.mean(expected), rel=1e-6
    )


def test_no_estimator_multiplies_by_more_columns_than_it_was_given():
    for name in ("hutchinson", "hutchpp", "xtrace"):
        columns = []

        def matmat(block, columns=columns):
            columns.append(block.shape[1])
            return symmetric(20) @ block

        getattr(trace_estimators, name)(matmat, np.random.default_rng(0).normal(size=(20, 12)))
        assert sum(columns) == 12, name


def test_matfree_gives_the_same_answers():
    stochtrace = pytest.importorskip("matfree.stochtrace")
    matrix, probes = symmetric(40), np.random.default_rng(2).normal(size=(40, 12))

    def matmat(columns):
        return jnp.asarray(matrix) @ columns

    assert trace.matfree_hutchinson(matmat, jnp.asarray(probes)) == pytest.approx(
        float(trace_estimators.hutchinson(matmat, probes)), rel=1e-10
    )
    plain = stochtrace.estimator_leave_one_out(
        stochtrace.leave_one_out_xtrace(apply_resphering=False), sampler=lambda key: jnp.asarray(probes[:, :6].T)
    )
    theirs = plain(lambda v: matmat(v[:, None])[:, 0], None)
    assert theirs == pytest.approx(float(trace_estimators.xtrace(matmat, jnp.asarray(probes))), rel=1e-8)


@pytest.mark.parametrize("kind", trace.KINDS)
def test_the_variance_of_a_probe_is_the_predicted_one(kind):
    d, count = 12, 200_000
    matrix = symmetric(d)
    probes = trace.probes(kind, (1, count), d)[0]
    np.testing.assert_allclose(probes.T @ probes / count, np.eye(d), atol=0.02)
    forms = np.einsum("vi,ij,vj->v", probes, matrix, probes)
    predicted = theory.probe_variance(kind, np.trace(matrix), np.sum(matrix**2), np.sum(np.diag(matrix) ** 2), d)
    assert np.var(forms) == pytest.approx(predicted, rel=0.03)
    assert np.mean(forms) == pytest.approx(np.trace(matrix), abs=5 * (predicted / count) ** 0.5)


def figures(sample, truth):
    """What is said of a sample: (value, low, high) by quantity, and index if there is one."""
    said = estimate.of_sample(sample, truth)
    return {(figure.quantity, *figure.at[:1]): (figure.value, figure.low, figure.high) for figure in said}


def test_what_is_said_of_a_sample_is_true_of_it():
    rng = np.random.default_rng(0)
    said = figures(5 + 2 * rng.normal(size=2**15), 5.0)
    assert said["mean",][1] <= 5 <= said["mean",][2]
    assert said["variance",][1] <= 4 <= said["variance",][2]
    for size in (1, 16, 256):
        value, low, high = said["error", ("probes", size)]
        assert low <= 0.4 / size**0.5 <= high
        assert low < value < high
    assert said["coverage", ("probes", 64)][0] == pytest.approx(0.95, abs=0.03)


def test_a_biased_sample_does_not_pass():
    said = figures(5.2 + 2 * np.random.default_rng(0).normal(size=2**15), 5.0)
    assert not said["mean",][1] <= 5 <= said["mean",][2]
    assert said["coverage", ("probes", 64)][0] < 0.93


def test_every_case_of_the_budgets_shares_its_probes():
    chosen = [c for c in all_studies()["trace"].cases("quick") if c.word("question") == "budgets" and c["probes"] == 12]
    inputs = [trace.inputs(c)[-1] for c in chosen]
    assert all(a is inputs[0] for a in inputs)
