"""Outputs of a loop that are read inside its body: the same values and gradients, without the stacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import adcost
from adcost import _jax

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


# ---------------------------------------------------------------- what a review found


def test_effects_keep_their_order():
    def f(h):
        held = jax.new_ref(jnp.ones(()))
        ys = lax.scan(lambda c, x: (c * x, c), h, jnp.arange(1.0, 5))[1]
        held[...] = 10.0
        return jnp.sum(ys * held[...])

    h = jnp.asarray(2.0)
    assert float(adcost.checkpointed(f)(h)) == float(f(h)) == 200


def test_long_sums_keep_their_digits():
    n = 200_000

    def f(h):
        return lax.scan(lambda c, x: (c, c[0] * 0 + x), h, jnp.full(n, 0.1, jnp.float32))[1].sum()

    h = jnp.ones(64, jnp.float32)
    np.testing.assert_allclose(jax.jit(adcost.checkpointed(f))(h), 0.1 * n, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(adcost.checkpointed(lambda h: f(h) * h[1]))(h)[1], 0.1 * n, rtol=1e-6)


def test_of_the_rows_that_are_taken_a_step_touches_its_own_alone():
    """Otherwise a gradient would take time quadratic in the steps."""
    n, taken = 400, (201, 8)  # a row of them is nobody's

    def f(h):
        return jnp.sum(lax.scan(lambda c, _: (jnp.sin(c), c * 2), h, None, n)[1][n // 2 : n] ** 2)

    def inside(jaxpr, deep):
        for eqn in jaxpr.eqns:
            loop = eqn.primitive.name in ("scan", "while")
            for program, _, _ in _jax.subprograms(eqn):
                yield from inside(program, deep or loop)
            if deep and not loop and any(v.aval.shape == taken for v in eqn.outvars):
                yield eqn.primitive.name

    closed = jax.make_jaxpr(jax.grad(adcost.checkpointed(f, slots=3)))(jnp.ones(8))
    found = set(inside(closed.jaxpr, False)) - {"jit", "pjit", "custom_jvp_call", "transposable", "closed_call"}
    assert found == {"dynamic_update_slice"}, "the forward pass puts a row, the backward pass only reads one"


@pytest.mark.parametrize("read", [lambda ys: ys[3:3].sum(), lambda ys: ys[:0].sum() + ys.sum()])
def test_nothing_of_the_outputs_can_be_read(read):
    f = reading(read)
    np.testing.assert_allclose(adcost.checkpointed(f, slots=3)(X), f(X))


def test_outputs_that_are_integers():
    def f(x):
        steps, marks = lax.scan(lambda h, _: (jnp.sin(h), (jnp.argmax(h), h > 0.5)), x, None, N)[1]
        return jnp.sum(x) * steps[-1] + jnp.sum(x**2) * jnp.sum(steps) + jnp.sum(x) * jnp.sum(marks.astype(int))

    np.testing.assert_allclose(jax.grad(adcost.checkpointed(f, slots=3))(X), jax.grad(f)(X))
    assert outputs_kept(f, X) == [False]


def test_an_output_that_is_a_number_of_the_program():
    def f(h):
        last, ones = lax.scan(lambda c, x: (c * x, 1.0), h, jnp.ones(4))
        return ones.sum() + last, 1.0

    for mine in (adcost.checkpointed(f, slots=2), adcost.checkpointed(f)):
        assert jax.tree.map(float, mine(jnp.asarray(0.3))) == pytest.approx((4.3, 1.0))
        assert all(isinstance(v, jax.Array) for v in mine(jnp.asarray(0.3)))
