"""Outputs of a loop that are read step by step, or of which few are read: they are read inside the loop's body.

A loop stacks what its steps give, and its backward pass stacks the cotangents. Where a program only sums over the
steps, or takes a few of them, neither stack is needed: what stands between the loop and the sum is done to a step's
output when it is there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from adcost import _jax
from adcost.checkpointing.values import arrays, is_inexact, nbytes, put, wide

# What is done to each number by itself.
ELEMENTWISE = frozenset(
    "abs acos acosh add and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp conj "
    "convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag "
    "integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow real "
    "reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor".split()
)
REDUCTIONS = frozenset(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"))
FEW = 0.5  # of the steps: to take more of them than this saves little


@dataclass(frozen=True)
class End:
    """An equation that takes a sum over the steps, or a few of them."""

    first: Any  # what is held before the first step
    add: Callable[[Any, Any, Sequence[Any]], Any]  # (what is held, step, operands of that step) -> what is held
    done: Callable[[Any], Any]  # what is held after the last step -> the result


@dataclass(frozen=True)
class Reading:
    """What of a program can be done inside a loop of it.

    ``gone`` are the places of outputs that need not be stacked, ``inside`` the equations done to each step's, ``ends``
    by the equation those that leave nothing of the steps.
    """

    loop: Any
    gone: tuple[int, ...]
    inside: tuple[Any, ...]
    ends: dict[int, End]


def read_inside(closed: Any) -> Any:
    """The program with its loops' outputs read inside their bodies, wherever that is possible."""
    every = list(_jax.equations(closed.jaxpr))
    if not any(map(_outputs, every)) or any(map(_jax.ordered_effects, every)):  # effects have their order
        return closed
    closed, done = _jax.inlined(closed), 0
    while True:
        scans = [eqn for eqn in closed.jaxpr.eqns if _outputs(eqn)]
        found = next((reading for eqn in scans[done:] if (reading := _reading(closed, eqn))), None)
        if found is None:
            return closed
        done = scans.index(found.loop)
        closed = _moved(closed, found)


def _outputs(eqn: Any) -> list[Any]:
    """The stacked outputs of a scan that are read; of any other equation none."""
    if eqn.primitive.name != "scan":
        return []
    return [v for v in eqn.outvars[_jax.scan_parts(eqn).carry :] if not _jax.is_dropped(v)]


# ---------------------------------------------------------------- what can be read inside


def _reading(closed: Any, loop: Any) -> Reading | None:
    """What of a program can be done inside a loop of it; None if nothing."""
    outputs, n = _outputs(loop), _jax.scan_parts(loop).length
    if n < 2:
        return None
    later = closed.jaxpr.eqns[closed.jaxpr.eqns.index(loop) + 1 :]
    stuck: set[Any] = set()
    while True:
        rows = {v: {v} for v in outputs if v not in stuck}  # of each value by steps, the outputs it comes from
        inside, ends = [], {}
        kept = {v for v in closed.jaxpr.outvars if isinstance(v, core.Var)}
        held: set[Any] = set()  # outputs that must be stacked all the same
        after = set(loop.outvars)  # what is there only after the loop
        for eqn in later:
            read = [v for v in eqn.invars if isinstance(v, core.Var)]
            mine = [v for v in read if v in rows]
            whole = [v for v in read if v in after and v not in rows]
            after.update(eqn.outvars if mine or whole else ())
            if not mine:
                continue
            made = None if whole else _end(eqn, n)
            if made is not None:
                ends[id(eqn)] = made
                inside.append(eqn)
            elif not whole and _by_steps(eqn, rows, n):
                origin = set().union(*(rows[v] for v in mine))
                rows.update((v, origin) for v in eqn.outvars)
                inside.append(eqn)
            else:
                held |= set().union(*(rows[v] for v in mine))
        held |= set().union(*(rows[v] for v in kept if v in rows))
        if not held:
            break
        stuck |= held
    gone = tuple(i for i, v in enumerate(loop.outvars) if v in rows)
    return Reading(loop, gone, tuple(inside), ends) if gone and ends else None


def _by_steps(eqn: Any, rows: dict[Any, Any], n: int) -> bool:
    """Does an equation do to each step's value the same, by itself?"""
    name, params, out = eqn.primitive.name, eqn.params, eqn.outvars[0].aval
    if name in ELEMENTWISE:
        return out.shape[0] == n  # others have the steps along their first axis, too, or are the same for all
    (source, *rest) = eqn.invars
    if name in REDUCTIONS:
        return 0 not in params["axes"]
    if name == "broadcast_in_dim":
        return not rest and params["broadcast_dimensions"][:1] == (0,) and out.shape[0] == n
    if name == "reshape":
        return not rest and params["dimensions"] is None and out.shape[:1] == (n,)
    if name == "squeeze":
        return 0 not in params["dimensions"]
    if name == "transpose":
        return params["permutation"][0] == 0
    if name == "slice":
        strides = params["strides"] or (1,)
        return (params["start_indices"][0], params["limit_indices"][0], strides[0]) == (0, n, 1)
    if name == "dot_general":
        (contracted, _), (batch, _) = params["dimension_numbers"]
        return source in rows and rest[0] not in rows and 0 not in contracted and not batch
    return False


