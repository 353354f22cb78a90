"""``adcost.while_loop`` against a scan that does nothing after its end, and against ``lax.while_loop``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import adcost
from tests.adcost.test_scan import close

MOST = 400


def descent(slots, most=MOST):
    """Steps towards the root of a: until they are near, in a number of steps that depends on a and the rate."""

    def f(a, rate, tolerance):
        def goes_on(state):
            return jnp.max(jnp.abs(state[0] ** 2 - a)) > tolerance

        def step(state):
            x, n = state
            return x - rate * (x * x - a) * jnp.cos(x), n + 1

        x, n = adcost.while_loop(goes_on, step, (jnp.ones_like(a), 0), max_steps=most, slots=slots)
        return jnp.sum(jnp.sin(x) * n)

    return f


def masked(most=MOST):
    """The same by a scan over all steps that may be."""

    def f(a, rate, tolerance):
        def step(state, _):
            x, n = state
            goes_on = jnp.max(jnp.abs(x**2 - a)) > tolerance
            return (jnp.where(goes_on, x - rate * (x * x - a) * jnp.cos(x), x), n + goes_on), None

        x, n = lax.scan(step, (jnp.ones_like(a), 0), None, length=most)[0]
        return jnp.sum(jnp.sin(x) * n)

    return f


A = jnp.linspace(1.0, 1.5, 5)


@settings(max_examples=8)
@given(st.integers(1, 12), st.floats(0.02, 0.3), st.sampled_from([1, 2, 7, MOST]))
def test_gradients_are_those_of_the_loop_however_many_steps_it_makes(slots, rate, most):
    mine, masks = descent(slots, most), masked(most)
    for derivative in (
        lambda f: jax.value_and_grad(f, (0, 1)),
        lambda f: lambda *a: jax.jvp(f, a, (jnp.ones(5), 1.0, 0.0)),
    ):
        close(jax.jit(derivative(mine))(A, rate, 1e-3), jax.jit(derivative(masks))(A, rate, 1e-3), 1e-10)


def test_no_step_at_all():
    close(jax.grad(descent(3))(A, 0.1, 1e3), jnp.zeros(5))


def test_forward_over_reverse_and_many_at_once():
    many = jnp.stack([A, 1.2 * A, 0.9 * A])
    for derivative in (
        lambda f: lambda a: jax.jacfwd(jax.grad(f))(a, 0.1, 1e-2),
        lambda f: lambda a: jax.vmap(jax.grad(f), (0, None, None))(many * a[0], 0.1, 1e-2),
        lambda f: lambda a: jax.grad(lambda a: jnp.sum(jax.vmap(f, (0, None, None))(many * a, 0.1, 1e-2)))(a),
    ):
        close(derivative(descent(4))(A), derivative(masked())(A), 1e-10)


def test_a_second_reverse_mode_is_refused():
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.jacrev(jax.grad(descent(4)))(A, 0.1, 1e-2)


def planned(slots, most):
    def f(u, rate):
        def step(state):
            u, n = state
            return u - rate * jnp.sin(u) * jnp.cos(jnp.roll(u, 1)), n + 1

        return jnp.sum(adcost.while_loop(lambda s: jnp.max(s[0]) > 0.1, step, (u, 0), max_steps=most, slots=slots)[0])

    shapes = jax.ShapeDtypeStruct((65536,), np.float32), jax.ShapeDtypeStruct((), np.float32)
    return jax.jit(jax.grad(f, (0, 1))).lower(*shapes).compile().memory_analysis().temp_size_in_bytes / (4 * 65536)


def test_memory_is_the_slots_and_not_the_steps():
    assert planned(10, 100) == pytest.approx(planned(10, 10**6), abs=0.5)
    assert planned(10, 1000) <= 10 + 6
    assert planned(40, 1000) - planned(10, 1000) == pytest.approx(30, abs=0.5)


@pytest.mark.parametrize(("steps", "slots"), [(10, 3), (100, 5), (1000, 10), (1000, 40), (999, 40)])
def test_evaluations_stay_near_the_optimum_of_a_known_length(steps, slots):
    made = []

    def step(state):
        jax.debug.callback(lambda: made.append(1))
        return state[0] * 0.999, state[1] + 1

    def f(x):
        return adcost.while_loop(lambda s: s[1] < steps, step, (x, 0), max_steps=10**6, slots=slots)[0]

    assert jax.jit(jax.grad(f))(1.0) == pytest.approx(0.999**steps)
    jax.effects_barrier()
    known = adcost.binomial(steps, slots).taped_evaluations
    assert steps * 2 <= len(made) <= 1.35 * known


def test_impossible_sizes_are_refused():
    for sizes in ({"max_steps": 0, "slots": 3}, {"max_steps": 3, "slots": 0}):
        with pytest.raises(ValueError, match="of at least 1"):
            adcost.while_loop(lambda x: x < 1, lambda x: x + 1, 0.0, **sizes)


def test_max_steps_may_be_as_large_as_a_position_can_be():
    def f(x):
        return adcost.while_loop(lambda x: x < 100.0, lambda x: x * x, x, max_steps=2**31 - 1, slots=3)

    np.testing.assert_allclose(jax.grad(f)(jnp.float64(1.5)), jax.jacfwd(f)(jnp.float64(1.5)))
