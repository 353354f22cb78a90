"""Any loop by a schedule, beside what people write today: memory, evaluations and time of a gradient.

The lecture's chain has equal layers with weights of their own. The loops of this study are those of solvers, recurrent
networks, stacks of blocks, filters and iterations that stop when they are done: they close over their parameters, take
an input each step and give outputs. Peers are plain ``lax.scan``, ``jax.checkpoint`` of its body, nested scans under
``jax.checkpoint`` (what jax #2139 proposes), and Equinox's checkpointed loops. Beside each peer stand schedules of
``adcost.scan`` that may take as much memory as it, or evaluate as much.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import floor
from math import sqrt as square_root
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import adcost
from adcost.checkpointing import Schedule, blocks, residuals, within
from adcost.suite.vocabulary import Case, Method, Params, Program, Study, once_a_size
from benchmarks.workloads.loops import FAMILIES, Step, Tree, loss

Loop = Callable[..., tuple[Tree, Tree]]  # (step, init, xs, length, goes_on) -> (carry, outputs)
Schedules = Callable[[int, float], Schedule]  # by the steps, and the residuals of one in carries


# Methods: each takes a case and gives a loop.


def scanned(scan: Callable[..., tuple[Tree, Tree]]) -> Loop:
    """A scan; one that may stop early goes on to the end without effect, as reverse mode needs a known length."""

    def loop(step: Step, init: Tree, xs: Tree, length: int, goes_on: Any = None) -> tuple[Tree, Tree]:
        if goes_on is None:
            return scan(step, init, xs, length)

        def masked(h: Tree, x: Tree) -> tuple[Tree, Tree]:
            new, y = step(h, x)
            return jax.tree.map(partial(jnp.where, goes_on(h)), new, h), y

        return scan(masked, init, xs, length)

    return loop


def plain(case: Case) -> Loop:
    """``lax.scan``."""
    return scanned(lax.scan)


def remat(case: Case) -> Loop:
    """``lax.scan`` with its body under ``jax.checkpoint``."""
    return scanned(lambda step, *rest: lax.scan(jax.checkpoint(step), *rest))


def segment(steps: int) -> int:
    """About sqrt(n) steps, such that segments of them make up the loop."""
    return max(c for c in range(1, floor(square_root(steps)) + 1) if steps % c == 0)


def nested(case: Case, inner: Callable[[Step], Step] = lambda step: step) -> Loop:
    """Scans of about sqrt(n) steps in a scan, ``jax.checkpoint`` around each (jax #2139)."""

    def scan(step: Step, init: Tree, xs: Tree, length: int) -> tuple[Tree, Tree]:
        each = segment(length)
        cut = jax.tree.map(lambda a: a.reshape(length // each, each, *a.shape[1:]), xs)
        run = jax.checkpoint(lambda h, part: lax.scan(inner(step), h, part, each))
        h, ys = lax.scan(run, init, cut, length // each)
        return h, jax.tree.map(lambda a: a.reshape(length, *a.shape[2:]), ys)

    return scanned(scan)


def nested_inner(case: Case) -> Loop:
    """As ``nested``, with ``jax.checkpoint`` around each step as well."""
    return nested(case, jax.checkpoint)


def own_checkpoints(steps: int) -> int:
    """What Equinox takes unless told: as many as evaluate no step more than twice."""
    return floor(-1.5 + square_root(2 * steps + 0.25)) + 1


def equinox(case: Case, checkpoints: int | None = None) -> Loop:
    """Equinox's checkpointed loops (online, arXiv:2005.04322)."""
    from equinox import internal

    def loop(step: Step, init: Tree, xs: Tree, length: int, goes_on: Any = None) -> tuple[Tree, Tree]:
        if goes_on is None:
            found: tuple[Tree, Tree] = internal.scan(
                step, init, xs, length, kind="checkpointed", checkpoints=checkpoints
            )
            return found
        last = internal.while_loop(
            goes_on,
            lambda h: step(h, None)[0],
            init,
            max_steps=length,
            kind="checkpointed",
            checkpoints=checkpoints,
        )
        return last, None

    return loop


def scheduled(case: Case) -> Loop:
    """``adcost.scan`` by the method's schedule; of a loop that may stop early ``adcost.while_loop`` with its slots."""
    made = schedule_of(case)

    def loop(step: Step, init: Tree, xs: Tree, length: int, goes_on: Any = None) -> tuple[Tree, Tree]:
        if goes_on is None:
            return adcost.scan(step, init, xs, length, schedule=made)
        last = adcost.while_loop(goes_on, lambda h: step(h, None)[0], init, max_steps=length, slots=made.slots)
        return last, None

    return loop


# Schedules: in the memory of a peer, or with its evaluations. Memory is counted in carries.

BESIDE = 4.0  # carries that a schedule may hold beside slots and residuals
BESIDE_EQUINOX = 7.0  # those of Equinox's loop: planned for its solver with 10 checkpoints, 21 carries in all


def like_remat(steps: int, each: float) -> Schedule:
    """A carry of every step, and the residuals of one."""
    return within(steps, steps + each, each)


def like_equinox(steps: int, each: float, checkpoints: int | None = None) -> Schedule:
    """A carry a checkpoint, and the residuals of one step."""
    return within(steps, (checkpoints or own_checkpoints(steps)) + each + BESIDE_EQUINOX, each)


def in_passes(steps: int, each: float, passes: int) -> Schedule:
    """The least memory with which no more than ``passes`` evaluations are made of a step, on average."""
    low, high = blocks(steps, 1).memory(each), steps * each + BESIDE
    while high - low > 0.5:
        middle = (low + high) / 2
        if within(steps, middle, each).taped_evaluations <= passes * steps:
            high = middle
        else:
            low = middle
    return within(steps, high, each)


def tenth(steps: int, each: float) -> Schedule:
    """Less than a tenth of what plain backprop takes, as far as anything fits there."""
    return within(steps, max(steps * each / 10 - 1, blocks(steps, 1).memory(each)), each)


BUDGETS = 16


def granted(steps: int, each: float, budget: int) -> float:
    """The ``budget``-th of sixteen memories from the least to what plain backprop takes, in carries."""
    least, most = blocks(steps, 1).memory(each), steps * each + BESIDE
    return least * (most / least) ** ((budget - 1) / (BUDGETS - 1))


def of_budget(steps: int, each: float, budget: int) -> Schedule:
    """The fewest evaluations within a budget."""
    return within(steps, granted(steps, each, budget), each)


SCHEDULES: dict[str, Schedules] = {
    "like_remat": like_remat,
    "two_passes": partial(in_passes, passes=2),
    "three_passes": partial(in_passes, passes=3),
    "like_equinox": like_equinox,
    "like_equinox_ten": partial(like_equinox, checkpoints=10),
    "two_passes_host": lambda steps, each: in_passes(steps, each, 2).on_host(),
    "tenth": tenth,
    "slots": lambda steps, _: blocks(steps, own_checkpoints(steps)),
    "slots_ten": lambda steps, _: blocks(steps, 10),
}


@once_a_size
def kept(case: Case) -> float:
    """What a step hands to its backward pass, in carries."""
    step, found = FAMILIES[case.word("family")].step, []

    def run(weights: Tree, init: Tree, xs: Tree) -> None:
        found.append(residuals(partial(step, weights), init, xs, case["steps"]))

    jax.eval_shape(run, *shapes(case))
    return found[0]


def schedule_of(case: Case) -> Schedule:
    """The schedule of a method of ours."""
    make = partial(of_budget, budget=case["budget"]) if case.method == "budget" else SCHEDULES[case.method]
    return make(case["steps"], kept(case))


def _all(case: Case) -> bool:
    """Any case but those of a budget."""
    return case["budget"] == 0


def _known_length(case: Case) -> bool:
    return _all(case) and FAMILIES[case.word("family")].goes_on is None


def _small_or_early(case: Case) -> bool:
    """Where single steps are compared with Equinox's: elsewhere blocks in its memory are."""
    return _all(case) and (case["rows"] == 1 or not _known_length(case))


def _ours(label: str, where: Callable[[Case], bool] = _known_length) -> Method:
    return Method(scheduled, label=label, form="ours", where=where)


def _peer(build: Callable[..., Loop], label: str, **traits: Any) -> Method:
    return Method(build, label=label, where=_all, **traits)


EQUINOX = {"form": "online", "extra": ("peers", "equinox")}
METHODS = {
    "plain": _peer(plain, "lax.scan"),
    "remat": _peer(remat, "lax.scan, jax.checkpoint around its body"),
    "nested": _peer(nested, "nested scans of sqrt(n) steps under jax.checkpoint"),
    "nested_inner": _peer(nested_inner, "nested scans and their bodies under jax.checkpoint"),
    "equinox": _peer(equinox, "Equinox's checkpointed loop", **EQUINOX),
    "equinox_ten": _peer(partial(equinox, checkpoints=10), "Equinox's checkpointed loop, 10 checkpoints", **EQUINOX),
    "like_remat": _ours("adcost.scan in the memory of jax.checkpoint around the body"),
    "two_passes": _ours("adcost.scan, at most two evaluations a step"),
    "three_passes": _ours("adcost.scan, at most three evaluations a step"),
    "like_equinox": _ours("adcost.scan in the memory of Equinox's loop"),
    "like_equinox_ten": _ours("adcost.scan in the memory of Equinox's loop with 10 checkpoints"),
    "two_passes_host": _ours("adcost.scan, at most two evaluations a step, slots in the host's memory"),
    "tenth": _ours("adcost.scan in a tenth of plain's memory", lambda case: _all(case) and case["rows"] == 1),
    "slots": _ours("adcost's loop, as many slots as Equinox has checkpoints", _small_or_early),
    "slots_ten": _ours("adcost's loop, 10 slots", _small_or_early),
    "budget": _ours("adcost.scan within a budget", lambda case: case["budget"] > 0),
    "forward": _peer(plain, "the forward pass alone", differentiates=False),
}


# Programs.


def program(case: Case) -> Program:
    """The gradient of a loop's loss by what is learnt of it; of the yardstick ``forward`` the loss alone."""
    family, method = FAMILIES[case.word("family")], METHODS[case.method]
    run = of_steps(case, family.step)
    carry = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes(case)[1]))
    facts = {"activation": (float(carry), "B")}
    made = Program(run, partial(inputs, case), facts=facts, shapes=partial(shapes, case))
    if not method.differentiates:
        return made
    made = replace(made, run=jax.grad(run, family.learnt), loss=run)
    if method.form != "ours":
        return made
    schedule, each = schedule_of(case), kept(case)
    accumulated = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes(case)[0])) / carry
    facts |= {
        "steps": (case["steps"], "steps"),
        "block": (schedule.block, "steps"),
        "slots": (schedule.slots, "carries"),
        "tail": (schedule.tail, "steps"),
        "residuals of a step": (each, "carries"),
        "predicted memory": (schedule.memory(each) + accumulated, "carries"),
    }
    if family.goes_on is not None:
        return replace(made, facts=facts)
    facts |= {"scheduled evaluations": (schedule.taped_evaluations, "evaluations")}
    if case["budget"]:
        facts |= {"budget": (granted(case["steps"], each, case["budget"]) + accumulated, "carries")}
    return replace(made, facts=facts)


