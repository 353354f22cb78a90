"""Targets: what compilers say of known programs, how a largest size is sought, and the seam to an attached device."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from adcost.rulers.device import allocator_peak
from adcost.rulers.fit import fitting
from adcost.suite.messages import Lay
from adcost.suite.probes import probes
from adcost.suite.vocabulary import Case
from adcost.targets import GPUS, TARGETS, TPUS, Target, parse_targets, text_proto
from adcost.targets.compiling import compile_for, planned_bytes
from adcost.targets.program_text import UnknownTripCount, matrix_products
from benchmarks import ROOT, study_folders

A = np.ones((8, 8), np.float32)


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_is_described_to_its_compiler(name):
    proto, gpu = text_proto(GPUS[name]), GPUS[name]
    assert f"core_count: {gpu.multiprocessors}" in proto
    assert f"device_memory_size: {gpu.memory}" in proto
    assert proto.count("{") == proto.count("}")
    target = TARGETS[name]
    assert (target.attached, target.memory) == (False, gpu.memory)


def test_every_process_is_told_where_to_run():
    assert set(TARGETS) == {"cpu", "cpu-1thread", "cpu-nommap", "gpu", *GPUS, *TPUS}
    for target in TARGETS.values():
        assert target.environment["JAX_PLATFORMS"] == ("cuda" if target.name == "gpu" else "cpu")


def test_targets_are_parsed_once_each_and_in_order():
    assert [target.name for target in parse_targets("nvidia-h100,cpu,cpu")] == ["nvidia-h100", "cpu"]


def test_a_compiler_that_is_not_installed_says_how_to_install_it():
    absent = Target("tpu-v9", False, extra=("targets-tpu", "no_such_package.plugin"))
    assert absent.unavailable() == "no_such_package.plugin is not installed: pip install -e '.[targets-tpu]'"
    assert TARGETS["cpu"].unavailable() is None


@given(st.integers(0, 2000), st.integers(0, 100), st.sampled_from([0.5, 1.0, 1.7]), st.integers(1, 5000))
def test_the_largest_size_that_fits_is_found_exactly(memory, fixed, power, most):
    def total(n):
        return fixed + int(3 * n**power)

    largest, needed = fitting(total, memory, most)
    fits = [n for n in range(1, most + 1) if total(n) <= memory]
    assert largest == (fits[-1] if fits else 0)
    assert needed == (total(largest) if fits else 0)


@given(st.integers(0, 10**6), st.integers(0, 1000), st.sampled_from([0.5, 1.0, 1.7]))
def test_a_size_that_need_not_be_exact_still_fits(memory, fixed, power):
    def total(n):
        return fixed + int(3 * n**power)

    exact, found = (fitting(total, memory, 10**5, precision)[0] for precision in (0.0, 0.01))
    assert found <= exact <= max(found + 1, 1.01 * found)


def test_few_compilations_are_needed():
    tried = []

    def total(n):
        tried.append(n)
        return 10**9 + 3 * 10**7 * n

    assert fitting(total, 85 * 10**9, 2**14)[0] == 2800
    assert len(tried) <= 8


def test_a_compiler_that_refuses_for_want_of_memory_has_answered():
    def total(n):
        if n > 70:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: it does not fit")
        return n

    assert fitting(total, 100, 1000) == (70, 70)


# What NVIDIA's allocator reports through JAX, by name; the numbers are made up.
REPORT = {
    "num_allocs": 12,
    "bytes_in_use": 1000,
    "peak_bytes_in_use": 1500,
    "largest_alloc_size": 800,
    "bytes_limit": 63_000_000_000,
    "bytes_reserved": 0,
    "peak_bytes_reserved": 0,
    "bytes_reservable_limit": 0,
    "largest_free_block_bytes": 0,
    "pool_bytes": 2_097_152,
    "peak_pool_bytes": 2_097_152,
}


def test_the_peak_of_an_allocator_is_above_what_was_in_use():
    assert allocator_peak({**REPORT, "peak_bytes_in_use": 1000}, {**REPORT, "peak_bytes_in_use": 9000}) == 8000


def test_a_peak_older_than_the_program_is_refused():
    with pytest.raises(ValueError, match="needs a process of its own"):
        allocator_peak(REPORT, REPORT)


def test_a_device_without_statistics_is_refused():
    with pytest.raises(ValueError, match="reports no allocator statistics"):
        allocator_peak(jax.devices("cpu")[0].memory_stats(), None)


def scanned(f, trips):
    return lambda a: lax.scan(lambda h, _: (f(h), None), a, None, length=trips)[0]


@pytest.mark.parametrize(
    ("run", "products"),
    [
        (lambda a: a + a, 0),
        (lambda a: a @ a, 1),
        (lambda a: jnp.tanh(a @ a) @ a, 2),
        (scanned(lambda h: jnp.tanh(h @ h), 7), 7),
        (scanned(scanned(lambda h: jnp.tanh(h @ h), 3), 5), 15),
        (jax.grad(lambda a: jnp.sum(scanned(lambda h: jnp.tanh(h @ A), 6)(a))), 12),
    ],
)
def test_products_of_known_programs(run, products):
    a = A / 8
    assert matrix_products(jax.jit(run).lower(a).compile().as_text()) == products


def test_a_loop_that_only_the_data_bound_is_refused():
    def run(a, n):
        return lax.fori_loop(0, n, lambda _, h: jnp.tanh(h @ h), a)

    with pytest.raises(UnknownTripCount):
        matrix_products(jax.jit(run).lower(A, 3).compile().as_text())


WHILE = """\
%body (p: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {{
  %d = f32[8,8] dot(%h, %h)
}}
%cond (p: (s32[], f32[8,8])) -> pred[] {{
  %n = s32[]{{:T(128)}} constant({bound})
  ROOT %lt = pred[]{{:T(256)}} compare(%i, %n), direction={direction}
}}
ENTRY %main (a: f32[8,8]) -> f32[8,8] {{
  %w = (s32[], f32[8,8]) while(%t), condition=%cond, body=%body
}}
"""


def test_a_tpus_loop_is_counted_by_its_bound():
    assert matrix_products(WHILE.format(bound=7, direction="LT")) == 7
    with pytest.raises(UnknownTripCount):
        matrix_products(WHILE.format(bound=7, direction="GT"))


def asked(target, *cases, rulers=("compiler", "compile")):
    """What a probe replies that has been told where to run."""
    with probes(TARGETS[target], study_folders()) as ask:
        return [list(ask(Lay(case, target, rulers), 300)) for case in cases]


def case(study, method, **params):
    return Case(study, method, tuple(params.items()))


H100 = pytest.mark.skipif(TARGETS["nvidia-h100"].unavailable() is not None, reason="needs the extra targets-gpu")


@H100
def test_an_h100_needs_what_was_found_before():
    """n = 144, width 64, batch 4096: 144.0 activations unrolled, 25.3 with checkpoints; a schedule's slots and 3.0."""
    size = {"depth": 144, "width": 64, "batch": 4096}
    methods = {"vanilla_unrolled": 144.0, "jax_remat_unrolled": 25.3, "sqrt": 23 + 3.0, "binomial_10": 10 + 3.0}
    cases = [case("backprop", method, **size) for method in methods]
    for expected, replies in zip(methods.values(), asked("nvidia-h100", *cases), strict=True):
        numbers = {reply.number.quantity: reply.number.value for reply in replies}
        assert numbers["temp"] / (64 * 4096 * 4) == pytest.approx(expected, abs=0.06)
        assert numbers["device memory"] == GPUS["nvidia-h100"].memory
        assert numbers["compile time"] > 0
        assert not any("time" in quantity for quantity in numbers if quantity != "compile time")


@H100
def test_a_programs_size_does_not_matter_to_its_compiler():
    """The largest depth that fits, without an array of that size ever being made."""
    (replies,) = asked("nvidia-h100", case("backprop", "store_all", width=1024, batch=2**18), rulers=("fit",))
    numbers = {reply.number.quantity: reply.number for reply in replies}
    assert numbers["largest depth"].value == 75
    assert numbers["largest depth"].flags == ()
    assert 0 < numbers["bytes at the largest"].value <= GPUS["nvidia-h100"].memory


@H100
def test_a_compiler_in_a_process_without_its_settings_says_what_it_needs():
    with pytest.raises(RuntimeError, match=r"a process that was started with .*CUDA_VISIBLE_DEVICES=-1"):
        compile_for(jnp.sin, A, target="nvidia-h100")


def test_a_program_is_not_compiled_for_another_device_than_was_asked_for(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(RuntimeError, match="JAX runs on gpu in this process, not on cpu"):
        compile_for(jnp.sin, A)


def test_a_program_of_known_size_is_planned_on_the_cpu():
    shape = jax.ShapeDtypeStruct((256, 256), "float32")
    planned = planned_bytes(compile_for(lambda a: jnp.tanh(a @ a) @ a, shape))
    assert planned["arguments"] == planned["outputs"] == 256 * 256 * 4
    assert planned["total"] == planned["temp"] + planned["arguments"] + planned["outputs"]


def test_without_a_gpu_the_reason_is_one_line(tmp_path):
    out = tmp_path / "out.json"
    environment = {**os.environ, "TARGETS": "gpu", "JOURNALS": str(tmp_path / "j")}
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "-q", f"--benchmark-json={out}"]
    subprocess.run([*command, "-k", "backprop-sqrt-depth4-"], cwd=ROOT, env=environment, capture_output=True)
    (record,) = [record for record in json.loads(out.read_text())["more_records"] if record["target"] == "gpu"]
    (gap,) = record["missing"]
    assert gap["target"] == "gpu"
    assert gap["reason"] in ("no GPU is attached", "jax_plugins.xla_cuda12 is not installed: pip install -e '.[cuda]'")


def test_an_argument_that_is_donated_is_planned_once():
    shape = jax.ShapeDtypeStruct((256, 256), "float32")
    in_place = planned_bytes(compile_for(jax.jit(lambda a: a + 1, donate_argnums=0), shape))
    assert in_place["alias"] == 256 * 256 * 4
    assert in_place["total"] == planned_bytes(compile_for(lambda a: a + 1, shape))["total"] / 2


def test_static_arguments_stay_what_they_are():
    shape = jax.ShapeDtypeStruct((256,), "float32")
    assert compile_for(jax.jit(lambda a, n: a * n, static_argnums=1), shape, 3)
    assert compile_for(lambda a, s: a * s, shape, 2.0)


CALLS_BACK = """
import jax, numpy as np
from adcost import compile_for

def calls(a):
    return jax.lax.map(lambda a: jax.pure_callback(lambda a: a, a, a), a)

def prints(a):
    jax.debug.print("{}", a[0])
    return a

for run in (calls, prints):
    assert compile_for(run, np.ones(3))
    try:
        compile_for(run, np.ones(3), target="nvidia-h100")
    except ValueError as error:
        print(error)
"""


@H100
def test_a_callback_for_an_absent_device_is_refused_by_name():
    environment = {**os.environ, **TARGETS["nvidia-h100"].environment}
    done = subprocess.run([sys.executable, "-c", CALLS_BACK], cwd=ROOT, env=environment, capture_output=True, text=True)
    calls, prints = done.stdout.splitlines()
    assert calls == "pure_callback calls back into Python, which needs nvidia-h100 itself: plan it where one is"
    assert prints.startswith("debug_")


HOSTED = """
import jax, jax.numpy as jnp, adcost

n, carry = 400, jax.ShapeDtypeStruct((65536,), "float32")
step = lambda u, _: (u + 0.01 * jnp.sin(u) * jnp.roll(u, 1), None)
for made in (adcost.sqrt(n), adcost.binomial(n, 30)):
    for schedule in (made, made.on_host()):
        f = jax.grad(lambda u: jnp.sum(adcost.scan(step, u, None, n, schedule=schedule)[0] ** 2))
        planned = adcost.planned_bytes(adcost.compile_for(f, carry, target="nvidia-h100"), "nvidia-h100")
        print(schedule.slots, round(planned["temp"] / 2**18), round(planned.get("host", 0) / 2**18))
"""


@H100
def test_slots_on_the_host_are_planned_there_and_leave_the_device():
    environment = {**os.environ, **TARGETS["nvidia-h100"].environment}
    done = subprocess.run([sys.executable, "-c", HOSTED], cwd=ROOT, env=environment, capture_output=True, text=True)
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(rows) == 4, done.stderr
    for (slots, device, none), (_, beside, host) in zip(rows[::2], rows[1::2], strict=True):
        assert none == 0
        assert slots - 1 <= device <= slots + 4
        assert host == slots - 1, "the first slot is the input itself"
        assert beside <= 4
