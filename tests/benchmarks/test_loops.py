"""The study ``loops``: right gradients by every method, evaluations as counted, schedules within what they may take."""

import jax
import numpy as np
import pytest
from jax.test_util import check_grads

from adcost.rulers import count
from adcost.suite import campaign
from adcost.suite.vocabulary import Case
from benchmarks.studies import loops
from benchmarks.workloads.loops import FAMILIES

STEPS = 12


def cases(family):
    """A case of each method; of those of ours that come to the same schedule one."""
    params, found = {"family": family, "rows": 16, "width": 32, "steps": STEPS, "budget": 0}, []
    for name, method in loops.METHODS.items():
        for budget in (9,) if name == "budget" else (0,):
            case = Case("loops", name, tuple({**params, "budget": budget}.items()), "float64")
            if method.where(case) and campaign.unavailable(loops.STUDY, case) is None:
                schedule = loops.schedule_of(case) if method.form == "ours" else name
                if schedule not in found:
                    found.append(schedule)
                    yield case


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_computes_the_same_gradient(family):
    for case in cases(family):
        if case.method != "forward":
            program = loops.program(case)
            found = jax.jit(program.run)(*program.inputs())
            for mine, plain in zip(jax.tree.leaves(found), jax.tree.leaves(loops.reference(case)), strict=True):
                np.testing.assert_allclose(mine, plain, rtol=1e-9, atol=1e-14 * np.max(np.abs(plain)), err_msg=case.id)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_gradient_is_that_of_finite_differences(family):
    (case,) = (case for case in cases(family) if case.method == "plain")
    program, learnt = loops.program(case), FAMILIES[family].learnt[0]
    arguments = list(program.inputs())

    def of_learnt(tree):
        arguments[learnt] = tree
        return program.loss(*arguments)

    check_grads(of_learnt, (jax.tree.map(np.asarray, program.inputs()[learnt]),), order=1, modes=["rev"], rtol=1e-6)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.goes_on is None])
def test_steps_are_evaluated_as_often_as_the_schedule_says(family):
    for case in cases(family):
        program = loops.program(case)
        if loops.METHODS[case.method].form == "ours":
            counted = count.count(program.run, *program.shapes())["tanh"]
            assert counted == loops.executions(case) == loops.schedule_of(case).taped_evaluations, case.id


def test_a_loop_that_stops_early_does_so_before_its_last_step():
    (case,) = (case for case in cases("early") if case.method == "slots_ten")
    longer = Case("loops", case.method, tuple({**dict(case.params), "steps": 400}.items()), case.dtype)
    forward = loops.executions(longer.with_method("forward"))
    assert forward == 400  # the masked scan goes on
    assert loops.executions(longer) < 400


def test_schedules_take_what_they_are_said_to_take():
    for steps, each in ((256, 4.0), (1000, 4.0), (48, 33.1), (144, 9.0)):
        two, three = (loops.in_passes(steps, each, passes) for passes in (2, 3))
        assert two.taped_evaluations <= 2 * steps
        assert three.taped_evaluations <= 3 * steps
        assert three.memory(each) <= two.memory(each)
        assert loops.like_remat(steps, each).memory(each) <= steps + each
        evaluations = [loops.of_budget(steps, each, k).taped_evaluations for k in range(1, loops.BUDGETS + 1)]
        assert evaluations == sorted(evaluations, reverse=True)
        assert evaluations[-1] == steps