def of_steps(case: Case, step: Callable[..., tuple[Tree, Tree]]) -> Callable[[Tree, Tree, Tree], Any]:
    """The loss of a case's loop, with this step, as a function of (weights, carry, xs)."""
    family, loop = FAMILIES[case.word("family")], METHODS[case.method].build(case)

    def run(weights: Tree, init: Tree, xs: Tree) -> Any:
        goes_on = family.goes_on and partial(family.goes_on, weights)
        return loss(*loop(partial(step, weights), init, xs, case["steps"], goes_on))

    return run


@once_a_size
def inputs(case: Case) -> tuple[Tree, Tree, Tree]:
    """Weights, first carry and the steps' inputs."""
    made = FAMILIES[case.word("family")].make(np.random.default_rng(0), case["rows"], case["width"], case["steps"])
    return jax.tree.map(lambda a: a.astype(case.dtype), made)


@once_a_size
def shapes(case: Case) -> tuple[Tree, Tree, Tree]:
    """Shapes and dtypes of the inputs."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), inputs(case))


@once_a_size
def reference(case: Case) -> Any:
    """The plain program's gradient in float64, inputs included."""
    with jax.enable_x64(True):
        exact = program(replace(beside(case, "plain"), dtype="float64"))
        return jax.tree.map(np.asarray, jax.jit(exact.run)(*exact.inputs()))


