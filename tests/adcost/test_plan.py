"""``plan``: the same bytes in this process and in another one, what it refuses, what it cannot see."""

import contextvars
import time
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

import adcost
from adcost import TARGETS, _jax
from adcost.display import in_words
from adcost.plan import Plan, memory_bytes, planned, traced
from adcost.targets import elsewhere
from adcost.targets.compiling import compile_for, planned_bytes
from adcost.targets.elsewhere import CompilerFailed, planned_elsewhere

H100 = TARGETS["nvidia-h100"]
needs_gpu_compiler = pytest.mark.skipif(H100.unavailable() is not None, reason="the compiler of GPUs is not installed")
N = 200


def loss(w, h, remat=False):
    def step(h, _):
        return jnp.tanh(h @ w), None

    return jnp.sum(lax.scan(jax.checkpoint(step) if remat else step, h, None, length=N)[0] ** 2)


SHAPES = jax.ShapeDtypeStruct((32, 32), "float32"), jax.ShapeDtypeStruct((64, 32), "float32")
CARRY = 64 * 32 * 4


def test_a_plan_is_what_the_compiler_says():
    plan = adcost.plan(jax.grad(loss), *SHAPES)
    own = planned_bytes(compile_for(jax.grad(loss), *SHAPES))
    assert {name: getattr(plan, name) for name in own} == own
    assert plan.arguments == 4 * (32 * 32 + 64 * 32)
    assert plan.temp > N * CARRY
    assert adcost.plan(partial(jax.grad(loss), remat=True), *SHAPES).temp < plan.temp


def test_another_process_plans_the_same():
    program = traced(jax.grad(loss), *SHAPES)
    exported = _jax.exported(jax.grad(loss), SHAPES, None, "cpu", [])
    here = planned(program, TARGETS["cpu"], None)
    there = planned_elsewhere(bytes(exported.serialize()), (), TARGETS["cpu"])
    assert there.sizes["total"] == here.total
    assert {tuple(row["path"][0]) for row in there.told.alive if row["path"]} == {
        tuple(row.path[0]) for row in here.peak.rows if row.path
    }


def test_equal_programs_of_other_lines_have_their_own_lines():
    def other(w, h):
        return jnp.sum(lax.scan(lambda h, _: (jnp.tanh(h @ w), None), h, None, length=N)[0] ** 2)

    def same(w, h):
        return jnp.sum(lax.scan(lambda h, _: (jnp.tanh(h @ w), None), h, None, length=N)[0] ** 2)

    lines = [{row.line.line for row in adcost.plan(jax.grad(f), *SHAPES).peak.rows if row.line} for f in (other, same)]
    assert lines[0]
    assert lines[1] == {line + 3 for line in lines[0]}


@needs_gpu_compiler
def test_a_gpu_that_is_not_here():
    plain, remat = (
        adcost.plan(partial(jax.grad(loss), remat=remat), *SHAPES, target="nvidia-h100") for remat in (0, 1)
    )
    assert plain.memory == H100.memory
    assert plain.fits
    assert N * CARRY < remat.temp < 1.2 * N * CARRY < plain.temp
    assert remat.flops > plain.flops


@needs_gpu_compiler
def test_donated_arguments_are_donated_elsewhere_too():
    @partial(jax.jit, donate_argnums=0)
    def step(state, x):
        return state + x

    big = jax.ShapeDtypeStruct((1000, 1000), "float32")
    for target in ("cpu", "nvidia-h100"):
        plan = adcost.plan(step, big, big, target=target)
        assert plan.alias == 4_000_000
        assert plan.total == 8_000_000


@needs_gpu_compiler
def test_float64_and_keys_cross_to_another_process():
    def f(key, x):
        return jnp.sum(jax.random.normal(key, (1000,), "float64") * x)

    key = jax.random.key(0)
    found = adcost.plan(f, key, jax.ShapeDtypeStruct((1000,), "float64"), target="nvidia-h100")
    assert found.arguments == 8 * 1000 + 8


def test_arguments_that_are_no_arrays_stay_what_they_are():
    def f(x, times, act, flag=True):
        for _ in range(times):
            x = act(x) if flag else x
        return x

    assert adcost.plan(f, jax.ShapeDtypeStruct((10,), "float32"), 3, jnp.sin).flops == 30


def test_the_flops_of_a_schedule_are_counted():
    plain = adcost.plan(jax.grad(loss), *SHAPES)
    two = adcost.plan(jax.grad(adcost.checkpointed(loss, adcost.sqrt)), *SHAPES)
    per_step = 2 * 64 * 32 * 32  # a product
    more = adcost.sqrt(N).taped_evaluations - N
    assert (two.flops - plain.flops) / per_step == pytest.approx(more, rel=0.1)
    assert two.caveats == ()


@needs_gpu_compiler
def test_what_the_plan_cannot_see_is_said():
    def printing(x):
        jax.debug.print("{}", x)
        return jnp.sum(jnp.sin(x))

    x = jax.ShapeDtypeStruct((100,), "float32")
    assert "called back" in adcost.plan(printing, x, target="nvidia-h100").unseen[0]
    assert "called back" in adcost.plan(printing, x).unseen[0]
    solve = adcost.plan(
        jnp.linalg.solve, jax.ShapeDtypeStruct((8, 8), "float32"), jax.ShapeDtypeStruct((8,), "float32")
    )
    assert "LAPACK" in solve.unseen[0]

    def in_order(x):
        jax.debug.print("{}", x, ordered=True)
        return jnp.sum(x)

    with pytest.raises(ValueError, match=r"test_plan.py:.* keeps an order, which needs nvidia-h100 itself"):
        adcost.plan(in_order, x, target="nvidia-h100")

    def asking(x):
        return jnp.sum(jax.pure_callback(np.sin, x, x))

    for target in ("cpu", "nvidia-h100"):
        found = adcost.plan(asking, x, target=target)
        assert "what it gives" in found.unseen[0]
        assert found.arguments == 400
        assert found.temp >= 400  # what is called gives as much


