"""The ruler ``count``: a walk of the jaxpr with trip counts. Exact, needs no device, says nothing about time.

XLA's own ``cost_analysis`` counts a loop's body once and a custom call not at all, hence this walk. What it cannot know
it says: a primitive without a rule (the count is then "at least"), a loop that may end early ("at most").
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax.extend import core

from adcost import _jax
from adcost.rulers import primitives
from adcost.rulers.subject import Subject, shapes_of
from adcost.rulers.trips import Known, Value, constant, learnt, read, trips
from adcost.suite.vocabulary import Number, Program
from adcost.targets import ANY


@dataclass(frozen=True)
class Count:
    """What a program does. ``count[name]`` is how often it runs a primitive.

    Attributes
    ----------
    executions
        Of every primitive, by name.
    flops, moved
        Floating-point operations; bytes that operations read and write, were none fused with another.
    unknown
        Primitives whose cost no rule knows: both figures are then "at least".
    early
        May a loop end before the trips that are counted? Both figures are then "at most".
    branches
        Did branches differ in flops? Those of the dearest are then counted, "at most". (``moved`` is always the most.)
    assumed
        Did a loop get the trips that were assumed, since only the data know them?
    told
        Are the trips of a loop those that a schedule makes, of data to the program?
    """

    executions: Counter[str] = field(default_factory=Counter)
    flops: int = 0
    moved: int = 0
    unknown: frozenset[str] = frozenset()
    early: bool = False
    branches: bool = False
    assumed: bool = False
    told: bool = False

    def __getitem__(self, name: str) -> int:
        return self.executions[name]

    @property
    def caveats(self) -> tuple[str, ...]:
        """Why the figures are bounds or rest on an assumption, each in a line; nothing if they are exact."""
        least = (f"at least: the cost of {', '.join(sorted(self.unknown))} is not known",) if self.unknown else ()
        most = ("at most: a loop may end early",) if self.early else ()
        dearest = ("at most: branches cost differently, the dearest is counted",) if self.branches else ()
        guess = ("the trips of a loop are the data's: they were assumed",) if self.assumed else ()
        return (*least, *most, *dearest, *guess)


Parts = Sequence[tuple[Any, Count]]  # of a program, and how often each is run: a schedule's on average, a Fraction


def take(subject: Subject) -> Iterator[Number]:
    """Exact facts of a case: what is known beforehand, residuals, flops, evaluations of the study's unit."""

    def number(quantity: str, unit: str, value: float, *flags: str) -> Number:
        return Number("count", ANY, quantity, unit, float(value), flags=flags)

    study, case, program = subject.study, subject.case, subject.program
    for quantity, (value, unit) in program.facts.items() if study.for_target is None else ():
        yield number(quantity, unit, value)
    if program.loss is not None:
        yield number("residuals", "B", residual_bytes(program.loss, *subject.shapes))
    counted = _counted(program)
    if counted is None:
        if study.executions is not None:
            yield number("evaluations", "evaluations", study.executions(case), "counted while it ran")
        return
    flags = ("trip counts from the schedule",) if counted.told else ()
    yield number("flops", "flop", counted.flops, *flags, *counted.caveats)
    if study.matrix_products:
        yield number("matrix products", "products", counted["dot_general"], *flags)
    if study.evaluates is not None:
        yield number("evaluations", "evaluations", counted[study.evaluates], *flags)
    if counted.told and study.executions is not None and study.witnesses(case):
        yield number("executed evaluations", "evaluations", study.executions(case), "counted while it ran")


def _counted(program: Program) -> Count | None:
    """The count of a program; None if only its data know how often a loop runs."""
    try:
        counted = count(program.run, *shapes_of(program))
    except DynamicTripCount:
        return None
    return None if counted.early else counted


class DynamicTripCount(ValueError):
    """A loop runs as often as the data say."""


