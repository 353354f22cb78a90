"""The ruler ``count``: a walk of the jaxpr with trip counts. Exact, needs no device, says nothing about time.

XLA's own ``cost_analysis`` counts a loop's body once and a custom call not at all, hence this walk.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import jax
import numpy as np
from jax.extend import core

from adcost import _jax
from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import Number
from adcost.targets import ANY

FLOPS = "flops"

# One floating-point operation an element of the output; a transcendental counts as one.
ELEMENTWISE = frozenset(
    """
    add sub mul div max min neg abs sign pow integer_pow square sqrt rsqrt cbrt exp exp2 expm1 log log1p sin cos tan
    tanh logistic erf erf_inv atan2 add_any rem floor ceil round sinh cosh asin acos atan asinh acosh atanh
    """.split()
)
REDUCTIONS = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_prod"})
# Calls of a library, by the leading term of the textbook algorithm (Golub and Van Loan, Matrix Computations, 4th ed.).
FACTORISATIONS = {"lu": 2 / 3, "cholesky": 1 / 3}
CUMULATIVE = frozenset({"cumsum", "cumprod", "cummax", "cummin"})


def take(subject: Subject) -> Iterator[Number]:
    """Exact facts of a case: what is known beforehand, residuals, flops, evaluations of the study's unit."""

    def number(quantity: str, unit: str, value: float, *flags: str) -> Number:
        return Number("count", ANY, quantity, unit, float(value), flags=flags)

    study, case, program = subject.study, subject.case, subject.program
    for quantity, (value, unit) in program.facts.items():
        yield number(quantity, unit, value)
    if program.loss is not None:
        yield number("residuals", "B", residual_bytes(program.loss, *subject.shapes))
    try:
        counted = count(program.run, *subject.shapes, loops=program.loops)
    except DynamicTripCount:
        if study.executions is not None:
            yield number("evaluations", "evaluations", study.executions(case), "counted while it ran")
        return
    flags = ("trip counts from the schedule",) if program.loops else ()
    yield number("flops", "flop", counted[FLOPS], *flags)
    if study.matrix_products:
        yield number("matrix products", "products", counted["dot_general"], *flags)
    if study.evaluates is not None:
        yield number("evaluations", "evaluations", counted[study.evaluates], *flags)
    if program.loops and study.executions is not None and study.witnesses(case):
        yield number("executed evaluations", "evaluations", study.executions(case), "counted while it ran")


class DynamicTripCount(ValueError):
    """A loop runs as often as the data say, and nobody told how often that is."""


def count(run: Callable[..., Any], *arguments: Any, loops: Mapping[str, int] | None = None) -> Counter[str]:
    """Executions of every primitive in ``run(*arguments)``, by name, and the flops under ``"flops"``.

    ``arguments`` are arrays or ``jax.ShapeDtypeStruct``. A loop whose trip count only the data know must run in a
    ``jax.named_scope`` named in ``loops``, which gives the trips that all loops of this name make in total.

    Raises
    ------
    DynamicTripCount
        If a loop's trip count is neither in the program nor in ``loops``.
    """
    bodies: dict[str, Counter[str]] = {}
    total = _walk(jax.make_jaxpr(run)(*arguments).jaxpr, dict(loops or {}), bodies)
    for name, body in bodies.items():
        total += _times(body, (loops or {})[name])
    return total


def is_dynamic(run: Callable[..., Any], *arguments: Any) -> bool:
    """Does the program hold a loop whose trip count only the data know?"""
    try:
        count(run, *arguments)
    except DynamicTripCount:
        return True
    return False


def residual_bytes(loss: Callable[..., Any], *arguments: Any) -> int:
    """Bytes that ``jax.vjp(loss, *arguments)`` keeps for the backward pass.

    Inputs, in whatever shape, and repetitions are not counted.
    """
    jaxpr = jax.make_jaxpr(lambda *args: jax.vjp(loss, *args)[1])(*arguments).jaxpr
    given = {*jaxpr.invars, *jaxpr.constvars}
    for eqn in jaxpr.eqns:
        if _reshapes(eqn) and given.issuperset(eqn.invars):
            given.add(eqn.outvars[0])
    kept = {v for v in jaxpr.outvars if isinstance(v, core.Var)} - given
    return sum(_size(v) * v.aval.dtype.itemsize for v in kept)  # type: ignore[attr-defined]


def _reshapes(eqn: Any) -> bool:
    """Does an operation hand on its operand's numbers in their order, under another shape?"""
    if eqn.primitive.name not in ("reshape", "broadcast_in_dim"):
        return False
    return _size(eqn.invars[0]) == _size(eqn.outvars[0])


