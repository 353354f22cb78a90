"""Gradients that are part of a function: what their loops hand to their own backward pass is computed again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import adcost


def run(scale, x, n, forcing):
    def step(h, f):
        return h + 1e-2 * jnp.sin(h * scale) + f, jnp.sum(h)

    return lax.scan(step, x, forcing, n)


def by_gradient(n, outputs):
    """A loss of an inner gradient, by the state, by what the loop closes over and by its inputs."""

    def f(scale, x, forcing):
        def inner(scale, x, forcing):
            h, ys = run(scale, x, n, forcing)
            return jnp.sum(h**2) + (jnp.sum(jnp.cumsum(ys) ** 2) if outputs else 0.0)

        return sum(jnp.sum(g**2) for g in jax.grad(inner, (0, 1, 2))(scale, x, forcing))

    return f


@pytest.mark.parametrize("n", [1, 2, 3, 7, 36, 50])
@pytest.mark.parametrize("outputs", [False, True])
def test_gradients_of_gradients_are_those_of_the_program(n, outputs):
    rng = np.random.default_rng(n)
    arguments = 1.3, rng.normal(size=3), rng.normal(size=(n, 3)) / 10
    f = by_gradient(n, outputs)
    mine, plain = (jax.jit(jax.grad(g, (0, 1, 2)))(*arguments) for g in (adcost.checkpointed(f, slots=4), f))
    for a, b in zip(mine, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_an_inner_gradient_holds_neither_its_residuals_nor_their_cotangents():
    n, carry = 500, 4096 * 4
    x = jax.ShapeDtypeStruct((4096,), np.float32)

    def f(x):
        steps = lambda x: lax.scan(lambda h, _: (h + 1e-3 * jnp.sin(h * 1.5), None), x, None, n)[0]  # noqa: E731
        return jnp.sum(jax.grad(lambda x: jnp.sum(steps(x)))(x) ** 2)

    def temp(f):
        return jax.jit(jax.grad(f)).lower(x).compile().memory_analysis().temp_size_in_bytes / carry

    assert temp(f) > 4 * n
    assert temp(adcost.checkpointed(f)) < n / 2
    assert len(adcost.checkpointed(f).loops(x)) <= 5, "what is computed again is not cut once more"


def test_a_loop_read_by_two_is_left():
    def f(x):
        ys = lax.scan(lambda h, _: (jnp.sin(h), h), x, None, 30)[1]
        back = lambda scale: lax.scan(lambda h, y: (h * y + scale, None), x, ys, reverse=True)[0]  # noqa: E731
        return jnp.sum(back(1.0) * back(2.0))

    x = jnp.linspace(0.1, 1, 4)
    np.testing.assert_allclose(jax.grad(adcost.checkpointed(f, slots=4))(x), jax.grad(f)(x), rtol=1e-12)
    assert len(adcost.checkpointed(f, slots=4).loops(x)) == 3


def test_what_is_read_from_the_end_may_be_a_number_of_the_program():
    def f(x):
        h, ones = lax.scan(lambda h, _: (jnp.sin(h), jnp.float64(2.0)), x, None, 30)
        return jnp.sum(lax.scan(lambda g, y: (g * y * 0.5 + h, None), h, ones, reverse=True)[0])

    x = jnp.linspace(0.1, 1, 4)
    np.testing.assert_allclose(jax.grad(adcost.checkpointed(f, slots=4))(x), jax.grad(f)(x), rtol=1e-12)