def count(run: Callable[..., Any], *arguments: Any, assumed: int | None = None) -> Count:
    """Executions of every primitive in ``run(*arguments)``, flops and bytes moved.

    ``arguments`` are arrays or ``jax.ShapeDtypeStruct``. Every loop whose trip count only the data know makes
    ``assumed`` trips. Of several branches the dearest is counted.

    Raises
    ------
    DynamicTripCount
        If a loop's trip count is not in the program, and none is assumed.
    """
    closed = jax.make_jaxpr(run)(*arguments)
    return count_jaxpr(closed.jaxpr, closed.consts, assumed)


def count_jaxpr(jaxpr: Any, consts: Sequence[Any] = (), assumed: int | None = None) -> Count:
    """The same of a jaxpr that is not closed."""
    found = _Walk(assumed).program(jaxpr, dict(zip(jaxpr.constvars, map(constant, consts), strict=False)))
    executions = Counter({name: int(many) for name, many in found.executions.items()})
    return replace(found, executions=executions, flops=int(found.flops), moved=int(found.moved))


def residual_bytes(loss: Callable[..., Any], *arguments: Any, argnums: int | Sequence[int] | None = None) -> int:
    """Bytes that ``jax.vjp`` of ``loss`` hands from the forward to the backward pass.

    The inputs, in whatever shape, are not counted, nor is what the backward pass computes again for itself: of a
    program under ``jax.checkpoint`` it holds more while it runs. ``argnums``: with respect to which arguments; all by
    default.

    Raises
    ------
    ValueError, TypeError
        If reverse mode is not possible; the message is JAX's.
    """
    chosen = range(len(arguments)) if argnums is None else [argnums] if isinstance(argnums, int) else argnums

    def pullback(*args: Any) -> Any:
        def by(*picked: Any) -> Any:
            given = dict(zip(chosen, picked, strict=True))
            return loss(*(given.get(i, arg) for i, arg in enumerate(args)))

        value, pull = jax.vjp(by, *(args[i] for i in chosen))
        jax.eval_shape(pull, value)  # what reverse mode refuses it may refuse only here
        return pull

    return kept_bytes(jax.make_jaxpr(pullback)(*arguments))


def kept_bytes(pullback: Any) -> int:
    """Bytes of a closed jaxpr's results that are not its inputs, in whatever shape, each once."""
    jaxpr = pullback.jaxpr
    given = {*jaxpr.invars, *jaxpr.constvars}
    same: dict[Any, Any] = {}  # what is another variable's numbers under another shape
    for eqn in jaxpr.eqns:
        if _reshapes(eqn) and isinstance(eqn.invars[0], core.Var):
            same[eqn.outvars[0]] = same.get(eqn.invars[0], eqn.invars[0])
    kept = {same.get(v, v) for v in jaxpr.outvars if isinstance(v, core.Var)} - given
    return sum(map(primitives.nbytes, kept))


def _reshapes(eqn: Any) -> bool:
    """Does an operation hand on its operand's numbers in their order, under another shape?"""
    if eqn.primitive.name not in ("reshape", "broadcast_in_dim"):
        return False
    return primitives.size(eqn.invars[0]) == primitives.size(eqn.outvars[0])


