"""The evaluation trace: what JAX computes, row by row, or a refusal that names what has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from adcost import evaluation_trace


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))


@jax.custom_jvp
def spike(x):
    return jnp.where(x > 0, x, 0.0)


spike.defjvp(lambda p, t: (spike(p[0]), 3 * t[0]))

PROGRAMS = {
    "scan": lambda x: lax.scan(lambda h, _: (jnp.sin(h), None), x, None, length=5)[0],
    "scan from the end": lambda x: lax.scan(lambda h, k: (jnp.sin(h) * k, k), x, jnp.arange(1.0, 4), reverse=True)[0],
    "fori": lambda x: lax.fori_loop(0, 4, lambda i, h: jnp.cos(h) + i, x),
    "branch": lambda x: lax.cond(x > 1, jnp.sin, jnp.cos, x),
    "switch": lambda x: lax.switch(1, [jnp.sin, lambda x: x**3], x),
    "relu": lambda x: jax.nn.relu(x - 2.7),
    "straight through": lambda x: straight_through(x) * x,
    "spike": spike,
    "stop_gradient": lambda x: lax.stop_gradient(x) * x,
    "an integer": lambda x: jnp.asarray(x, int) * x,
    "float32 and back": lambda x: jnp.asarray(jnp.asarray(x, "float32"), float) * x,
    "noise": lambda x: x * jax.random.normal(jax.random.key(0)),
    "second derivative": lambda x: jax.grad(jax.grad(lambda x: jnp.exp(x) ** 2))(x),
    "checkpoint": lambda x: jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)))(x),
    "constant": lambda x: 3.0 + 0 * jnp.round(x),
    "a test at an infinite slope": lambda x: jnp.where(jnp.sqrt(x - x) > 1, x, 2 * x),
    "a branch at an infinite slope": lambda x: lax.cond(jnp.log(x - x) > 0, lambda x: x, lambda x: 2 * x, x),
    "what nobody uses": lambda x: (jnp.sqrt(x - x) * 2, x)[1],
    "the input itself": lambda x: x,
    "a scan of no step": lambda x: 2 * lax.scan(lambda h, _: (h, h), x, None, length=0)[0],
    "a linear solve": lambda x: x * lax.custom_linear_solve(lambda v: 2 * v, x, lambda _, b: b / 2, symmetric=True),
    "a table": lambda x: jnp.array([1.0, 2.0, 5.0])[2] * x,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_value_and_both_modes_are_those_of_jax(name):
    f, x = PROGRAMS[name], jnp.asarray(2.7)
    nodes = evaluation_trace(f, 2.7)
    value, slope = jax.value_and_grad(f)(x)
    digits = 1e-7 if "float32" in name else 1e-12
    assert nodes[-1].value == pytest.approx(float(value), rel=digits)
    assert nodes[-1].tangents == pytest.approx((float(slope),), rel=digits)
    assert nodes[0].adjoint == pytest.approx(float(slope), rel=digits)


def test_a_loop_on_the_data_runs_as_often_as_it_does():
    nodes = evaluation_trace(lambda x: lax.while_loop(lambda s: s < 9.0, lambda s: s * s, x), 2.7)
    assert [node.expression for node in nodes] == ["x1", "x1 * x1", "v1 * v1"]
    assert nodes[-1].tangents == pytest.approx((4 * 2.7**3,))


def test_a_function_with_its_own_rule_is_one_row_of_its_name():
    assert [node.expression for node in evaluation_trace(jax.nn.relu, 1.0)] == ["x1", "relu(x1)"]
    assert evaluation_trace(jax.nn.relu, 0.0)[0].adjoint == 0
    assert evaluation_trace(straight_through, 0.4)[0].adjoint == 1


@pytest.mark.parametrize(
    ("f", "named"),
    [
        (lambda x: lax.scan(lambda h, _: (jnp.sin(h), h), x, None, length=3)[1].sum(), "reduce_sum"),
        (lambda x: lax.scan(lambda h, y: (h * y, None), x, jnp.stack([x, x]))[0], "stack|concatenate|broadcast"),
        (lambda x: jnp.linalg.norm(jnp.zeros(3) + x), "broadcast_in_dim|add"),
        (lambda x: jnp.abs(jnp.exp(1j * x) + x), "convert_element_type works on complex numbers"),
        (lambda x: jax.scipy.special.betainc(x, 2.0, 0.3), "regularized_incomplete_beta has no derivative"),
        (lambda x: (jax.debug.print("{}", x), x)[1], "debug_(print|callback) has an effect"),
        (lambda x: lax.fori_loop(0, 1001, lambda _, h: h + x, x), "at most 1000 rows"),
    ],
)
def test_what_has_no_trace_is_refused_by_name(f, named):
    with pytest.raises(ValueError, match=named) as refused:
        evaluation_trace(f, 1.5)
    assert "\n" not in str(refused.value)


STEPS = {
    "sin": jnp.sin,
    "square": lambda x: x * x / 4,
    "relu": jax.nn.relu,
    "loop": lambda x: lax.fori_loop(0, 3, lambda _, h: jnp.tanh(h + x), x),
    "branch": lambda x: lax.cond(x > 0.5, jnp.exp, lambda x: 1 - x, x),
    "jit": jax.jit(lambda x: jnp.where(x > 0, x, -x) + 0.1),
    "twice": lambda x: jnp.maximum(x, 0.3) * jnp.minimum(x, 0.7),
}


@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4), st.sampled_from([-1.3, 0.2, 0.9]))
def test_random_programs_have_the_derivatives_of_jax(names, at):
    def f(x):
        for name in names:
            x = STEPS[name](x)
        return x

    nodes = evaluation_trace(f, at)
    slope = float(jax.grad(f)(jnp.asarray(at)))
    np.testing.assert_allclose([nodes[-1].tangents[0], nodes[0].adjoint], slope, rtol=1e-12, atol=1e-15)
