"""Linear solves and SVDs: every rule against the truth, passes that fit together, the safe SVD."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adcost.rulers import count as counts
from adcost.safe_svd import safe_nuclear_norm, safe_svd
from adcost.suite.vocabulary import Case
from analysis import theory
from analysis.fit import slope
from benchmarks import all_studies
from benchmarks.studies import linear_solve, svd
from benchmarks.workloads import matrices, passes

SOLVES = [name for name in linear_solve.METHODS if name != "lineax"]
RULES = ["jax_values", "jax_thin", "lecture"]


def solve_case(method, part, n=6, rhs=1, batch=1, decades=1, dtype="float64"):
    params = {"part": part, "n": n, "rhs": rhs, "batch": batch, "decades": decades}
    return Case("linear_solve", method, tuple(params.items()), dtype)


def svd_case(method, part, loss="nuclear", rows=5, cols=5, spectrum="spread", halvings=0):
    params = {"part": part, "loss": loss, "spectrum": spectrum, "rows": rows, "cols": cols, "halvings": halvings}
    return Case("svd", method, tuple(params.items()), "float64")


def result(case):
    program = all_studies()[case.study].program(case)
    return program.checked(program.run(*program.inputs()))


def close(found, expected, rtol=1e-9):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-11)


@pytest.mark.parametrize("part", passes.PARTS)
@pytest.mark.parametrize("method", SOLVES)
@settings(max_examples=3)  # each compiles a program or more
@given(n=st.integers(2, 7), rhs=st.sampled_from([1, 3]), batch=st.sampled_from([1, 2]))
def test_every_way_to_solve_gives_the_lectures_derivatives(method, part, n, rhs, batch):
    case = solve_case(method, part, n, rhs, batch)
    close(result(case), linear_solve.reference(case))


def test_the_lectures_derivatives_are_those_of_finite_differences():
    case = solve_case("kept_lu", "backward", n=4)
    a, b, g = linear_solve.inputs(case)
    by_a, by_b = linear_solve.reference(case)

    def loss(a, b):
        return g @ np.linalg.solve(a, b)

    step = 1e-6
    for i in range(4):
        e = step * np.eye(4)[i]
        assert (loss(a, b + e) - loss(a, b - e)) / (2 * step) == pytest.approx(by_b[i], rel=1e-6)
        for j in range(4):
            d = np.outer(np.eye(4)[i], step * np.eye(4)[j])
            assert (loss(a + d, b) - loss(a - d, b)) / (2 * step) == pytest.approx(by_a[i, j], rel=1e-6)


@pytest.mark.parametrize(
    ("method", "forward", "backward"),
    [("kept_lu", 1, 0), ("jax_solve", 1, 0), ("factorised_again", 1, 1), ("jax_inverse", 1, 0)],
)
def test_what_is_kept_is_not_computed_again(method, forward, backward):
    for part, expected in (("forward", forward), ("backward", backward)):
        program = linear_solve.program(solve_case(method, part))
        assert counts.count(program.run, *program.inputs())["lu"] == expected, part


def test_the_predicted_flops_are_those_of_the_program():
    n = 256

    def flops(part):
        program = linear_solve.program(solve_case("kept_lu", part, n))
        return counts.count(program.run, *program.inputs()).flops

    assert flops("backward") / flops("forward") == pytest.approx(theory.kept_factors_ratio(n), rel=0.02)
    assert n * theory.kept_factors_ratio(n) == pytest.approx(theory.SOLVE_RATIO_TIMES_N, rel=0.02)


def test_the_kept_factors_are_copied_before_they_are_used():
    """What claims give as the reason why the backward pass of the kept LU is dearer than its flops."""
    program = linear_solve.program(solve_case("kept_lu", "backward", n=64, dtype="float32"))
    text = jax.jit(program.run).lower(*program.inputs()).compile().as_text()
    assert re.search(r"= f32\[64,64\]\{0,1\} (copy|fusion)\(", text)
    assert len(re.findall(r'custom_call_target="lapack_strsm_ffi"', text)) == 2


def test_residuals_are_what_is_handed_over():
    program = linear_solve.program(solve_case("kept_lu", "backward", n=6))
    handed_over, _ = program.inputs()
    held = sum(a.nbytes for a in jax.tree.leaves(handed_over))
    assert program.facts["residuals"] == (held, "B")
    shapes = [(a.shape, a.dtype) for a in jax.tree.leaves(program.shapes())]
    assert shapes == [(a.shape, a.dtype) for a in jax.tree.leaves(program.inputs())]


def test_an_own_rule_is_what_jax_differentiates_by():
    make = passes.by_rule(lambda x: (x**2, None), lambda residuals, g: (7.0 * g,))
    assert jax.grad(make().function)(3.0) == 7.0


@pytest.mark.parametrize("method", SOLVES[:6])
def test_a_singular_matrix_shows(method):
    case = solve_case(method, "both", decades=linear_solve.SINGULAR)
    assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result(case)))


@given(n=st.integers(2, 12), decades=st.integers(0, 12), definite=st.booleans())
def test_matrices_have_the_condition_that_is_said(n, decades, definite):
    x = matrices.with_condition(n, decades, np.random.default_rng(n), definite)
    assert np.linalg.cond(x) == pytest.approx(10.0**decades, rel=1e-2)
    error = np.abs(x.astype(np.longdouble) @ matrices.inverse(x) - np.eye(n)).max()
    assert error < 10.0**decades * 1e-17


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("loss", svd.LOSSES)
@pytest.mark.parametrize(("rows", "cols"), [(4, 4), (6, 3), (3, 6)])
def test_every_rule_gives_the_gradient_by_the_values(method, loss, rows, cols):
    for part in passes.PARTS:
        case = svd_case(method, part, loss, rows, cols)
        close(result(case), svd.reference(case))


@pytest.mark.parametrize("method", ["jax_thin", "safe"])
@pytest.mark.parametrize(("rows", "cols"), [(4, 4), (6, 3), (3, 6)])
def test_the_gradient_by_the_vectors_is_that_of_finite_differences(method, rows, cols):
    case = svd_case(method, "backward", "vectors", rows, cols)
    close(result(case), svd.reference(case), rtol=1e-7)
    w, c = svd.inputs(case)

    def loss(w):
        u, _, vt = np.linalg.svd(w, full_matrices=False)
        return np.sum(c * ((u * np.linspace(1, 2, len(vt))) @ vt))

    step = 1e-6 * np.random.default_rng(1).normal(size=w.shape)
    along = (loss(w + step) - loss(w - step)) / 2
    assert along == pytest.approx(np.sum(svd.reference(case) * step), rel=1e-5)


@pytest.mark.parametrize("spectrum", ["pair", "equal", "deficient"])
def test_matrices_of_exact_truth_are_exact(spectrum):
    u, s, vt, _ = svd.factors(svd_case("", "", rows=svd.EXACT, cols=svd.EXACT, spectrum=spectrum, halvings=30))
    exact = sum(np.longdouble(s[k]) * np.outer(u[:, k], vt[k]).astype(np.longdouble) for k in range(svd.EXACT))
    np.testing.assert_array_equal(exact, (u * s) @ vt)
    np.testing.assert_array_equal(u.T @ u, np.eye(svd.EXACT))
    np.testing.assert_array_equal(vt @ vt.T, np.eye(svd.EXACT))


@pytest.mark.parametrize("spectrum", ["equal", "deficient"])
def test_the_safe_gradients_are_finite_where_there_is_none(spectrum):
    w, c = svd.inputs(svd_case("", "", rows=svd.EXACT, cols=svd.EXACT, spectrum=spectrum))
    gradient = jax.grad(lambda w: svd.of_vectors(c, *svd._vectors(safe_svd(w))))(w)
    assert np.isfinite(gradient).all()


def test_the_safe_svd_also_has_the_derivative_of_the_values():
    w = svd.inputs(svd_case("", "", rows=5, cols=3))[0]

    def loss(factors):
        return jnp.sum(jnp.sin(factors[1]))

    plain = jax.grad(lambda w: loss(jnp.linalg.svd(w, full_matrices=False)))(w)
    np.testing.assert_allclose(jax.grad(lambda w: loss(safe_svd(w)))(w), plain, rtol=1e-12, atol=1e-14)


def test_the_safe_nuclear_norm_has_the_least_subgradient():
    case = svd_case("safe", "both", rows=svd.EXACT, cols=svd.EXACT, spectrum="deficient")
    w, _ = svd.inputs(case)
    gradient = jax.grad(safe_nuclear_norm)(w)
    np.testing.assert_allclose(gradient, svd.reference(case), atol=1e-14)
    assert np.linalg.norm(gradient) < np.linalg.norm(jax.grad(lambda w: jnp.linalg.svd(w, compute_uv=False).sum())(w))


@pytest.mark.parametrize(("shape", "vectors"), [((8, 5), True), ((5, 8), True), ((8, 5), False)])
def test_an_svd_is_counted_as_lapack_does_it(shape, vectors):
    def run(w):
        return jnp.linalg.svd(w, full_matrices=False, compute_uv=vectors)

    values = 4 * 8 * 25 - 4 / 3 * 125
    expected = values + 8 / 3 * 125 + 2 * 25 * (2 * 8 - 5) + 2 * 125 if vectors else values
    assert counts.count(run, np.ones(shape)).flops == round(expected)


def test_the_counted_rules_are_the_predicted_ones():
    n = 64

    def flops(method, part):
        program = svd.program(svd_case(method, part, rows=n, cols=n))
        return counts.count(program.run, *program.inputs()).flops / n**3

    assert flops("lecture", "backward") == pytest.approx(2, rel=0.02)
    assert flops("jax_values", "backward") == pytest.approx(4, rel=0.02)
    for name, expected in theory.SVD_FORWARD.items():
        assert flops(name, "forward") == pytest.approx(expected, rel=0.02)
    assert flops("lecture", "both") / flops("values", "forward") == pytest.approx(theory.SVD_STEP, rel=0.02)


def test_a_slope_is_found_beside_a_fixed_cost():
    n = np.array([8, 16, 32, 64, 128, 256])
    noise = np.exp(0.01 * np.random.default_rng(0).normal(size=n.size))
    found = slope(list(n), list((2 + n / 4.5) * noise))
    assert found.low <= 1 / 4.5 <= found.high
    assert found.a == pytest.approx(2, rel=0.1)


def test_sizes_that_take_turns_share_a_process_and_no_rounds():
    study = all_studies()["linear_solve"]
    small, large = (solve_case("kept_lu", "forward", n, dtype="float32") for n in (64, 1024))
    assert study.group(small) == study.group(large)
    assert study.shares_rounds(small) != study.shares_rounds(large)
    backward = passes.with_part(small, "backward")
    assert study.shares_rounds(small) == study.shares_rounds(backward)
    assert study.against(backward) == {"forward": small}
    assert replace(small, method="x").params == small.params
