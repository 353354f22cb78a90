"""How often a while loop runs, where its program says so: a counter that a constant step leads to a constant bound."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core

from adcost import _jax
from adcost.rulers import primitives


class Affine(NamedTuple):
    """An integer: what a place of the loop's carry holds, plus a number; the number alone where ``place`` is None."""

    place: int | None
    plus: int


class Comparisons(NamedTuple):
    """All of these differences are below 0. ``exact``: and nothing else is asked."""

    below_zero: tuple[tuple[Affine, Affine], ...]  # left - right
    exact: bool


Value = Affine | Comparisons | None  # None: not known
Known = Mapping[Any, Value]


class Trips(NamedTuple):
    """How often a loop runs; at most so often where it may end ``early``."""

    most: int
    early: bool


def constant(x: Any) -> Affine | None:
    """A number of the program as a value, if it is one integer."""
    if isinstance(x, bool) or getattr(x, "size", 1) != 1:
        return None
    try:
        return Affine(None, int(np.asarray(x).item())) if np.issubdtype(np.asarray(x).dtype, np.integer) else None
    except (TypeError, ValueError):  # a key, a token
        return None


def read(v: Any, known: Known) -> Value:
    """What is known of a variable or a literal."""
    return constant(v.val) if isinstance(v, core.Literal) else known.get(v)


def learnt(eqn: Any, known: Known) -> list[Value]:
    """What an equation's results are, as far as that follows from what is known of its operands."""
    operands = [read(v, known) for v in eqn.invars]
    unknown: list[Value] = [None] * len(eqn.outvars)
    if eqn.primitive.name in primitives.CALLS:
        called = _jax.called_program(eqn)
        if called is None or len(called[0].invars) != len(operands) or len(called[0].outvars) != len(unknown):
            return unknown
        return results(*called, operands) if len(called[0].constvars) == len(called[1]) else unknown
    if len(unknown) != 1 or not any(x is not None for x in operands):
        return unknown
    result = _result(eqn.primitive.name, operands)
    if not isinstance(result, Affine):
        return [result]
    held = _range(eqn.outvars[0])
    if held is None or (result.place is not None and not _within(held, _range(eqn.invars[0]))):
        return unknown
    return [result if result.place is not None else Affine(None, _wrapped(result.plus, *held))]


def results(jaxpr: Any, consts: Sequence[Any], operands: Sequence[Value]) -> list[Value]:
    """What a program's results are, as far as that follows from what is known of its operands."""
    known = dict(zip((*jaxpr.invars, *jaxpr.constvars), (*operands, *map(constant, consts)), strict=True))
    for eqn in jaxpr.eqns:
        known.update(zip(eqn.outvars, learnt(eqn, known), strict=True))
    return [read(v, known) for v in jaxpr.outvars]


def trips(eqn: Any, known: Known) -> Trips | None:
    """Trips of a ``while`` equation; None if only the data know even the most."""
    loop = _jax.while_parts(eqn)
    init = [read(v, known) for v in loop.init]
    carry: list[Value] = [Affine(i, 0) for i in range(len(init))]
    (asked,) = results(loop.cond.jaxpr, loop.cond.consts, [*(read(v, known) for v in loop.cond_consts), *carry])
    if not isinstance(asked, Comparisons):
        return None
    after = results(loop.body.jaxpr, loop.body.consts, [*(read(v, known) for v in loop.body_consts), *carry])

    def course(x: Affine) -> tuple[int, int] | None:
        """Where a value begins and by how much it grows each trip."""
        if x.place is None:
            return x.plus, 0
        start, then = init[x.place], after[x.place]
        if not isinstance(start, Affine) or not isinstance(then, Affine) or then.place != x.place:
            return None
        return start.plus + x.plus, then.plus

    ranges = [_range(v) for v in loop.init]
    most, early = [], not asked.exact
    for left, right in asked.below_zero:
        a, b = course(left), course(right)
        if a is None or b is None or (a[0] < b[0] and a[1] <= b[1]):  # not known, or never false
            early = True
            continue
        gap, closing = b[0] - a[0], a[1] - b[1]
        found = -(-gap // closing) if gap > 0 else 0
        # Integers wrap: what is compared, and the counters themselves, must stay inside their type until then.
        counters = [x for x in (left, right) if x.place is not None]
        counters += [Affine(x.place, 0) for x in counters]
        if not all(_stays(course(x), found, ranges[x.place]) for x in counters if x.place is not None):
            early = True
            continue
        most.append(found)
    return Trips(min(most), early) if most else None


Range = tuple[int, int]


def _range(v: Any) -> Range | None:
    """The least and the greatest number that an integer variable holds; None of another."""
    dtype = getattr(v.aval, "dtype", None)
    if dtype is None or not np.issubdtype(dtype, np.integer):
        return None
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _within(outer: Range, inner: Range | None) -> bool:
    return inner is not None and outer[0] <= inner[0] and inner[1] <= outer[1]


def _wrapped(number: int, least: int, greatest: int) -> int:
    return (number - least) % (greatest - least + 1) + least


def _stays(course: tuple[int, int] | None, trips: int, held: Range | None) -> bool:
    """Is a value that begins and grows like this inside its type from the first test to the last?"""
    if course is None or held is None:
        return False
    ends = (course[0], course[0] + trips * course[1])
    return held[0] <= min(ends) and max(ends) <= held[1]


SAME = frozenset(
    "convert_element_type copy squeeze reshape broadcast_in_dim stop_gradient optimization_barrier".split()
)
RELATIONS = {"lt": (False, 0), "le": (False, 1), "gt": (True, 0), "ge": (True, 1)}  # turned round? plus how much


def _result(name: str, operands: list[Value]) -> Value:
    x = operands[0]
    y = operands[1] if len(operands) > 1 else None
    if name in SAME or name in ("reduce_or", "reduce_and"):
        return x
    if name == "and":
        parts = [v for v in operands if isinstance(v, Comparisons)]
        both = len(parts) == 2
        return Comparisons(sum((p.below_zero for p in parts), ()), both and all(p.exact for p in parts))
    if not isinstance(x, Affine) or (y is not None and not isinstance(y, Affine)):
        return None
    if name == "neg":
        return Affine(None, -x.plus) if x.place is None else None
    if y is None:
        return None
    if name == "add" and (x.place is None or y.place is None):
        return Affine(y.place if x.place is None else x.place, x.plus + y.plus)
    if name == "sub" and y.place is None:
        return Affine(x.place, x.plus - y.plus)
    if name in RELATIONS:
        turned, more = RELATIONS[name]
        low, high = (y, x) if turned else (x, y)
        return Comparisons(((low, Affine(high.place, high.plus + more)),), True)
    if x.place is None and y.place is None:
        whole = {"mul": x.plus * y.plus, "max": max(x.plus, y.plus), "min": min(x.plus, y.plus)}
        return Affine(None, whole[name]) if name in whole else None
    return None