def _walk(jaxpr: Any, loops: Mapping[str, int], bodies: dict[str, Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for eqn in jaxpr.eqns:
        name = _jax.primitive_name(eqn)
        inner = [_walk(sub, loops, bodies) for sub in _jax.subprograms(eqn)]
        length = _jax.scan_length(eqn)
        if length is not None:
            total += _times(inner[0], length)
        elif name == "while":
            _walk_while(eqn, loops, bodies, total)
        elif name == "cond":
            total += sorted(inner, key=lambda branch: branch[FLOPS])[-1]  # the dearest branch
        elif inner:
            for cost in inner:
                total += cost
        else:
            total[name] += 1
            total[FLOPS] += _flops(eqn)
    return total


def _walk_while(eqn: Any, loops: Mapping[str, int], bodies: dict[str, Counter[str]], total: Counter[str]) -> None:
    body = _walk(_jax.while_parts(eqn).body, loops, bodies)
    trips = _static_trips(eqn)
    if trips is not None:
        total += _times(body, trips)
        return
    scope = _jax.scope(eqn)
    # The innermost scope is the loop's own.
    name = max((name for name in loops if name in scope), key=scope.rfind, default=None)
    if name is None:
        raise DynamicTripCount(f"a loop in scope {scope!r} runs as often as the data say: name it in `loops`")
    if bodies.setdefault(name, body) != body:
        raise DynamicTripCount(f"loops named {name!r} have bodies of different cost: give them different names")


def _static_trips(eqn: Any) -> int | None:
    """Trips of a ``fori_loop`` with literal bounds; None if the data decide."""
    cond, n_cond, body, n_body = _jax.while_parts(eqn)
    if len(cond.eqns) != 1 or cond.eqns[0].primitive.name != "lt":
        return None
    init = dict(zip(cond.invars, [*eqn.invars[:n_cond], *eqn.invars[n_cond + n_body :]], strict=True))
    low, high = (init.get(v, v) if isinstance(v, core.Var) else v for v in cond.eqns[0].invars)
    if not isinstance(low, core.Literal) or not isinstance(high, core.Literal):
        return None
    counter = cond.invars.index(cond.eqns[0].invars[0]) - n_cond
    carry_in = body.invars[n_body:]
    step = next((e for e in body.eqns if body.outvars[counter] in e.outvars), None)
    if step is None or step.primitive.name != "add" or step.invars[0] is not carry_in[counter]:
        return None
    bound = cond.eqns[0].invars[1]
    if bound in cond.invars[n_cond:]:
        i = cond.invars.index(bound) - n_cond
        if body.outvars[i] is not carry_in[i]:
            return None
    by = step.invars[1]
    if not isinstance(by, core.Literal) or by.val <= 0:
        return None
    return max(0, -(-int(high.val - low.val) // int(by.val)))


def svd_flops(m: int, n: int, vectors: bool) -> float:
    """Of an m x n matrix, m not less than n: the values, or the thin SVD (Golub and Van Loan, figure 8.6.1)."""
    return 14 * m * n**2 + 8 * n**3 if vectors else 4 * m * n**2 - 4 / 3 * n**3


def _times(cost: Counter[str], trips: int) -> Counter[str]:
    return Counter({name: n * trips for name, n in cost.items()})


def _size(v: Any) -> int:
    return prod(v.aval.shape)


def _flops(eqn: Any) -> int:
    if not eqn.outvars:
        return 0
    name, out = eqn.primitive.name, eqn.outvars[0]
    if name == "dot_general":
        return 2 * _size(out) * _jax.contracted_size(eqn)
    if name == "conv_general_dilated":
        return 2 * _size(out) * prod(eqn.invars[1].aval.shape) // _jax.output_features(eqn)
    if name in FACTORISATIONS:
        *batch, n, _ = eqn.invars[0].aval.shape
        return round(FACTORISATIONS[name] * prod(batch) * n**3)
    if name == "triangular_solve":
        n = eqn.invars[0].aval.shape[-1]
        return n * _size(out)  # n^2 for every right-hand side
    if name == "svd":
        *batch, m, n = eqn.invars[0].aval.shape
        return round(prod(batch) * svd_flops(max(m, n), min(m, n), _jax.wants_vectors(eqn)))
    if not np.issubdtype(out.aval.dtype, np.inexact):
        return 0
    if name in ELEMENTWISE:
        return _size(out)
    if name in REDUCTIONS | CUMULATIVE:
        return _size(eqn.invars[0])
    return 0
