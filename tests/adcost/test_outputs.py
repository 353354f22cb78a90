"""Outputs of a loop that are read inside its body: the same values and gradients, without the stacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import adcost

N = 60
Q, TARGETS, WEIGHTS = np.linspace(0, 1, N), np.random.default_rng(0).normal(size=(N, 4)), np.arange(1.0, 5)

INSIDE = {
    "the last": lambda ys: jnp.sum(ys[-1] ** 2),
    "every tenth": lambda ys: jnp.sum(ys[::10] ** 2),
    "a stretch of every third": lambda ys: jnp.sum(jnp.sin(ys[7:40:3])),
    "three numbers": lambda ys: ys[-1, 2] + ys[3, 1] * ys[5, 0],
    "a mean square": lambda ys: jnp.mean((ys - TARGETS) ** 2),
    "scaled columns": lambda ys: jnp.sum(ys * WEIGHTS),
    "norms": lambda ys: jnp.sum(jnp.linalg.norm(ys, axis=1)),
    "a quadrature": lambda ys: jnp.sum((Q @ ys) ** 2),
    "a product of outputs": lambda ys: jnp.sum(jnp.einsum("ni,nj->ij", ys, ys) ** 2),
    "a layer": lambda ys: jnp.sum(jnp.tanh(ys @ np.ones((4, 3)))),
    "a likelihood": lambda ys: -jnp.sum(jax.nn.log_softmax(ys, 1)[:, 0]),
    "masked": lambda ys: jnp.sum(jnp.where(Q[:, None] > 0.5, ys, 0.0)),
    "transposed and reshaped": lambda ys: jnp.sum(ys.reshape(N, 2, 2).transpose(0, 2, 1)[:, 0] ** 3),
    "several at once": lambda ys: jnp.sum(ys**2) * jnp.mean(ys) + ys[-1, 0],
    "jitted": jax.jit(lambda ys: jnp.mean(jnp.exp(ys))),
}
WHOLE = {
    "cumulated": lambda ys: jnp.sum(jnp.cumsum(ys, 0) ** 2),
    "with the mean of all": jnp.var,
    "neighbours": lambda ys: jnp.sum((ys[1:] - ys[:-1]) ** 2),
    "by a rule of its own": lambda ys: jnp.sum(jax.nn.relu(ys)),
    "sorted": lambda ys: jnp.sum(jnp.sort(ys, 0)[:3]),
}


def loop(x, reverse=False):
    return lax.scan(lambda h, _: (jnp.sin(h) * 1.01, jnp.cos(h) * h), x, None, N, reverse)[1]


def reading(read, reverse=False):
    return lambda x: read(loop(x, reverse))


def outputs_kept(f, *args):
    return ["outputs are kept" in found.done for found in adcost.checkpointed(f, slots=5).loops(*args)]


X = jnp.linspace(0.1, 1, 4)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", [*INSIDE, *WHOLE])
def test_values_and_gradients_are_those_of_the_program(name, reverse):
    f = reading((INSIDE | WHOLE)[name], reverse)
    mine, expected = (jax.jit(jax.value_and_grad(g))(X) for g in (adcost.checkpointed(f, slots=5), f))
    for a, b in zip(mine, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert outputs_kept(f, X) == [name in WHOLE]


def test_what_cannot_be_read_inside_is_said_with_the_line_that_reads_it():
    (found,) = adcost.checkpointed(reading(WHOLE["neighbours"]), slots=5).loops(X)
    assert "MiB: " in found.done
    assert "test_outputs.py" in found.done.split("outputs are kept")[1]
    (found,) = adcost.checkpointed(loop, slots=5).loops(X)
    assert "they are returned" in found.done


def test_neither_outputs_nor_their_cotangents_take_memory():
    wide = jax.ShapeDtypeStruct((5000,), np.float64)
    n, carry = 1000, 5000 * 8

    def temp(f):
        return jax.jit(jax.grad(f)).lower(wide).compile().memory_analysis().temp_size_in_bytes / carry

    def f(x):
        return jnp.mean(lax.scan(lambda h, _: (jnp.sin(h), jnp.cos(h)), x, None, n)[1] ** 2)

    assert temp(f) > 2 * n
    assert temp(adcost.checkpointed(f, slots=20)) < 30


def test_two_loops_of_which_one_reads_the_other_and_what_stands_between():
    def f(x):
        ys = loop(x)
        scale = jnp.sum(x)  # after the loop in the program, and yet there before it
        zs = lax.scan(lambda h, y: (h + y.sum() * scale, h * scale), jnp.float64(0), ys)[1]
        return jnp.sum(zs**2) + jnp.sum(jnp.exp(ys) * scale)

    g = adcost.checkpointed(f, slots=5)
    np.testing.assert_allclose(jax.jit(jax.grad(g))(X), jax.grad(f)(X), rtol=1e-12)
    assert outputs_kept(f, X) == [True, False]  # the second loop reads all of the first


def test_outputs_of_low_precision_are_added_up_in_float32():
    def f(x):
        return jnp.sum(lax.scan(lambda h, _: (h, h), x, None, 4096)[1])

    assert float(adcost.checkpointed(f, slots=5)(jnp.bfloat16(1))) == 4096


def test_a_loop_inside_a_loop_reads_its_outputs_inside():
    def f(x):
        return lax.scan(lambda h, _: (h + 1e-2 * jnp.mean(loop(h) ** 2), jnp.sum(h)), x, None, 10)[1].sum()

    g = adcost.checkpointed(f, slots=3)
    np.testing.assert_allclose(jax.jit(jax.grad(g))(X), jax.grad(f)(X), rtol=1e-12)
    assert outputs_kept(f, X) == [False, False]
