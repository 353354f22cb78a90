"""``adcost.checkpointed``: the loops of a function that knows nothing of it, wherever they stand."""

import cProfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import adcost
from adcost.checkpointing import binomial, sqrt
from tests.adcost.test_scan import close, temp


def steps(x, length=256):
    return lax.scan(lambda h, _: (h + 0.01 * jnp.sin(h) * jnp.tanh(h), None), x, None, length=length)[0]


def backwards(x):
    return lax.scan(lambda h, t: (h + 0.01 * jnp.sin(h) * jnp.tanh(t * h), None), x, jnp.arange(256.0), reverse=True)[0]


def nested(x):
    def outer(h, _):
        return lax.fori_loop(0, 16, lambda i, h: h + 0.01 * jnp.sin(h * i), h), None

    return lax.scan(outer, x, None, length=64)[0]


def sharded(x, outputs=False):
    """Each device on its part, with a mean over all devices in every step."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))

    def local(x):
        def step(h, _):
            return h + 0.01 * jnp.sin(h) * jnp.tanh(lax.pmean(h, "d")), jnp.sum(h) if outputs else None

        h, ys = lax.scan(step, x, None, length=256)
        return h * jnp.sum(jnp.cumsum(ys)) if outputs else h

    part = jax.sharding.PartitionSpec("d")
    return jax.shard_map(local, mesh=mesh, in_specs=part, out_specs=part)(x)


PLACES = {
    "bare": steps,
    "from the end": backwards,
    "nested, one with known bounds": nested,
    "jit": jax.jit(steps),
    "jax.checkpoint": jax.checkpoint(steps),
    "cond": lambda x: lax.cond(x[0] > -1, steps, lambda x: x, x),
    "switch": lambda x: lax.switch(1, [lambda x: x, steps], x),
    "the argument of a custom_jvp": lambda x: jax.nn.relu(steps(x)),
    "vmap": lambda x: jax.vmap(steps)(x.reshape(4, -1)).ravel(),
    "lax.map": lambda x: lax.map(steps, x.reshape(4, -1)).ravel(),
    "shard_map": sharded,
    "shard_map, with outputs": lambda x: sharded(x, outputs=True),
    "twice": lambda x: steps(steps(x)),
}
X = jax.ShapeDtypeStruct((4096,), np.float64)


@pytest.mark.parametrize("place", PLACES)
def test_a_loop_is_found_and_its_gradient_kept(place):
    def f(x):
        return jnp.sum(PLACES[place](x) ** 2)

    mine, x = adcost.checkpointed(f), jnp.linspace(0, 1, 4096)
    close(jax.jit(jax.value_and_grad(mine))(x), jax.jit(jax.value_and_grad(f))(x))
    assert temp(mine, X) < temp(f, X) / 8
    assert all("as it was" not in str(loop) for loop in mine.loops(X))


def test_what_cannot_be_rewritten_is_listed_by_line():
    @jax.custom_vjp
    def ruled(x):
        return steps(x, 64)

    ruled.defvjp(lambda x: jax.vjp(lambda x: steps(x, 64), x), lambda pullback, g: pullback(g))

    def f(x):
        halved = lax.while_loop(lambda v: jnp.max(v) > 0.1, lambda v: v / 2, lax.stop_gradient(x))
        return jnp.sum(ruled(steps(x)) * halved)

    x = jnp.linspace(0, 1, 64)
    mine = adcost.checkpointed(f)
    halving, first, second = sorted(mine.loops(x), key=lambda loop: loop.done)
    assert (halving.steps, first.steps, second.steps) == (64, None, 256)
    assert "custom_vjp" in halving.done
    assert first.done == "as it was: only the data know how often it runs"
    assert "slots" in second.done
    assert all("test_checkpointed.py" in loop.line for loop in mine.loops(x))
    close(jax.grad(mine)(x), jax.grad(f)(x))


def test_a_loop_that_would_take_more_with_slots_is_left():
    def f(x):
        def step(carry, t):
            rows, h = carry
            h = jnp.tanh(h + rows[t // 2])
            return (rows.at[t].set(h), h), None

        return jnp.sum(lax.scan(step, (jnp.zeros((200, 512)), x), jnp.arange(200))[0][1])

    x = jnp.ones(512)
    (loop,) = adcost.checkpointed(f).loops(x)
    assert "as it was" in loop.done
    assert "MiB" in loop.done
    assert temp(adcost.checkpointed(f), x) <= temp(f, x)


def test_a_body_without_reverse_mode_is_left_and_says_so():
    def f(x):
        def step(h, _):
            return lax.while_loop(lambda v: jnp.max(v) > 1, lambda v: v / 2, 3 * h), None

        return jnp.sum(lax.scan(step, x, None, length=50)[0])

    x = jnp.ones(4096)
    inner, outer = sorted(adcost.checkpointed(f).loops(x), key=lambda loop: loop.steps or 0)
    assert "only the data know" in inner.done
    assert "its body has no reverse mode (ValueError: Reverse-mode differentiation does not work" in outer.done
    close(jax.jvp(adcost.checkpointed(f), (x,), (x,)), jax.jvp(f, (x,), (x,)))


def test_ways_to_choose():
    def f(x):
        return jnp.sum(steps(x) ** 2)

    x, policy = jnp.linspace(0, 1, 4096), jax.checkpoint_policies.nothing_saveable
    ways = {
        "10 slots": adcost.checkpointed(f, lambda n: binomial(n, 10)),
        "blocks of 8": adcost.checkpointed(f, slots=4, block=8),
        "under the policy": adcost.checkpointed(f, policy=policy),
        "a tail of 0": adcost.checkpointed(f, sqrt(256)),
        "too few": adcost.checkpointed(f, slots=4, block=200),
    }
    for words, mine in ways.items():
        (loop,) = mine.loops(x)
        assert words in loop.done
        close(jax.grad(mine)(x), jax.grad(f)(x))
    with pytest.raises(ValueError, match="one way for all loops"):
        adcost.checkpointed(f, sqrt, slots=3)


def test_sizes_flags_and_functions_stay_as_they_are():
    def f(x, length, act, *, double=False):
        y = lax.scan(lambda h, _: (act(h), None), x, None, length=length)[0]
        return jnp.sum(2 * y if double else y)

    mine, x = adcost.checkpointed(f), jnp.ones(64)
    close(jax.grad(mine)(x, 32, jnp.sin, double=True), jax.grad(f)(x, 32, jnp.sin, double=True))


def test_outputs_that_nobody_reads_are_dropped():
    def f(x):
        return jnp.sum(lax.scan(lambda h, _: (jnp.sin(h), h), x, None, length=1000)[0])

    mine = adcost.checkpointed(f, lambda n: binomial(n, 10))
    assert temp(mine, X) < 20 * 4096 * 8


def test_a_loop_with_a_schedule_of_its_own_keeps_it():
    def f(x):
        return jnp.sum(
            adcost.scan(lambda h, _: (jnp.sin(h), None), x, length=100, schedule=lambda n: binomial(n, 3))[0]
        )

    (loop,) = adcost.checkpointed(f).loops(jnp.ones(8))
    assert loop.done == "3 slots, a tail of 0: its own schedule"
    close(jax.grad(adcost.checkpointed(f))(jnp.ones(8)), jax.grad(f)(jnp.ones(8)))


# ---------------------------------------------------------------- what a review found


@pytest.mark.parametrize("where", [lambda f: f, jax.jit, jax.checkpoint])
def test_a_long_program_is_rewritten_in_time_that_grows_with_it(where):
    def program(count):
        def f(h):
            h = lax.scan(lambda c, x: (jnp.sin(c + x), None), h, jnp.ones((6, 3)))[0]
            for _ in range(count):
                h = jnp.sin(h)
            return h.sum()

        return adcost.checkpointed(where(f), slots=3)

    def calls(count):
        profile = cProfile.Profile()
        profile.runcall(lambda: jax.make_jaxpr(program(count))(jnp.ones(3)))
        return sum(entry.callcount for entry in profile.getstats())

    assert calls(400) - calls(200) < 2.2 * (calls(200) - calls(100))


def test_calls_of_one_function_are_not_written_out():
    block = jax.jit(lambda h: jnp.sin(jnp.cos(h)) * 2)

    def f(h):
        for _ in range(20):
            h = block(h)
        return jnp.sum(lax.scan(lambda c, _: (jnp.sin(c), c), h, None, 50)[1])

    closed = jax.make_jaxpr(adcost.checkpointed(f, slots=3))(jnp.ones(3))
    assert len(closed.jaxpr.eqns) < 40


def test_a_body_with_ordered_effects_is_left_and_scan_refuses_it():
    def step(c, x):
        jax.debug.print("{}", x, ordered=True)
        return jnp.sin(c * x), None

    def f(h):
        return lax.scan(step, h, jnp.arange(1.0, 3))[0]

    (found,) = adcost.checkpointed(f, slots=1).loops(jnp.asarray(2.0))
    assert "its body has effects (OrderedDebugEffect)" in found.done
    np.testing.assert_allclose(jax.jit(adcost.checkpointed(f, slots=1))(jnp.asarray(2.0)), f(2.0))
    with pytest.raises(TypeError, match="effects of an order"):
        adcost.scan(step, 2.0, jnp.arange(1.0, 3), schedule=adcost.sqrt)


def test_loops_inside_a_while_loop_are_listed():
    def f(h):
        inner = lambda c: lax.scan(lambda c, _: (jnp.sin(c) + c, None), c, None, length=50)[0]  # noqa: E731
        return lax.while_loop(lambda c: c.sum() < 9, inner, h).sum()

    assert [found.steps for found in adcost.checkpointed(f).loops(jnp.ones(3) * 0.1)] == [None, 50]


def test_a_method_of_a_class_and_a_size_of_numpy():
    class Model:
        scale = 2.0

        @adcost.checkpointed
        def run(self, x, n):
            return jnp.sum(lax.scan(lambda h, _: (jnp.sin(h * self.scale), None), x, None, length=n)[0])

    x = jnp.ones(3)
    np.testing.assert_allclose(jax.grad(Model().run)(x, np.int64(9)), jax.grad(lambda x: Model.run.f(Model(), x, 9))(x))