class _Walk:
    """One walk of a program: loops of which nothing is known make ``assumed`` trips."""

    def __init__(self, assumed: int | None) -> None:
        self.assumed = assumed

    def program(self, jaxpr: Any, known: Known) -> Count:
        """All equations of a jaxpr; ``known`` is what is known of its variables."""
        known, leaves, parts = dict(known), Counter[str](), list[tuple[Any, Count]]()
        flops, moved, unknown = 0, 0, set()
        for eqn in jaxpr.eqns:
            name = _jax.primitive_name(eqn)
            row = primitives.TABLE.get(name)
            known.update(zip(eqn.outvars, learnt(eqn, known), strict=True))
            if row is None:
                parts += self.inside(name, eqn, known)
            else:
                leaves[name] += 1
                moved += round(row.moved(eqn))
                if row.flops is None:
                    unknown.add(name)
                else:
                    flops += round(row.flops(eqn))
        return _sum([(1, Count(leaves, flops, moved, frozenset(unknown))), *parts])

    def inside(self, name: str, eqn: Any, known: Known) -> Parts:
        """What an equation that holds programs runs, as counts and how often each is made."""
        if name == "while":
            return self.loop(eqn, known)
        inner = [
            self.called(jaxpr, consts, _values(jaxpr, operands, known, _jax.carried(eqn)))
            for jaxpr, consts, operands in _jax.subprograms(eqn)
        ]
        length = _jax.scan_length(eqn)
        if length is not None:
            return [(length, inner[0])]
        if name == "cond":
            return [(1, _dearest(inner))]
        if name == "shard_map":
            return [(_jax.shards(eqn), body) for body in inner]
        if name == "pallas_call":
            times = _jax.grid(eqn)
            return [(1, _unknown(name))] if times is None else [(times, inner[0])]
        if name in primitives.BY_BODY:
            often, moved = primitives.BY_BODY[name]
            flops = round(often(eqn)) * sum(body.flops for body in inner)
            own = Count(Counter({name: 1}), flops, round(moved(eqn)))
            return [(1, own), *((0, body) for body in inner)]
        if name in primitives.CALLS or (inner and eqn.primitive.name == "call_hi_primitive"):
            return [(1, body) for body in inner]
        return [(1, _unknown(name)), *((1, body) for body in inner)]

    def called(self, jaxpr: Any, consts: Sequence[Any], values: Sequence[Value]) -> Count:
        """A program that an equation runs, with what is known of its variables."""
        own = zip((*jaxpr.invars, *jaxpr.constvars), (*values, *map(constant, consts)), strict=False)
        return self.program(jaxpr, dict(own))

    def loop(self, eqn: Any, known: Known) -> Parts:
        """A while loop: condition and body, as often as the program says, or as is assumed."""
        parts = _jax.while_parts(eqn)
        changing: list[Value] = [None] * len(parts.init)
        cond, body = (
            self.called(closed.jaxpr, closed.consts, [*(read(v, known) for v in consts), *changing])
            for closed, consts in ((parts.cond, parts.cond_consts), (parts.body, parts.body_consts))
        )
        found = trips(eqn, known)
        if found is not None:
            return [(found.most, body), (found.most + 1, cond), (1, Count(early=found.early))]
        told = _jax.told_trips(eqn)
        if told is not None:
            return [(told, body), (told + 1, cond), (1, Count(told=True))]
        if self.assumed is None:
            raise DynamicTripCount(f"{_jax.line(eqn)}: a loop runs as often as the data say")
        return [(self.assumed, body), (self.assumed + 1, cond), (1, Count(assumed=True))]


def _values(jaxpr: Any, operands: Sequence[Any] | None, known: Known, carried: slice) -> list[Value]:
    """What is known of a program's variables from the operands; of what changes from trip to trip, nothing."""
    if operands is None:
        return [None] * len(jaxpr.invars)
    values = [read(v, known) for v in operands]
    values[carried] = [None] * len(values[carried])
    return values


def _sum(parts: Parts) -> Count:
    """Counts made so many times, together."""
    executions: Counter[str] = Counter()
    for times, part in parts:
        for name, many in part.executions.items() if times else ():
            executions[name] += times * many
    return Count(
        executions,
        sum(times * part.flops for times, part in parts),
        sum(times * part.moved for times, part in parts),
        frozenset().union(*(part.unknown for _, part in parts)),
        any(part.early for _, part in parts),
        any(part.branches for _, part in parts),
        any(part.assumed for _, part in parts),
        any(part.told for _, part in parts),
    )


def _dearest(branches: Sequence[Count]) -> Count:
    """The dearest branch by flops; the most bytes that one of them moves."""
    most = max(branches, key=lambda branch: (branch.flops, branch.moved))
    same = all(branch.flops == most.flops for branch in branches)
    rest = Count(moved=max(branch.moved for branch in branches) - most.moved, branches=not same)
    others = [(0, branch) for branch in branches if branch is not most]
    return _sum([(1, most), (1, rest), *others])


def _unknown(name: str) -> Count:
    return Count(Counter({name: 1}), unknown=frozenset({name}))