def beside(case: Case, method: str) -> Case:
    """Another method at the same size, without a budget."""
    params = tuple((name, 0 if name == "budget" else value) for name, value in case.params)
    return Case(case.study, method, params, case.dtype)


def against(case: Case) -> dict[str, Case]:
    """Plain backprop, for what has a budget."""
    return {"plain": beside(case, "plain")} if case["budget"] else {}


def executions(case: Case) -> int:
    """How often the case's program really evaluates a step, counted while it runs."""
    family = FAMILIES[case.word("family")]
    count = 0

    def bump(_: Any) -> None:
        nonlocal count
        count += 1

    def counted(weights: Tree, h: Tree, x: Tree) -> tuple[Tree, Tree]:
        jax.debug.callback(bump, jax.tree.leaves(h)[0].ravel()[0])  # without an operand a scan would hoist it
        return family.step(weights, h, x)

    run = jax.grad(of_steps(case, counted), family.learnt)
    jax.block_until_ready(jax.jit(run)(*inputs(case)))
    jax.effects_barrier()
    return count


def size(family: str, rows: int, width: int, steps: int, budget: int = 0) -> Params:
    return {"family": family, "rows": rows, "width": width, "steps": steps, "budget": budget}


# Rows and steps of each family, at a width that writes more than it computes and at one where arithmetic counts.
NARROW = {
    "solver": (1024, 256), "gated": (256, 144), "transformer": (1024, 48), "filter": (512, 144), "early": (512, 256),
}  # fmt: skip
WIDE = {"solver": (64, 256), "gated": (64, 36), "transformer": (64, 16), "filter": (64, 100), "early": (64, 256)}


def narrow(family: str) -> Params:
    rows, steps = NARROW[family]
    return size(family, rows, 64, steps)


SMALL = size("solver", 1, 256, 1000)  # a carry of 256 floats
SWEPT = ("solver", "filter")  # families for which sixteen budgets are tried

STUDY = Study(
    name="loops",
    question="What does it take to differentiate any loop in less memory, and who does it best?",
    methods=METHODS,
    sizes={
        "quick": [narrow("solver"), SMALL, narrow("early")],
        "full": [
            *map(narrow, NARROW),
            *(size(family, rows, 1024, steps) for family, (rows, steps) in WIDE.items()),
            SMALL,
            *({**narrow(family), "budget": k} for family in SWEPT for k in range(1, BUDGETS + 1)),
        ],
    },
    program=program,
    reference=reference,
    tolerance=lambda case: 1e-3,
    baselines=("plain", "forward"),
    against=against,
    together=("family", "rows", "width", "steps", "budget"),
    in_turn=("family", "rows", "width", "steps"),
    evaluates="tanh",
    executions=executions,
    executed={"budget": (0,)},
)
