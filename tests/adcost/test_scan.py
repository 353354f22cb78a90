"""``adcost.scan`` against ``lax.scan``: values and gradients in every mode, memory, what is refused."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import adcost
from adcost.checkpointing import binomial, blocks, memory_poor, multilevel, sqrt, store_all, within
from adcost.rulers.count import count

SCHEDULES = {
    "store_all": store_all,
    "memory_poor": memory_poor,
    "sqrt": sqrt,
    "multilevel": lambda n: multilevel(n, 3),
    "binomial": lambda n: binomial(n, 3),
    "a taped tail": lambda n: blocks(n, 3, 1, min(n, 5)),
    "blocks": lambda n: blocks(n, 2, 3),
    "plain": lambda n: blocks(n, 1, 1, n),
}


def close(mine, expected, tolerance=1e-12):
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(jnp.abs(b).max(initial=0))))


def data(n, width=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(width, width)) / 2, rng.normal(size=width), rng.normal(size=(n, width))


def program(scan):
    """Weights by closure, a counter and a constant in the carry, two outputs, inputs."""

    def f(weights, h, xs):
        def step(carry, x):
            h, i, scale = carry
            h = jnp.tanh(weights @ h + x) * scale
            return (h, i + 1, scale), (h * i, jnp.sum(h))

        (h, i, _), (a, b) = scan(step, (h, 0, 1.1), xs)
        return jnp.sum(h**2) + jnp.sum(jnp.sin(a)) + jnp.sum(b) * i

    return f


def by(schedule, reverse=False):
    return program(lambda f, init, xs: adcost.scan(f, init, xs, reverse=reverse, schedule=schedule))


def plainly(reverse=False):
    return program(lambda f, init, xs: lax.scan(f, init, xs, reverse=reverse))


@settings(max_examples=6)
@given(st.integers(0, 40), st.booleans(), st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", SCHEDULES)
def test_values_and_gradients_are_those_of_lax_scan(name, n, reverse, seed):
    arguments, every = data(n, seed=seed), (0, 1, 2)
    mine = jax.jit(jax.value_and_grad(by(SCHEDULES[name], reverse), every))(*arguments)
    close(mine, jax.jit(jax.value_and_grad(plainly(reverse), every))(*arguments))


MODES = {
    "jvp": lambda f: lambda *a: jax.jvp(f, a, a),
    "jacfwd": lambda f: jax.jacfwd(f, (0, 1, 2)),
    "forward over reverse": lambda f: jax.jacfwd(jax.grad(f)),
    "reverse over reverse": lambda f: jax.jacrev(jax.grad(f)),
    "reverse over forward": lambda f: jax.grad(lambda *a: jnp.sum(jax.jacfwd(f)(*a) ** 2)),
    "a third derivative": lambda f: jax.grad(
        lambda w, *a: jnp.sum(jax.jvp(lambda w: jax.grad(f)(w, *a), (w,), (w,))[1])
    ),
    "under jax.checkpoint": lambda f: jax.grad(jax.checkpoint(f), (0, 1, 2)),
    "inside another scan": lambda f: jax.grad(
        lambda w, h, xs: lax.scan(lambda h, _: (jnp.tanh(h + f(w, h, xs)), None), h, None, length=3)[0].sum(), (0, 1)
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["binomial", "blocks", "plain"])
def test_every_mode_differentiates_it(mode, name):
    arguments = data(11)
    derivative = MODES[mode]
    close(jax.jit(derivative(by(SCHEDULES[name])))(*arguments), derivative(plainly())(*arguments), 1e-10)


@pytest.mark.parametrize("axes", [(0, 0, 0), (None, 0, None), (None, None, 0), (0, None, None), (0, None, 2)])
def test_many_at_once_before_and_after_differentiation(axes):
    size, (weights, h, xs) = 4, data(9)
    rng, every = np.random.default_rng(1), (0, 1, 2)
    arguments = [
        a if axis is None else np.stack([a + 0.1 * rng.normal(size=a.shape) for _ in range(size)], axis)
        for a, axis in zip((weights, h, xs), axes, strict=True)
    ]
    for through in (
        lambda f: jax.grad(lambda *a: jnp.sum(jnp.sin(jax.vmap(f, axes)(*a))), every),
        lambda f: jax.vmap(jax.grad(f, every), axes),
    ):
        close(through(by(SCHEDULES["blocks"]))(*arguments), through(plainly())(*arguments))


def test_shared_weights_get_one_cotangent_not_one_for_each_of_many():
    weights, _, xs = data(9)
    many = jnp.ones((64, 3))
    jaxpr = jax.make_jaxpr(jax.grad(lambda w: jnp.sum(jax.vmap(by(sqrt), (None, 0, None))(w, many, xs))))(weights)
    assert "f64[64,3,3]" not in str(jaxpr)


def test_keys_and_integers_go_through():
    def f(scan):
        def total(w, keys):
            def step(carry, key):
                h, k = carry
                k, used = jax.random.split(k)
                noise = jax.random.normal(key, (3,)) + jax.random.bernoulli(used, 0.8, (3,))
                return (jnp.tanh(w * h + noise), k), None

            return jnp.sum(scan(step, (jnp.ones(3), jax.random.key(1)), keys)[0][0])

        return jax.grad(total)(jnp.ones(3), jax.random.split(jax.random.key(0), 10))

    close(f(lambda *a: adcost.scan(*a, schedule=sqrt)), f(lax.scan))


def test_a_complex_carry_and_a_length_without_inputs():
    def f(scan):
        step = lambda z, _: (z * jnp.exp(1j * angle[0]) + 0.1 * jnp.conj(z), None)  # noqa: E731
        angle = [0.0]

        def total(k):
            angle[0] = k
            return jnp.abs(scan(step, jnp.complex128(1 + 1j), None, 40)[0]) ** 2

        return jax.grad(total)(0.3)

    close(f(lambda *a: adcost.scan(*a, schedule=lambda n: binomial(n, 3))), f(lax.scan))


def test_rules_of_its_own_in_the_body_are_kept():
    @jax.custom_vjp
    def clipped(x):
        return x * 1.0

    clipped.defvjp(lambda x: (x * 1.0, None), lambda _, g: (jnp.clip(g, -0.1, 0.1),))

    def f(scan):
        return jax.grad(lambda w: jnp.sum(scan(lambda h, x: (clipped(jnp.tanh(w * h + x)), None), jnp.ones(3), xs)[0]))

    xs = data(12)[2]
    close(f(lambda *a: adcost.scan(*a, schedule=sqrt))(jnp.ones(3)), f(lax.scan)(jnp.ones(3)))


def test_cotangents_of_bfloat16_are_added_up_in_float32():
    def total(w):
        return jnp.sum(adcost.scan(lambda h, _: (h, w * h), jnp.bfloat16(1), length=4096, schedule=sqrt)[1])

    plain = jax.grad(lambda w: jnp.sum(lax.scan(lambda h, _: (h, w * h), jnp.bfloat16(1), length=4096)[1]))
    assert jax.grad(total)(jnp.bfloat16(1)) == 4096
    assert plain(jnp.bfloat16(1)) == 256


def temp(f, *shapes):
    return jax.jit(jax.grad(f)).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def flow(scan, n):
    """A step of a few residuals, as in a solver."""

    def step(u, _):
        slope = (jnp.roll(u, -1) - jnp.roll(u, 1)) / 2
        return u - 0.01 * (jnp.sin(u) * slope - 0.1 * (jnp.roll(u, -1) - 2 * u + jnp.roll(u, 1))), None

    return lambda u: jnp.sum(scan(step, u, None, n)[0] ** 2)


CARRY = jax.ShapeDtypeStruct((65536,), np.float32)
BYTES = 65536 * 4


@pytest.mark.parametrize("n", [64, 400])
@pytest.mark.parametrize(
    "schedule", [memory_poor, sqrt, store_all, lambda n: binomial(n, 3), lambda n: binomial(n, 10)]
)
def test_a_gradient_holds_the_slots_and_at_most_five_carries(schedule, n):
    made = schedule(n)
    assert temp(flow(lambda *a: adcost.scan(*a, schedule=made), n), CARRY) <= (made.slots + 5) * BYTES


@pytest.mark.parametrize(
    ("block", "slots", "tail"), [(20, 5, 320), (20, 13, 160), (20, 20, 20), (20, 5, 20), (4, 10, 4), (1, 3, 1)]
)
def test_a_member_of_the_family_plans_what_it_says(block, slots, tail):
    n = 400
    made = blocks(n, slots, block, tail)
    residuals = temp(flow(lax.scan, n), CARRY) / BYTES / n  # two or three, as JAX's version has it
    planned = temp(flow(lambda *a: adcost.scan(*a, schedule=made), n), CARRY) / BYTES
    assert abs(planned - made.memory(residuals)) <= 5.01  # constants of a few KiB apart


def test_sixteen_budgets_from_the_least_to_plain_are_used():
    n = 200
    plain = temp(flow(lax.scan, n), CARRY) / BYTES
    evaluations = []
    for budget in np.geomspace(14, plain + 4, 16):
        made = within(n, budget, plain / n)
        planned = temp(flow(lambda *a, made=made: adcost.scan(*a, schedule=made), n), CARRY) / BYTES
        assert planned <= budget
        assert planned >= 0.8 * (budget - 4) or not made.blocks, (budget, planned)
        evaluations.append(made.taped_evaluations)
    assert evaluations == sorted(evaluations, reverse=True)
    assert evaluations[-1] == n


def test_what_no_step_changes_and_what_no_pullback_reads_has_no_slot():
    n, wide = 100, jax.ShapeDtypeStruct((1024, 1024), np.float32)

    def weights_in_the_carry(w):
        step = lambda s, _: ((s[0], jnp.tanh(s[0] @ s[1])), None)  # noqa: E731
        return jnp.sum(adcost.scan(step, (w, jnp.ones(1024, jnp.float32)), length=n, schedule=sqrt)[0][1])

    def a_sum(w):
        step = lambda s, y: (s + jnp.sin(w) * y, None)  # noqa: E731
        start = jnp.zeros((1024, 1024), jnp.float32)
        return jnp.sum(adcost.scan(step, start, jnp.arange(n, dtype=jnp.float32), schedule=sqrt)[0])

    for f in (weights_in_the_carry, a_sum):
        assert temp(f, wide) < 6 * 2**22, f


def test_outputs_that_nobody_reads_take_no_memory():
    def last(scan):
        return lambda u: jnp.sum(scan(lambda h, _: (jnp.sin(h), h), u, None, 1000)[0])

    assert temp(last(lambda *a: adcost.scan(*a, schedule=lambda n: binomial(n, 10))), CARRY) < 20 * BYTES


def test_the_program_does_not_grow_with_the_length():
    def lines(n):
        program = flow(lambda *a: adcost.scan(*a, schedule=sqrt), n)
        return len(jax.jit(jax.grad(program)).lower(CARRY).as_text().splitlines())

    assert lines(16) == lines(100) == lines(10_000)


def test_what_cannot_be_is_refused():
    weights, h, xs = data(9)
    with pytest.raises(ValueError, match="the schedule is for 8 steps, the loop has 9"):
        by(sqrt(8))(weights, h, xs)
    with pytest.raises(TypeError, match="carry"):
        adcost.scan(lambda h, x: (h.astype(np.float32), None), h, xs, schedule=sqrt)


def test_flops_are_those_of_the_plain_loop():
    _, h, xs = data(9)

    def f(scan):
        return lambda h: jnp.sum(scan(lambda h, x: (jnp.sin(h) * x, None), h, xs)[0])

    assert count(f(lambda *a: adcost.scan(*a, schedule=sqrt)), h).flops == count(f(lax.scan), h).flops > 0


# ---------------------------------------------------------------- slots in the host's memory


@pytest.mark.parametrize("made", [binomial(60, 7), blocks(60, None, 6, 6), sqrt(60)])
def test_slots_on_the_host_change_no_gradient_and_leave_the_device(made):
    n, hosted = made.depth, made.on_host()
    assert (hosted.host, hosted.evaluations, hosted.slots) == (True, made.evaluations, made.slots)
    assert hosted != made
    assert copy.deepcopy(hosted) == hosted

    def by(schedule):
        return jax.grad(flow(lambda *a: adcost.scan(*a, schedule=schedule), n))

    u = jnp.sin(jnp.arange(64.0))
    np.testing.assert_array_equal(jax.jit(by(hosted))(u), jax.jit(by(made))(u))
    np.testing.assert_allclose(jax.jit(jax.vmap(by(hosted)))(jnp.stack([u, 2 * u]))[1], by(made)(2 * u), rtol=1e-12)


# ---------------------------------------------------------------- what a review found


@pytest.mark.parametrize(
    "f",
    [
        lambda scan: lambda x: scan(lambda c, _: (c * 0.5, None), 1.0, x)[0] + x.sum(),
        lambda scan: lambda x: scan(lambda c, x: (c + (x > 1), None), 0, x)[0] * x.sum(),
        lambda scan: lambda x: scan(lambda c, x: (lax.stop_gradient(c + x), None), 0.0, x)[0] + x.sum(),
        lambda scan: lambda x: x.sum() + len(scan(lambda c, x: (c, None), (), x)),
    ],
)
def test_a_loop_none_of_whose_results_moves(f):
    by = f(lambda *a: adcost.scan(*a, schedule=sqrt))
    for run in (jax.grad, lambda g: jax.jit(jax.grad(g)), lambda g: lambda x: jax.vmap(jax.grad(g))(x[None])[0]):
        close(run(by)(jnp.arange(4.0)), jax.grad(f(lax.scan))(jnp.arange(4.0)))


def test_second_derivatives_at_a_number_of_python():
    def f(scan):
        return lambda h: scan(lambda c, x: (jnp.sin(c + x), None), h, jnp.ones(4))[0]

    by = f(lambda *a: adcost.scan(*a, schedule=sqrt))
    close(jax.hessian(by)(0.3), jax.hessian(f(lax.scan))(0.3))
    close(jax.grad(jax.grad(by))(0.3), jax.hessian(f(lax.scan))(0.3))