def _end(eqn: Any, n: int) -> End | None:
    """An equation as the end of what is read by steps; None if it is none."""
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == "slice":
        return _few(eqn, n)
    if not ((name == "reduce_sum" and 0 in eqn.params["axes"]) or (name == "dot_general" and _sums_steps(eqn))):
        return None
    dtype = wide(out.dtype)

    def add(held: Any, _: Any, row: Sequence[Any]) -> Any:
        given = [row[0].astype(dtype)] if name == "reduce_sum" else row
        value = _evaluated(eqn, given).astype(dtype)
        return _added(*held, value) if is_inexact(out) else (held[0] + value, held[1])

    zero = jnp.zeros(out.shape, dtype)
    return End((zero, zero), add, lambda held: held[0].astype(out.dtype))


@jax.custom_jvp
def _added(total: Any, lost: Any, value: Any) -> tuple[Any, Any]:
    """A sum and what rounding took from it (Kahan, CACM 8, 1965): one by one, many steps would lose digits."""
    value = value - lost
    after = total + value
    return after, (after - total) - value


@_added.defjvp
def _(primals: Any, tangents: Any) -> Any:
    total, lost, value = tangents
    return _added(*primals), (total + value, jnp.zeros_like(lost))


def _few(eqn: Any, n: int) -> End | None:
    """A slice that takes few of the steps."""
    starts, stops = eqn.params["start_indices"], eqn.params["limit_indices"]
    stride, *others = eqn.params["strides"] or (1,) * len(starts)
    out = eqn.outvars[0].aval
    count = out.shape[0]
    if not 0 < count <= FEW * n or any(other != 1 for other in others):
        return None
    rest = tuple(map(slice, starts[1:], stops[1:]))

    def take(held: Any, i: Any, row: Sequence[Any]) -> Any:
        place, odd = jnp.divmod(i - starts[0], stride)
        asked = (odd == 0) & (i >= starts[0]) & (i < stops[0])
        value, place = row[0][0][rest], jnp.where(asked, place, count)  # the last place is nobody's
        return _written(held, value, place) if is_inexact(out) else put([held], [value], place)[0]

    return End(jnp.zeros((count + 1, *out.shape[1:]), out.dtype), take, lambda held: held[:count])


@jax.custom_jvp
def _written(held: Any, row: Any, place: Any) -> Any:
    """Rows with one more, of which none is written twice."""
    return put([held], [row], place)[0]


@_written.defjvp
def _(primals: Any, tangents: Any) -> Any:
    # Transposed, an addition leaves the cotangents of all rows as they are: to put zeros there XLA would copy them.
    return _written(*primals), tangents[0].at[primals[2]].add(tangents[1])


def _evaluated(eqn: Any, operands: Sequence[Any]) -> Any:
    """An equation on what belongs to one step: the first axis has length 1."""
    name, params = eqn.primitive.name, dict(eqn.params)
    if name == "broadcast_in_dim":
        return lax.broadcast_in_dim(operands[0], (1, *params["shape"][1:]), params["broadcast_dimensions"])
    if name == "reshape":
        return lax.reshape(operands[0], (1, *params["new_sizes"][1:]))
    if name == "slice":
        ends = (params["start_indices"], (1, *params["limit_indices"][1:]), params["strides"])
        return lax.slice(operands[0], *ends)
    return eqn.primitive.bind(*operands, **params)


# ---------------------------------------------------------------- the program that does so


def _moved(closed: Any, reading: Reading) -> Any:
    """The program with a loop that reads its outputs itself."""
    loop, inside = reading.loop, set(map(id, reading.inside))
    parts = _jax.scan_parts(loop)
    before = _before(closed.jaxpr, reading)
    placed = {id(loop), *map(id, before)}
    order = [*before, loop, *(eqn for eqn in closed.jaxpr.eqns if id(eqn) not in placed)]
    ends = [eqn for eqn in reading.inside if id(eqn) in reading.ends]
    made = {v: eqn for eqn in order for v in eqn.outvars}
    known: dict[Any, Any] = {}
    results: dict[int, Any] = {}

    def run(*arguments: Any) -> list[Any]:
        return _jax.evaluated_program(_jax.with_equations(closed, order), arguments, rule, known)

    def rule(eqn: Any) -> Callable[[Sequence[Any]], Any] | None:
        if eqn is loop:
            return looped
        if id(eqn) in reading.ends:
            return lambda _: [results[id(eqn)]]
        return (lambda _: [None] * len(eqn.outvars)) if id(eqn) in inside else None

    def looped(operands: Sequence[Any]) -> list[Any]:
        a, b = parts.consts, parts.consts + parts.carry
        whole, by_steps = _operands(reading, made, parts.length, known)
        body = core.jaxpr_as_fun(parts.body)

        def step(carry: Any, x: Any) -> Any:
            h, so_far = carry
            i, x, given = x
            out = arrays(body(*operands[:a], *h, *x), parts.body.out_avals)
            row = {v: y[None] for v, y in zip(loop.outvars[parts.carry :], out[parts.carry :], strict=True)}
            row |= {v: value[None] for v, value in zip(by_steps, given, strict=True)}
            so_far = _read(reading, row, whole, so_far, i)
            left = [y for k, y in enumerate(out[parts.carry :], parts.carry) if k not in reading.gone]
            return (out[: parts.carry], so_far), left

        first = [reading.ends[id(eqn)].first for eqn in ends]
        xs = jnp.arange(parts.length), list(operands[b:]), list(by_steps.values())
        (h, found), ys = _jax.scan(step, (list(operands[a:b]), first), xs, parts.length, parts.reverse)
        results.update((id(eqn), reading.ends[id(eqn)].done(held)) for eqn, held in zip(ends, found, strict=True))
        left = iter(ys)
        return [*h, *(None if k in reading.gone else next(left) for k in range(parts.carry, len(loop.outvars)))]

    return jax.make_jaxpr(run)(*closed.in_avals)


