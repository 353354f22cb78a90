"""The executor: gradients against plain ``jax.grad`` in float64, memory and size of the compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcost.checkpointing import (
    Row,
    Schedule,
    binomial,
    checkpointed_chain,
    memory_poor,
    multilevel,
    sqrt,
    store_all,
)
from adcost.rulers import count as counts
from benchmarks.studies.backprop import inputs, layer, loss, pullback, two_pass_slots, vanilla

SCHEDULES = [
    store_all,
    memory_poor,
    sqrt,
    lambda n: multilevel(n, 3),
    lambda n: binomial(n, 2),
    lambda n: binomial(n, 7),
]
PULLBACKS = [None, pullback]


def example(depth, width=4, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(depth, width, width)) / width**0.5, rng.normal(size=(batch, width))


def gradients(chain, *arrays):
    return jax.jit(jax.grad(lambda weights, x: loss(chain(weights, x)), argnums=(0, 1)))(*arrays)


@given(
    st.integers(1, 40), st.integers(1, 8), st.integers(1, 5),
    st.sampled_from(SCHEDULES), st.sampled_from(PULLBACKS), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_gradients_equal_plain_grad(depth, width, batch, schedule, rule, seed):
    arrays = example(depth, width, batch, seed)
    expected = gradients(vanilla(layer, depth), *arrays)
    for mine, plain in zip(gradients(checkpointed_chain(layer, schedule(depth), rule), *arrays), expected, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=0, atol=1e-12 * float(jnp.abs(plain).max()))


def test_gradients_against_finite_differences():
    weights, x = example(5)
    chain = checkpointed_chain(layer, sqrt(5))
    direction = np.random.default_rng(1).normal(size=weights.shape)
    step = 1e-6
    slope = (loss(chain(weights + step * direction, x)) - loss(chain(weights - step * direction, x))) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(gradients(chain, weights, x)[0], direction), slope, rtol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_any_pytree_goes_through_with_integer_leaves_and_keys(schedule):
    depth = 9
    params = {"w": example(depth)[0], "key": jax.random.split(jax.random.key(1), depth), "i": jnp.arange(depth)}
    x = {"h": jnp.ones((3, 4)), "count": jnp.int32(0)}

    def noisy(p, h):
        noise = jax.random.normal(p["key"], (4,))
        return {"h": jnp.tanh(h["h"] @ p["w"] + noise) * (1 + p["i"] / 10), "count": h["count"] + 1}

    def plain(params, x):
        for i in range(depth):
            x = noisy(jax.tree.map(lambda a, i=i: a[i], params), x)
        return x

    def run(chain):
        def total(params, x):
            out = chain(params, x)
            return jnp.sum(out["h"] ** 2) * out["count"]

        return jax.grad(total, argnums=(0, 1), allow_int=True)(params, x)

    (mine, mine_x), (expected, expected_x) = run(checkpointed_chain(noisy, schedule(depth))), run(plain)
    np.testing.assert_allclose(mine["w"], expected["w"], rtol=0, atol=1e-12 * float(jnp.abs(expected["w"]).max()))
    np.testing.assert_allclose(mine_x["h"], expected_x["h"], rtol=0, atol=1e-12 * float(jnp.abs(expected_x["h"]).max()))
    assert mine["i"].dtype == jax.dtypes.float0


def test_usable_inside_a_larger_loss_under_vmap_and_for_hessian_vector_products():
    weights, x = example(6)
    plain, chain = vanilla(layer, 6), checkpointed_chain(layer, binomial(6, 2))

    def larger(f):
        return lambda w, x: jnp.sum(jnp.sin(f(2 * w, x)) @ f(w, x).T)

    for transformed in (
        lambda f: jax.vmap(jax.grad(f), (None, 0))(weights, jnp.stack([x, 2 * x])),
        lambda f: jax.jvp(lambda w: jax.grad(f)(w, x), (weights,), (jnp.ones_like(weights),))[1],
    ):
        mine, expected = transformed(larger(chain)), transformed(larger(plain))
        np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-11 * float(jnp.abs(expected).max()))


def test_rows_that_store_and_go_backward_at_once_are_run_too():
    rows = (Row(0, 0, 2, 1, True), Row(0, 0, 1, 1, True), Row(1, 1, 0, 0), Row(0, 1, 0))
    with pytest.raises(ValueError, match="ends before"):
        Schedule(2, 2, rows)
    schedule = Schedule(2, 2, (*rows[:2], Row(0, 0, 0, backward=True)))
    arrays = example(2)
    expected = gradients(vanilla(layer, 2), *arrays)
    for rule in PULLBACKS:
        mine = gradients(checkpointed_chain(layer, schedule, rule), *arrays)
        np.testing.assert_allclose(mine[0], expected[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", PULLBACKS)
@pytest.mark.parametrize("n", [64, 144, 256, 1024])
def test_temp_memory_is_the_slots_and_little_more(n, rule):
    width, batch = 64, 1024
    weights = jax.ShapeDtypeStruct((n, width, width), np.float32)
    x = jax.ShapeDtypeStruct((batch, width), np.float32)
    besides = 5 if rule is None else 7
    for schedule in (
        sqrt(n), memory_poor(n), store_all(n), multilevel(n, 3),
        binomial(n, 3), binomial(n, 10), binomial(n, two_pass_slots(n)),
    ):  # fmt: skip
        chain = checkpointed_chain(layer, schedule, rule)
        compiled = jax.jit(jax.grad(lambda w, x, chain=chain: loss(chain(w, x)))).lower(weights, x).compile()
        temp = compiled.memory_analysis().temp_size_in_bytes / (width * batch * 4)
        assert temp <= schedule.slots + besides, schedule


@pytest.mark.parametrize("rule", PULLBACKS)
def test_the_program_does_not_grow_with_the_depth(rule):
    def lines(n):
        arrays = [a.astype(np.float32) for a in example(n)]
        return len(
            jax.jit(jax.grad(lambda w, x: loss(checkpointed_chain(layer, sqrt(n), rule)(w, x))))
            .lower(*arrays)
            .as_text()
            .splitlines()
        )

    assert lines(16) == lines(100) == lines(400)


def test_the_first_sweep_is_the_forward_pass_itself():
    n = 30
    arrays = example(n)
    chain = checkpointed_chain(layer, binomial(n, 4))
    assert counts.count(lambda *a: jax.vjp(chain, *a)[0], *arrays)["tanh"] == n


def test_a_hundred_thousand_layers_run():
    n = 100_000
    scale = jnp.full((n,), 1.0)
    for schedule in (sqrt(n), binomial(n, 20)):
        chain = checkpointed_chain(lambda w, h: w * h, schedule)
        gradient = jax.jit(jax.grad(lambda w, x, chain=chain: chain(w, x)))(scale, jnp.float64(3.0))
        np.testing.assert_allclose(gradient, 3.0)


def test_wrong_params_and_layers_are_refused_in_one_line():
    weights, x = example(6)
    with pytest.raises(ValueError, match="leading axis of length 4, the schedule's depth; found: 6"):
        checkpointed_chain(layer, sqrt(4))(weights, x)
    with pytest.raises(TypeError, match="the layer must keep its carry's structure"):
        checkpointed_chain(lambda w, h: (h @ w)[0], sqrt(6))(weights, x)


def test_inputs_are_the_same_every_time():
    from adcost.suite.vocabulary import case_from_id

    case = case_from_id("backprop-sqrt-depth4-width8-batch16-float32")
    for first, second in zip(inputs(case), inputs(case), strict=True):
        np.testing.assert_array_equal(first, second)
