"""Forward against reverse mode: products and Jacobians, the advice, the fitted boundary, the evaluation trace."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adcost.evaluation_trace import evaluation_trace
from adcost.modes import which_mode
from adcost.rulers import count as counts
from adcost.suite.vocabulary import Case
from analysis import theory
from analysis.studies.modes import readings as crossover
from analysis.studies.worked_example.claims import by_hand
from analysis.studies.worked_example.figures import graph, traces
from benchmarks import all_studies
from benchmarks.studies import closed_forms, hessians, modes
from benchmarks.studies.worked_example import AT, f
from benchmarks.workloads.field import FIELD

DIMENSIONS = st.sampled_from([1, 2, 4, 8])


def result(study, method, params):
    case = Case(study, method, tuple(params.items()), "float64")
    program = all_studies()[study].program(case)
    return case, program.run(*program.inputs())


@pytest.mark.parametrize("method", [name for name in modes.METHODS if name != "function"])
@pytest.mark.parametrize("family", modes.FAMILIES)
@settings(max_examples=3)  # each compiles a program or more
@given(inputs=DIMENSIONS, outputs=DIMENSIONS, depth=st.integers(1, 5))
def test_every_mode_gives_the_derivative_by_hand(method, family, inputs, outputs, depth):
    case, value = result("modes", method, {"family": family, "inputs": inputs, "outputs": outputs, "depth": depth})
    np.testing.assert_allclose(value, modes.reference(case), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", modes.FAMILIES)
def test_the_derivative_by_hand_is_that_of_finite_differences(family):
    size = (("family", family), ("inputs", 4), ("outputs", 2), ("depth", 3))
    case = Case("modes", "jacrev", size, "float64")
    weights, x, *_ = modes.inputs(case)
    step = 1e-6
    by_x = [
        (modes.FAMILIES[family](weights, x + e, case) - modes.FAMILIES[family](weights, x - e, case)) / (2 * step)
        for e in step * np.eye(x.size)
    ]
    np.testing.assert_allclose(np.stack(by_x, 1), modes.reference(case), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("family", ["cubed", "network"])
@pytest.mark.parametrize("method", [*hessians.COMPOSITIONS, *hessians.PRODUCTS, "fwd_rev_eager"])
def test_every_composition_gives_the_hessian_by_hand(method, family):
    case, value = result("hessians", method, {"family": family, "inputs": 5})
    np.testing.assert_allclose(value, hessians.reference(case), rtol=1e-9, atol=1e-12)


def test_the_hessian_by_hand_is_that_of_finite_differences():
    case = Case("hessians", "fwd_rev", (("family", "network"), ("inputs", 4)), "float64")
    weights, x, _ = hessians.inputs(case)
    gradient = jax.grad(lambda x: hessians.network(weights, x))
    by_x = [(gradient(x + e) - gradient(x - e)) / 2e-6 for e in 1e-6 * np.eye(4)]
    np.testing.assert_allclose(np.stack(by_x), hessians.reference(case), rtol=1e-5, atol=1e-8)


def test_at_zero_plain_differentiation_is_nan_and_the_cure_is_not():
    origin = {"family": "origin", "inputs": 3}
    assert np.isnan(result("hessians", "fwd_rev", origin)[1]).all()
    np.testing.assert_array_equal(result("hessians", "fwd_rev_safe", origin)[1], np.zeros((3, 3)))


@pytest.mark.parametrize("method", [name for name in closed_forms.METHODS if name != "value"])
@pytest.mark.parametrize("decades", [0, 4])
def test_every_way_to_the_gradient_is_as_exact_as_rounding_lets_it(method, decades):
    case, value = result("closed_forms", method, {"n": 12, "decades": decades})
    truth = closed_forms.reference(case)
    error = np.max(np.abs(value - truth)) / np.max(np.abs(truth))
    assert error < 10 * theory.rounding_error(12, decades, np.finfo(float).eps)


def test_a_solve_is_counted_as_it_runs():
    n = 8
    case = Case("closed_forms", "closed_form", (("n", n), ("decades", 1)), "float64")
    a, x, b = closed_forms.inputs(case)
    solve = counts.count(closed_forms.by_solve_einsum, a, x, b)
    assert (solve["lu"], solve["triangular_solve"]) == (1, 2), "what only derivatives need is not run"
    assert counts.count(jax.lax.linalg.lu, x).flops == round(2 / 3 * n**3)


@pytest.mark.parametrize(("shape", "mode"), [((2, 64), "forward"), ((64, 2), "reverse"), ((16, 16), "either")])
def test_advice_goes_by_the_shape_of_the_jacobian(shape, mode):
    d, m = shape
    matrix = jnp.ones((m, d))

    def f(x):
        return jnp.tanh(matrix @ jnp.sin(x))

    x = jax.ShapeDtypeStruct((d,), "float32")
    advice = which_mode(f, x)
    assert advice.mode == mode
    assert advice.residual_bytes == counts.residual_bytes(f, x) > 0
    assert advice.caveats == ()


@pytest.mark.parametrize("c", [0.5, 1.0, 12 / 7])
def test_the_boundary_of_a_known_map_is_found(c):
    rng = np.random.default_rng(0)
    cells = []
    for d in (1, 4, 16, 64, 256):
        for m in (1, 4, 16, 64, 256):
            ratio = (3 + d) / (2 + c * m) * np.exp(0.05 * rng.normal())
            cells.append(crossover.Cell(d, m, ratio, 0.9 * ratio, 1.1 * ratio))
    fitted = crossover.boundary(cells)
    assert fitted.low <= c <= fitted.high
    assert fitted.c == pytest.approx(c, rel=0.1)
    assert {cell.faster for cell in cells} == {"forward", "reverse", "either"}


@pytest.mark.parametrize("family", modes.FAMILIES)
def test_the_predicted_boundary_is_that_of_the_counted_flops(family):
    """At equal numbers of inputs and outputs the costs are in the ratio of a tangent to a cotangent, nearly."""
    case = Case("modes", "jacfwd", (("family", family), ("inputs", 128), ("outputs", 128), ("depth", 8)))

    def flops(method):
        program = modes.program(case.with_method(method))
        return counts.count(program.run, *program.inputs()).flops

    assert flops("jacrev") / flops("jacfwd") == pytest.approx(theory.CROSSOVER[family], rel=0.05)


FUNCTIONS = [
    (f, (2.0, 5.0)),
    (lambda a: jnp.exp(a) ** 3 / (1 + a**2), (0.3,)),
    (lambda a, b, c: jnp.log(a * b) - jax.nn.sigmoid(c) * b + jnp.hypot(a, b), (1.0, 2.0, 3.0)),
    (lambda a, b: jnp.where(a > b, a * b, a - b) * 2.0, (1.0, 3.0)),
]


@pytest.mark.parametrize(("function", "at"), FUNCTIONS)
def test_a_trace_holds_the_value_and_the_derivatives(function, at):
    nodes = evaluation_trace(function, *at)
    gradient = jax.grad(function, argnums=tuple(range(len(at))))(*at)
    assert nodes[-1].value == pytest.approx(float(function(*at)))
    assert nodes[-1].tangents == pytest.approx([float(g) for g in gradient])
    assert [node.adjoint for node in nodes[: len(at)]] == pytest.approx([float(g) for g in gradient])


def test_the_lectures_trace_is_that_of_the_lecture():
    nodes = evaluation_trace(f, *AT)
    assert [node.expression for node in nodes] == ["x1", "x2", "x1 * x2", "sin(x1)", "v1 + v2"]
    assert nodes[-1].tangents == pytest.approx(by_hand())
    forward, reverse = traces(nodes)
    assert [row[0] for row in reverse.rows] == ["v3", "v2", "v1", "x2", "x1"]
    assert len(forward.rows) == 5
    assert graph(nodes).figure.axes


def test_what_has_no_trace_is_refused():
    with pytest.raises(ValueError, match="scalars"):
        evaluation_trace(lambda a: jnp.stack([a, a]), 1.0)
    with pytest.raises(ValueError, match="no operation on scalars"):
        evaluation_trace(lambda a: jnp.sum(jnp.stack([a, a])), 1.0)


def test_sizes_of_a_grid_share_rounds():
    study = all_studies()["modes"]
    groups = {study.shares_rounds(case) for case in study.cases("quick")}
    programs = {f"family_field-program_{name}-float32" for name in FIELD}
    assert groups == {f"family_{family}-float32" for family in modes.FAMILIES} | programs
    assert len({study.group(case) for case in study.cases("quick")}) == len(modes.FAMILIES) + 1


@pytest.mark.parametrize("name", FIELD)
def test_programs_from_the_field_have_the_derivative_of_differences(name):
    size = (("family", "field"), ("program", name), ("inputs", FIELD[name].inputs), ("outputs", FIELD[name].outputs))
    for method in FIELD[name].modes:
        case = Case("modes", method, size, "float64")
        program = modes.program(case)
        found = jax.jit(program.run)(*program.inputs())
        np.testing.assert_allclose(found, modes.reference(case), rtol=1e-4, atol=1e-5 * np.max(np.abs(found)))
    with pytest.raises(TypeError) if FIELD[name].modes == ("jacrev",) else contextlib.nullcontext():
        jax.eval_shape(jax.jacfwd(lambda x: FIELD[name].f(program.inputs()[0], x)), program.inputs()[1])