def _read(reading: Reading, row: dict[Any, Any], whole: dict[Any, Any], so_far: Sequence[Any], i: Any) -> list[Any]:
    """What the ends hold after a step."""
    totals = iter(so_far)
    found = []
    for eqn in reading.inside:
        operands = [_of(v, row, whole) for v in eqn.invars]
        if id(eqn) in reading.ends:
            found.append(reading.ends[id(eqn)].add(next(totals), i, operands))
        else:
            row[eqn.outvars[0]] = _evaluated(eqn, operands)
    return found


def _of(v: Any, row: dict[Any, Any], whole: dict[Any, Any]) -> Any:
    if isinstance(v, core.Literal):
        return v.val
    return row[v] if v in row else whole[v]


def _operands(
    reading: Reading, made: dict[Any, Any], n: int, known: dict[Any, Any]
) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What else is read inside: as a whole, the same for all steps, and by steps."""
    own = {v for eqn in reading.inside for v in eqn.outvars} | set(reading.loop.outvars)
    whole, by_steps = {}, {}
    for eqn in reading.inside:
        for v in eqn.invars:
            if isinstance(v, core.Literal) or v in own:
                continue
            spread = made.get(v)
            if not _along(eqn, v, n):
                whole[v] = jnp.asarray(known[v], v.aval.dtype)
            elif spread is not None and _same_for_all(spread):
                (source,), shape = spread.invars, (1, *v.aval.shape[1:])
                value = source.val if isinstance(source, core.Literal) else known[source]
                whole[v] = lax.broadcast_in_dim(value, shape, spread.params["broadcast_dimensions"])
            else:
                by_steps[v] = known[v]
    return whole, by_steps


def _along(eqn: Any, operand: Any, n: int) -> bool:
    """Has an operand the steps along its first axis?"""
    return operand.aval.shape[:1] == (n,) and (eqn.primitive.name != "dot_general" or _sums_steps(eqn))


def _sums_steps(eqn: Any) -> bool:
    """Does a product contract the first axis of both its operands?"""
    contracted, batch = eqn.params["dimension_numbers"]
    return (0, 0) in zip(*contracted, strict=True) and not batch[0]


def _same_for_all(eqn: Any) -> bool:
    """Is a value by steps the same for all of them, as a scale for each column is?"""
    if eqn.primitive.name != "broadcast_in_dim" or len(eqn.invars) > 1:
        return False
    return 0 not in eqn.params["broadcast_dimensions"]


def _before(jaxpr: Any, reading: Reading) -> list[Any]:
    """The equations that must come before the loop: those before it, and those that what is read inside needs."""
    place = jaxpr.eqns.index(reading.loop)
    inside = set(map(id, reading.inside))
    asked = {v for eqn in reading.inside for v in eqn.invars if isinstance(v, core.Var)}
    found: list[Any] = []
    for eqn in reversed(jaxpr.eqns[place + 1 :]):
        if id(eqn) not in inside and asked.intersection(eqn.outvars):
            asked |= {v for v in eqn.invars if isinstance(v, core.Var)}
            found.append(eqn)
    return [*jaxpr.eqns[:place], *reversed(found)]


def stacked(closed: Any) -> dict[int, str]:
    """What is said of each loop with stacked outputs, by its equation's id: their bytes, the line that reads them."""
    loops = {v: loop for loop in closed.jaxpr.eqns for v in _outputs(loop)}
    readers: dict[int, list[str]] = {id(loop): [] for loop in loops.values()}
    sizes = dict.fromkeys(readers, 0)
    for v, loop in loops.items():
        sizes[id(loop)] += nbytes([v.aval])
    for eqn in closed.jaxpr.eqns if loops else ():
        for loop in {id(loops[v]) for v in eqn.invars if isinstance(v, core.Var) and v in loops}:
            readers[loop].append(_jax.line(eqn))
    return {
        loop: f"its outputs are kept, {sizes[loop] / 2**20:.3g} MiB: "
        + (f"{next(filter(None, lines), 'a call without a line')} reads them" if lines else "they are returned")
        for loop, lines in readers.items()
    }
