"""The count ruler, on programs whose counts are known."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas

from adcost import _jax
from adcost.rulers.count import DynamicTripCount, count, residual_bytes
from adcost.suite.vocabulary import Case
from analysis import theory
from benchmarks import all_studies

A = np.ones((3, 4))
B = np.ones((4, 5))
V = np.ones(4)


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


@pytest.mark.parametrize(
    ("run", "arguments", "flops"),
    [
        (lambda a, b: a @ b, (A, B), 2 * 3 * 4 * 5),
        (lambda v: jnp.tanh(v) + v, (V,), 8),
        (lambda v: jnp.sum(v), (V,), 3),
        (lambda v: lax.scan(lambda h, _: (jnp.sin(h), None), v, None, length=7)[0], (V,), 28),
        (lambda v: lax.fori_loop(2, 9, lambda _, h: jnp.sin(h), v), (V,), 28),
        (lambda v: lax.fori_loop(0, 3, lambda _, h: lax.fori_loop(0, 2, lambda _, k: jnp.sin(k), h), v), (V,), 24),
        (lambda v: jax.jit(jnp.sin)(v), (V,), 4),
        (lambda v: lax.cond(True, jnp.sin, lambda v: jnp.sin(jnp.cos(v)), v), (V,), 8),
        (lambda v: jax.grad(lambda v: jnp.sum(doubled(v)))(v), (V,), 4 + 3 + 4),
        (lambda v: jnp.reshape(v, (2, 2)).T, (V,), 0),
        (lambda i: i + 1, (np.arange(4),), 0),
        (lambda x, k: lax.conv(x, k, (1, 1), "VALID"), (np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3))), 2 * 27 * 18),
    ],
)
def test_flops_of_known_programs(run, arguments, flops):
    assert count(run, *arguments).flops == flops


def test_a_checkpointed_function_counts_what_it_recomputes():
    def f(v):
        return jnp.sum(jax.checkpoint(lambda v: jnp.sin(jnp.sin(v)))(v))

    assert count(jax.grad(f), V)["sin"] == 3  # two forward, the inner one again on the way back
    assert count(jax.grad(lambda v: jnp.sum(jnp.sin(jnp.sin(v)))), V)["sin"] == 2


def dynamic(v, trips):
    return lax.fori_loop(0, trips, lambda _, h: jnp.sin(h), v)


def told(v, count, **in_all):
    return _jax.told_loop(0, count, lambda _, h: jnp.sin(h), v, **in_all)


def test_a_dynamic_loop_is_refused_unless_its_trips_are_assumed_or_told():
    with pytest.raises(DynamicTripCount, match=r"test_counts.py:.* as often as the data say"):
        count(dynamic, V, 3)
    assert (count(dynamic, V, 3, assumed=7)["sin"], count(dynamic, V, 3, assumed=7).assumed) == (7, True)
    found = count(lambda v, n: told(v, n, trips=5), V, 3)
    assert (found["sin"], found.flops, found.told, found.assumed) == (5, 5 * 4, True, False)


def test_trips_are_told_of_many_runs_and_counted_in_all_of_them():
    def outer(v, counts):
        return lax.scan(lambda h, n: (told(h, n, trips=7, runs=3), None), v, counts)[0]

    counts = np.array([1, 2, 4])
    assert count(outer, V, counts)["sin"] == 7
    assert count(lambda v, n: lax.scan(lambda h, _: (outer(h, n), None), v, length=10)[0], V, counts)["sin"] == 70
    moved = count(lambda v, n: jax.jvp(lambda v: jnp.sum(outer(v, n)), (v,), (v,)), V, counts)
    assert (moved["sin"], moved["cos"]) == (7, 7)
    assert count(jax.vmap(outer, (0, None)), np.ones((2, 4)), counts).flops == 2 * 4 * 7


def test_loops_within_a_told_loop_have_told_nothing():
    def nested(v, trips):
        return _jax.told_loop(0, trips, lambda _, h: dynamic(h, trips), v, trips=5)

    with pytest.raises(DynamicTripCount):
        count(nested, V, 3)


def loop(cond, body, start):
    """A while loop over a counter and a vector whose sine each trip takes."""
    return lambda v: lax.while_loop(lambda s: cond(*s), lambda s: (body(s[0]), jnp.sin(s[1])), (start, v))[1]


@pytest.mark.parametrize(
    ("run", "trips"),
    [
        (loop(lambda i, v: i <= 9, lambda i: i + 1, 0), 10),
        (loop(lambda i, v: 9 >= i, lambda i: 1 + i, 0), 10),  # noqa: SIM300
        (loop(lambda i, v: i > 0, lambda i: i - 2, 9), 5),
        (loop(lambda i, v: i < 0, lambda i: i + 1, 9), 0),
        (loop(lambda i, v: i[0] < i[1], lambda i: (i[0] + 1, i[1] - 1), (0, 6)), 3),
        (lambda v: jax.jit(lambda v, n: lax.fori_loop(0, n, lambda _, h: jnp.sin(h), v))(v, 5), 5),
        (lambda v: lax.fori_loop(np.uint8(0), -jnp.uint8(1), lambda _, h: jnp.sin(h), v), 255),
        (lambda v: lax.fori_loop(np.uint8(0), jnp.uint8(200) + jnp.uint8(100), lambda _, h: jnp.sin(h), v), 44),
        (lambda v: jax.vmap(lambda x: lax.fori_loop(0, 4, lambda _, h: jnp.sin(h), x))(v), 4),
    ],
)
def test_trip_counts_that_stand_in_the_program_are_read(run, trips):
    counted = count(run, V)
    assert (counted["sin"], counted.early, counted.caveats) == (trips, False, ())


@pytest.mark.parametrize(
    "cond",
    [lambda i, v: (i < 40) & (jnp.sum(v) > 1e-3), lambda i, v: (jnp.sum(v) > 1e-3) & (40 > i)],  # noqa: SIM300
)
def test_a_loop_that_may_end_early_is_counted_at_most(cond):
    counted = count(loop(cond, lambda i: i + 1, 0), V)
    assert (counted["sin"], counted.early) == (40, True)
    assert counted.caveats == ("at most: a loop may end early",)


@pytest.mark.parametrize(
    "run",
    [
        loop(lambda i, v: jnp.sum(v) > 1e-3, lambda i: i + 1, 0),
        loop(lambda i, v: (i < 40) | (jnp.sum(v) > 1e-3), lambda i: i + 1, 0),
        loop(lambda i, v: i < 40, lambda i: 2 * i, 1),
        loop(lambda i, v: i < 40, lambda i: i, 0),
        lambda v: lax.fori_loop(0, 3, lambda i, h: lax.fori_loop(0, i, lambda _, k: jnp.sin(k), h), v),
        loop(lambda i, v: i > 0, lambda i: i - jnp.uint8(3), np.uint8(10)),  # 174: it wraps past 0
        loop(lambda i, v: i < 250, lambda i: i + jnp.uint8(100), np.uint8(0)),
        loop(lambda i, v: i - 1 < 5, lambda i: i + 1, np.uint32(0)),
    ],
    ids=["data", "or", "doubles", "never", "inner bound", "wraps down", "wraps up", "wraps in the test"],
)
def test_trips_that_are_not_in_the_program_are_not_guessed(run):
    with pytest.raises(DynamicTripCount):
        count(run, V)
    assert count(run, V, assumed=7).assumed


def test_of_branches_that_differ_the_dearest_is_counted_and_that_is_said():
    differing = count(lambda v: lax.cond(v[0] > 0, jnp.sin, lambda v: v, v), V)
    assert differing.flops == 4
    assert differing.caveats == ("at most: branches cost differently, the dearest is counted",)
    assert not count(lambda v: lax.cond(v[0] > 0, jnp.sin, jnp.cos, v), V).caveats


def test_what_has_no_rule_makes_the_count_a_lower_bound():
    counted = count(lambda v: jnp.sin(jax.scipy.special.gammainc(2.0, v)), V)
    assert counted.flops >= 4
    assert counted.caveats == ("at least: the cost of igamma is not known",)


def test_kernels_and_shards_are_counted_as_often_as_they_run():
    def kernel(x, y):
        y[...] = x[...] * 2.0

    def tiled(x):
        return pallas.pallas_call(kernel, jax.ShapeDtypeStruct(x.shape, x.dtype), grid=(3, 2), interpret=True)(x)

    assert count(tiled, V)["mul"] == 6
    assert count(lambda v: pallas.run_state(lambda r: r.__setitem__(0, jnp.sin(r[0])))(v), V).flops == 1
    mesh = jax.sharding.AbstractMesh((8,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.shard_map(jnp.sin, mesh=mesh, in_specs=(jax.P("a"),), out_specs=jax.P("a"))
    assert count(spread, np.ones(16)).flops == 16


def test_typed_keys_and_bfloat16_are_counted():
    noise = count(lambda v: v + jax.random.normal(jax.random.key(0), (4,)), V)
    assert not noise.caveats
    assert count(lambda v: jnp.sin(v), V.astype(jnp.bfloat16)).flops == 4


def test_residuals_of_known_functions():
    assert residual_bytes(lambda v: jnp.sum(jnp.sin(v)), V) == 4 * 8  # cos(v)
    assert residual_bytes(lambda a, b: jnp.sum(a @ b), A, B) == 0  # both are inputs
    assert residual_bytes(lambda v: jnp.sum(jax.checkpoint(jnp.sin)(v)), V) == 0
    assert residual_bytes(lambda a, b: jnp.sum(jnp.sin(a) @ jnp.cos(b)), A, B, argnums=0) == (12 + 20) * 8
    assert residual_bytes(lambda v: jnp.sum(v * jnp.ones(1)), V) == 8
    with pytest.raises(ValueError, match="Reverse-mode"):
        residual_bytes(loop(lambda i, v: jnp.sum(v) > 1e-3, lambda i: i + 1, 0), V)


SMALL = [name for name, method in all_studies()["backprop"].methods.items() if method.differentiates]


@pytest.mark.parametrize("method", SMALL)
def test_schedule_jaxpr_and_real_executions_agree(method):
    study = all_studies()["backprop"]
    for depth in (5, 12):
        case = Case("backprop", method, (("depth", depth), ("width", 3), ("batch", 2)))
        program = study.program(case)
        executed = study.executions(case)
        if study.methods[method].form == "online":
            with contextlib.suppress(DynamicTripCount):
                assert count(program.run, *program.inputs()).early
            slots = 10 if method == "equinox_10" else depth
            offline = theory.optimal_evaluations(depth, min(slots, depth)) + depth  # the tape's account
            assert offline <= executed <= 2 * offline, "an online schedule cannot beat the optimum, and comes near it"
            continue
        counted = count(program.run, *program.inputs())["tanh"]
        if method == "jax_remat_nested":
            assert counted <= executed  # the tap keeps alive recomputations that nobody uses
        else:
            assert counted == executed
        traits = study.methods[method]
        if traits.schedule is not None:
            schedule = traits.schedule(depth)
            assert executed == (schedule.taped_evaluations if traits.form == "taped" else schedule.evaluations)


@pytest.mark.parametrize("method", SMALL)
def test_every_method_computes_the_reference_gradient(method):
    study = all_studies()["backprop"]
    for depth in (1, 6, 13):
        case = Case("backprop", method, (("depth", depth), ("width", 4), ("batch", 3)), "float64")
        program = study.program(case)
        np.testing.assert_allclose(
            jax.jit(program.run)(*program.inputs()), study.reference(case), rtol=1e-10, atol=1e-15
        )
