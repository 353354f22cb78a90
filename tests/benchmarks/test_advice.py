"""The study ``advice``: right gradients, choices that fit, and the field's cases within what is noted there."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adcost
from adcost.arguments import gradient
from adcost.checkpointing.values import is_array
from adcost.rulers import process, told
from adcost.rulers.subject import Subject
from adcost.suite import campaign
from adcost.suite.vocabulary import Case
from adcost.targets import TARGETS
from benchmarks import ROOT
from benchmarks.studies import advice
from benchmarks.workloads.programs import PROGRAMS
from tests.adcost.test_field_loops import CASES, NOT_YET
from tests.field.case import PLAIN

STEPS = {"unrolled": 3, "scan": 12, "theirs": 16}  # in small
ALL_WAYS = ("gru", "perceptron")  # programs with a loop, and without, whose gradient is made in every way
MIB = 2**20


def cases(name):
    """A case of each method."""
    program = PROGRAMS[name]
    for package in program.packages:
        pytest.importorskip(package)
    params = ("program", name), ("steps", STEPS[program.form])
    made = [Case("advice", method, params, "float32") for method in advice.METHODS]
    return [
        case
        for case in made
        if advice.METHODS[case.method].where(case) and campaign.unavailable(advice.STUDY, case) is None
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_way_gives_the_same_gradient(name):
    with jax.enable_x64(False):
        for case in cases(name):
            if case.method == "forward" or case.method.startswith("advised"):
                continue
            if name not in ALL_WAYS and case.method not in ("plain", "keep_nothing", "sqrt", "four_parts"):
                continue  # they take long to compile, and a run checks every gradient
            program = advice.program(case)
            found = jax.jit(program.run)(*program.inputs())
            for mine, right in zip(jax.tree.leaves(found), jax.tree.leaves(advice.reference(case)), strict=True):
                error = np.max(np.abs(mine - right)) / max(np.max(np.abs(right)), 1e-30)
                assert error <= advice.STUDY.tolerance(case), case.id


def test_the_programs_are_what_the_question_asks_for():
    forms = [program.form for program in PROGRAMS.values()]
    assert len(forms) >= 10
    assert forms.count("unrolled") >= 3
    assert len({package for program in PROGRAMS.values() for package in program.packages}) >= 5


def subject(method):
    """A case of the study in small, on the CPU."""
    params = ("program", "gru"), ("steps", 32)
    return Subject(Case("advice", method, params, "float32"), advice.STUDY, TARGETS["cpu"])


def test_what_is_chosen_is_told():
    pytest.importorskip("equinox")
    with jax.enable_x64(False):
        found = {number.quantity: number for number in told.take(subject("advised_25"))}
        assert found["fits"].value == 1
        assert found["advised total"].value <= found["budget"].value
        assert found["work / plain"].value > 1
        (chosen,) = found["budget"].flags
        assert chosen
        assert list(told.take(subject("plain"))) == []


JOB = """
import jax, jax.numpy as jnp
from adcost.rulers.limited import lives

def run(w, x):
    return jnp.sum(jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, None, length=100)[0])

w, x = jnp.ones((256, 256)) / 256, jnp.ones((512, 256))
compiled = jax.jit(jax.grad(run)).lower(w, x).compile()
analysis = compiled.memory_analysis()
needed = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
jax.block_until_ready(compiled(w, x))
print(needed > 50 * 2**20, *(lives(lambda: compiled(w, x), int(part * needed)) for part in (1.02, 0.5, 0.95, 1.02)))
freed = [bytearray(100_000) for _ in range(1000)]
above = freed.pop()  # a hole in the heap, larger than what the job takes
freed.clear()
print(*(lives(lambda: compiled(w, x), int(part * needed)) for part in (0.5, 0.95, 1.02)))
"""


def test_a_job_lives_within_what_it_takes_and_dies_below():
    """In a process whose allocator keeps nothing, as that of the ruler."""
    environment = {**os.environ, **process.ALLOCATOR, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", JOB], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True", "False", "False", "True", "False", "False", "True"], done.stderr


BOUNDED = [case for case in CASES if "temp_at_most_mib" in case.right]


@pytest.mark.parametrize("case", BOUNDED, ids=lambda case: case.name)
def test_what_is_advised_for_the_field_is_right_and_fits(case):
    for name in case.needs:
        pytest.importorskip(name)
    with jax.enable_x64(False):
        f, args = case.make()
        plain = adcost.plan(gradient(f), *args)
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype) if is_array(a) else a, args)
        budget = plain.total - plain.temp + int(1.02 * case.right["temp_at_most_mib"] * MIB)  # noted with two digits
        found = adcost.advise(f, *shapes, memory=budget)
        if case.name in NOT_YET:
            assert found.best is None, "it fits now: take it off the list"
            return
        assert found.best.plan.total <= budget
        if case.right.get("gradient") is not PLAIN or any(isinstance(a, jax.ShapeDtypeStruct) for a in args):
            return
        right = [leaf for leaf in jax.tree.leaves(gradient(f)(*args)) if is_array(leaf)]
        for mine, theirs in zip(jax.tree.leaves(found.best.apply(*args)), right, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-5 * max(1e-30, float(jnp.abs(theirs).max())))
