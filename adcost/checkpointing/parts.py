"""Programs without loops, cut into parts that are computed again: ``in_parts``."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from adcost import _jax
from adcost.checkpointing.rewriting import of_arrays, rewritten
from adcost.checkpointing.values import is_inexact, nbytes
from adcost.targets import Target
from adcost.targets.compiling import compile_for, planned_bytes

MOST = 64  # parts that are tried where nobody says how many


class Cut(NamedTuple):
    """Where a program is cut: the line before which, and the bytes that are alive there besides its arguments."""

    line: str
    alive: int


class Saving(NamedTuple):
    """What a compiler plans for a gradient, whole and in parts, in bytes beside arguments and results."""

    whole: int
    parts: int

    @property
    def confirmed(self) -> bool:
        """Do the parts save anything?"""
        return self.parts < self.whole


@dataclass(frozen=True, eq=False)
class InParts:
    """A function in parts; called as the function itself."""

    f: Callable[..., Any]
    parts: int | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        def run(closed: Any, given: Sequence[Any]) -> list[Any]:
            closed = _jax.inlined(closed)
            return _run(closed, _places(closed, self.parts), given)

        return rewritten(self.f, args, kwargs, run)

    def cuts(self, *args: Any, **kwargs: Any) -> tuple[Cut, ...]:
        """Where ``f(*args, **kwargs)`` is cut; arguments may be ``jax.ShapeDtypeStruct``."""
        run, given = of_arrays(self.f, args, kwargs)
        closed = _jax.inlined(_jax.pruned(jax.make_jaxpr(run)(*given)))
        alive, eqns = _alive(closed), closed.jaxpr.eqns
        return tuple(Cut(_jax.line(eqns[i]), int(alive[i])) for i in _places(closed, self.parts))

    def saving(self, *args: Any, argnums: int | Sequence[int] = 0, target: str | Target = "cpu") -> Saving:
        """What the compiler of a target plans for ``jax.grad`` of the function, whole and in parts.

        Compilers merge what is computed again with what is there, some of them, in some programs: only their plan says.
        """
        planned = (compile_for(jax.grad(f, argnums), *args, target=target) for f in (self.f, self))
        return Saving(*(planned_bytes(compiled, target)["temp"] for compiled in planned))


def in_parts(f: Callable[..., Any], parts: int | None = None) -> InParts:
    """The same function in parts, each under ``jax.checkpoint``: for programs without loops, as unrolled networks.

    Parameters
    ----------
    f
        A function of arrays; other leaves of its arguments stay as they are.
    parts
        How many; without it as many as keep least, were nothing merged. The program is cut where least is alive.

    Returns
    -------
    The function, to be differentiated. ``saving(*args)`` asks a compiler whether that saves anything: on CPUs of JAX
    0.10 it often does not. ``cuts(*args)`` says where it is cut.

    Raises
    ------
    ValueError
        If ``parts`` is below 2.

    References
    ----------
    Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", arXiv:1604.06174 (2016).
    """
    if parts is not None and parts < 2:
        raise ValueError(f"in_parts needs two parts or more, got {parts}")
    return InParts(f, parts)


def _alive(closed: Any) -> np.ndarray:
    """Before each equation, the bytes that are computed before it and read by it or later."""
    last = {v: i for i, eqn in enumerate(closed.jaxpr.eqns) for v in eqn.invars if isinstance(v, core.Var)}
    last |= {v: len(closed.jaxpr.eqns) for v in closed.jaxpr.outvars if isinstance(v, core.Var)}
    change = np.zeros(len(closed.jaxpr.eqns) + 2, np.int64)
    for i, eqn in enumerate(closed.jaxpr.eqns):
        for v in eqn.outvars:
            if v in last:
                change[i + 1] += nbytes([v.aval])
                change[last[v] + 1] -= nbytes([v.aval])
    return np.cumsum(change)[: len(closed.jaxpr.eqns) + 1]


def _places(closed: Any, parts: int | None) -> list[int]:
    """The equations before which a program is cut, in order; those of about equal parts where least is alive."""
    alive = _alive(closed)
    made = [nbytes([v.aval for v in eqn.outvars if is_inexact(v.aval)]) for eqn in closed.jaxpr.eqns]
    before = np.concatenate([[0], np.cumsum(np.array(made, np.int64))])  # bytes computed before each equation

    def cut(count: int) -> list[int]:
        found = []
        for j in range(1, count):
            middle, room = before[-1] * j / count, before[-1] / (4 * count)
            low, high = np.searchsorted(before, [middle - room, middle + room])
            near = range(max(1, int(low)), min(len(made), int(high) + 1))
            found += [min(near, key=lambda i: (alive[i], abs(before[i] - middle)))] if near else []
        return sorted(set(found))

    def held(places: list[int]) -> int:
        ends = [0, *places, len(made)]
        return int(sum(alive[i] for i in places) + max(before[b] - before[a] for a, b in pairwise(ends)))

    if parts is not None:
        return cut(parts)
    return min((cut(count) for count in range(2, min(MOST, len(made)) + 1)), key=held, default=[])


def _run(closed: Any, places: Sequence[int], given: Sequence[Any]) -> list[Any]:
    """The program part by part; the last one goes straight into its backward pass and is not computed again."""
    jaxpr = closed.jaxpr
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *given), strict=True))
    for first, end in pairwise([0, *places, len(jaxpr.eqns)]):
        eqns = jaxpr.eqns[first:end]
        own = dict.fromkeys(v for eqn in eqns for v in eqn.outvars)
        asked = _variables(v for eqn in jaxpr.eqns[end:] for v in eqn.invars) | _variables(jaxpr.outvars)
        results = [v for v in own if v in asked]
        read = [v for v in _variables(v for eqn in eqns for v in eqn.invars) if v not in own]

        def part(
            *values: Any, eqns: Sequence[Any] = eqns, read: Sequence[Any] = read, results: Sequence[Any] = results
        ) -> Any:
            return _jax.evaluated_equations(eqns, results, dict(zip(read, values, strict=True)))

        run = part if end == len(jaxpr.eqns) else jax.checkpoint(part)
        known.update(zip(results, run(*(known[v] for v in read)), strict=True))
    return [v.val if isinstance(v, core.Literal) else known[v] for v in jaxpr.outvars]


def _variables(values: Iterable[Any]) -> dict[Any, None]:
    """Those that are no literals, each once, in their order."""
    return dict.fromkeys(v for v in values if isinstance(v, core.Var))