def test_a_budget_says_whether_it_fits():
    fits = adcost.plan(jax.grad(loss), *SHAPES, memory="1 GiB")
    assert (fits.memory, fits.fits) == (2**30, True)
    tight = adcost.plan(jax.grad(loss), *SHAPES, memory=10_000)
    assert tight.fits is False
    assert "does not fit into 9.77 KiB" in str(tight)
    assert "1 GiB" in str(fits)


@pytest.mark.parametrize(
    ("memory", "size"),
    [
        ("16 GiB", 16 * 2**30),
        ("16GB", 16 * 10**9),
        ("1.5 mib", 3 * 2**19),
        ("500", 500),
        (7, 7),
        ("2e3 B", 2000),
        (1e9, 10**9),
    ],
)
def test_memory_is_read_in_bytes(memory, size):
    assert memory_bytes(memory, TARGETS["cpu"]) == size


@pytest.mark.parametrize(
    "memory", ["1e400 GiB", "lots", "", "-3", "0", 0, -1, "nan", "inf", True, "16 GiBs", "1.2.3 GB", float("nan")]
)
def test_nonsense_is_no_memory(memory):
    with pytest.raises(ValueError, match=r"is no memory: give bytes, or a number with a unit") as found:
        adcost.plan(loss, *SHAPES, memory=memory)
    assert "\n" not in str(found.value)


@given(st.integers(1, 10**15))
def test_sizes_in_words_can_be_read_back(size):
    assert memory_bytes(in_words(size), TARGETS["cpu"]) == pytest.approx(size, rel=0.01, abs=1)


def test_the_memory_of_the_target_is_taken():
    assert memory_bytes(None, H100) == H100.memory
    here = memory_bytes(None, TARGETS["cpu"])
    assert here is None or here > 2**28
    assert memory_bytes(None, TARGETS["gpu"]) is None
    assert Plan("gpu", 5, 1, 2, 2, 0, 0, None, 3).fits is None


def test_unknown_targets_are_listed():
    with pytest.raises(ValueError, match="unknown target 'h100'; choose from: cpu"):
        adcost.plan(loss, *SHAPES, target="h100")


def test_a_program_that_a_compiler_refuses_says_why():
    with pytest.raises(CompilerFailed) as found:
        planned_elsewhere(b"no program", (), TARGETS["cpu"])
    assert "\n" not in str(found.value)


@needs_gpu_compiler
def test_arguments_that_are_not_used_are_nowhere_held():
    w, x = jax.ShapeDtypeStruct((1024, 1024), "float32"), jax.ShapeDtypeStruct((1024, 64), "float32")

    def f(w, x):
        return (w @ x).sum()

    for target in ("cpu", "nvidia-h100"):
        assert adcost.plan(jax.grad(f), w, x, target=target).arguments == 4 * 1024 * 64
    last = partial(jax.jit, donate_argnums=(0, 1))(lambda unused, x: x + 1)
    found = adcost.plan(last, w, x, target="nvidia-h100")
    assert (found.arguments, found.alias) == (4 * 1024 * 64, 4 * 1024 * 64)


@needs_gpu_compiler
def test_a_compiler_that_was_killed_while_idle_is_replaced():
    x = jax.ShapeDtypeStruct((64, 64), "float32")
    adcost.plan(lambda x: x @ x, x, target="nvidia-h100")
    for worker in elsewhere._idle["nvidia-h100"]:
        worker.process.kill()
        worker.process.wait()
    assert adcost.plan(lambda x: x @ x + 1, x, target="nvidia-h100").fits


def test_an_interrupt_drops_what_has_not_begun():
    begun = []

    def slow(i):
        begun.append(i)
        time.sleep(0.2)

    def interrupted():
        with elsewhere.at_once() as submit:
            for i in range(100):
                submit(slow, i)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    time.sleep(0.5)
    assert len(begun) < 10


def test_threads_have_the_settings_of_their_caller():
    asked = contextvars.ContextVar("asked")
    asked.set(7)
    with jax.enable_x64(False), jax.default_matmul_precision("highest"), elsewhere.at_once() as submit:
        found = submit(lambda: (asked.get(), jax.config.jax_default_matmul_precision, jnp.zeros(1, float).dtype))
        assert found.result() == (7, "highest", jnp.float32)
    assert jnp.zeros(1, float).dtype == jnp.float64


def test_arguments_on_several_devices_by_another_sharding_are_refused():
    class Sharded:
        shape, dtype, sharding = (4,), np.dtype("float32"), SimpleNamespace(device_set={1, 2, 3, 4})

    with pytest.raises(ValueError, match="lies on 4 devices by a SimpleNamespace: give a NamedSharding"):
        adcost.plan(jnp.sin, Sharded())


def test_a_method_called_trace_makes_no_compiled_function():
    class Operator:
        def __call__(self, x):
            return 2 * x

        def trace(self):
            return 4.0

    assert adcost.plan(Operator(), jax.ShapeDtypeStruct((10,), "float32")).arguments == 40


@needs_gpu_compiler
def test_what_a_device_has_no_rule_for_is_said():
    with pytest.raises(CompilerFailed) as found:
        adcost.plan(jax.scipy.linalg.schur, jax.ShapeDtypeStruct((4, 4), "float32"), target="nvidia-h100")
    assert "\n" not in str(found.value)
