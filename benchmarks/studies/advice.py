"""What ``adcost.advise`` chooses within a memory, held against everything else that fits.

Twelve programs of other people's packages. Each is differentiated in every way that ``advise`` tries without a number
to be found, as peers do it, and as ``advise`` says for four budgets, by plans alone. A budget lies between what no way
of saving touches (arguments, results) and what plain backprop plans. What is chosen depends on the target, for its
compiler is asked.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from adcost.advise import advise
from adcost.candidates import Features, candidates
from adcost.plan import plan
from adcost.suite.vocabulary import Case, Method, Params, Program, Study, once_a_size
from adcost.targets import TARGETS, Target
from benchmarks.studies.loops import equinox as equinox_loop
from benchmarks.studies.loops import nested as nested_loop
from benchmarks.workloads.programs import PROGRAMS, Loss, made

Way = Callable[[Case, Loss, Target], Loss]  # the loss in another way
SHARES = (75, 50, 25, 10)  # per cent of what plain backprop plans for what lives inside the program


# Methods: each takes a case, its loss and the target.


def as_it_is(case: Case, loss: Loss, target: Target) -> Loss:
    """Plain backprop."""
    return loss


def candidate(name: str) -> Way:
    """A way that ``advise`` tries, by its name; policies are laid on the bodies of loops or on the whole."""

    def way(case: Case, loss: Loss, target: Target) -> Loss:
        unrolled = PROGRAMS[case.word("program")].form == "unrolled"
        known = candidates(Features(not unrolled, (), unrolled, True), target)
        names = name, f"{name}, {'whole' if unrolled else 'loop bodies'}"
        (found,) = (one for one in known if one.name in names)
        return found.apply(loss)

    return way


def peer(loop: Callable[[Case], Callable[..., Any]]) -> Way:
    """Another loop in the place of ``lax.scan``."""

    def way(case: Case, loss: Loss, target: Target) -> Loss:
        by, _ = arguments_and_loss(case)
        return by(lambda step, start, xs, length: loop(case)(step, start, xs, length))

    return way


def _with_loops(case: Case) -> bool:
    return PROGRAMS[case.word("program")].form != "unrolled"


def _unrolled(case: Case) -> bool:
    return not _with_loops(case)


def _own_loop(case: Case) -> bool:
    """Does the user write the loop, so that another can stand in its place?"""
    return PROGRAMS[case.word("program")].form == "scan"


def _method(label: str, way: Way = as_it_is, **traits: Any) -> Method:
    return Method(way, label=label, extra=("programs", "exponax"), **traits)  # with whose extra the others come


def _candidate(name: str, label: str, **traits: Any) -> Method:
    return _method(label, candidate(name), form="candidate", **traits)


ADVISED = {f"advised_{share}": share for share in SHARES}
FEW = ("advised_50", "advised_10")  # those of the quick profile
METHODS = {
    "plain": _method("plain backprop", followed=True),
    "keep_nothing": _candidate("keep nothing", "jax.checkpoint by hand, nothing kept", followed=True),
    "keep_products": _candidate("keep products", "jax.checkpoint by hand, dots_saveable"),
    "keep_weighted": _candidate("keep products without batch", "jax.checkpoint by hand, dots_with_no_batch_dims"),
    "two_passes": _candidate("two passes", "adcost.checkpointed", where=_with_loops, followed=True),
    "sqrt": _candidate("sqrt", "adcost.checkpointed by adcost.sqrt", where=_with_loops),
    "in_parts": _candidate("in parts", "adcost.in_parts", where=_unrolled),
    "four_parts": _candidate("4 parts", "adcost.in_parts, four", where=_unrolled),
    "nested": _method("nested scans under jax.checkpoint (jax #2139)", peer(nested_loop), where=_own_loop),
    "equinox": _method("Equinox's checkpointed loop", peer(equinox_loop), where=_own_loop, followed=True),
    **{
        name: _method(f"as advised within {share}% of plain's temporary memory", form="advised", followed=name in FEW)
        for name, share in ADVISED.items()
    },
    "forward": _method("the loss alone", differentiates=False, followed=True),
}


# Programs.


def arguments_and_loss(case: Case) -> tuple[Callable[..., Loss], tuple[Any, ...]]:
    """The loss by the scan that it uses, and its arguments."""
    return made(case.word("program"), case["steps"])


@once_a_size
def inputs(case: Case) -> tuple[Any, ...]:
    """Arguments of the loss."""
    return jax.tree.map(lambda a: np.asarray(a, case.dtype), arguments_and_loss(case)[1])


def shapes(case: Case) -> tuple[Any, ...]:
    """Shapes and dtypes of the arguments."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), inputs(case))


def program(case: Case, target: Target = TARGETS["cpu"]) -> Program:
    """The gradient of a program's loss in a method's way on a target; of ``forward`` the loss."""
    by, _ = arguments_and_loss(case)
    method, loss = METHODS[case.method], by(lax.scan)
    given = Program(loss, partial(inputs, case), shapes=partial(shapes, case))
    if not method.differentiates:
        return given
    if method.form == "advised":
        return advised(case, given, loss, target)
    way = method.build(case, loss, target)
    return replace(given, run=jax.grad(way), loss=way)


def advised(case: Case, given: Program, loss: Loss, target: Target) -> Program:
    """What ``advise`` chooses within the budget, by plans alone: shapes are not timed."""
    budget = granted(case, ADVISED[case.method], target)
    start = time.perf_counter()
    advice = advise(loss, *shapes(case), memory=budget, target=target, progress=False)
    seconds = time.perf_counter() - start
    chosen = advice.best or advice.rows[0]  # where nothing fits, what takes least
    assert chosen.plan is not None
    facts = {
        "budget": (float(budget), "B"),
        "fits": (float(advice.best is not None), "1"),
        "advised total": (float(chosen.plan.total), "B"),
        "work / plain": (float(chosen.ratio or 0.0), "1"),
        "ways that were tried": (float(len(advice.rows)), "ways"),
        "time to advise": (seconds, "s"),
    }
    return replace(given, run=jax.grad(chosen.loss), loss=chosen.loss, facts=facts, remark=chosen.name)


def granted(case: Case, share: int, target: Target) -> int:
    """Bytes that a gradient may take: plain's plan, of what lives inside the program so many per cent."""
    by, _ = arguments_and_loss(case)
    taken = plan(jax.grad(by(lax.scan)), *shapes(case), target=target)
    return taken.total - taken.temp * (100 - share) // 100


@once_a_size
def reference(case: Case) -> Any:
    """The plain program's gradient in float64, inputs included."""
    with jax.enable_x64(True):
        by, _ = arguments_and_loss(case)
        exact = jax.tree.map(lambda a: jnp.asarray(a, "float64"), inputs(case))
        return jax.tree.map(np.asarray, jax.jit(jax.grad(by(lax.scan)))(*exact))


def size(name: str) -> Params:
    return {"program": name, "steps": PROGRAMS[name].steps}


STUDY = Study(
    name="advice",
    question="Is what adcost.advise chooses within a memory the best of what fits?",
    methods=METHODS,
    sizes={"quick": [size("gru")], "full": [size(name) for name in PROGRAMS]},
    program=program,
    for_target=program,
    reference=reference,
    tolerance=lambda case: PROGRAMS[case.word("program")].tolerance,
    baselines=("plain", "forward"),
    together=("program", "steps"),
    in_turn=("program", "steps"),
    besides={"quick": {"steps": ()}},
)
