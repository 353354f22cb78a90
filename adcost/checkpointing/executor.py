"""One executor that runs any checkpointing schedule of a loop as one compiled program.

The program is a loop over the schedule's rows, so its size does not depend on the length. XLA's buffer
assignment shapes it; each of these rules was found by measuring what it costs to break it (JAX 0.10.2):

- no ``lax.cond`` in the loop, because a conditional copies the slots: the rows are sorted beforehand into
  moves that store and moves that end in a backward step, and nothing is left to decide at run time;
- the slots are one array, updated in place;
- a value that outlives an update of the slots is a register of its own in the loop's carry.

A loop is a primitive. Forward mode differentiates it as the plain scan that it is; reverse mode follows its schedule.
The backward pass is a function of the loop's operands and can be differentiated again, in both modes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from adcost import _jax
from adcost.checkpointing.alike import zeros_alike
from adcost.checkpointing.linear import Linear
from adcost.checkpointing.schedules import ADVANCE, AT, LOAD, NO_STORE, STORE, Schedule, Table
from adcost.checkpointing.values import (
    Values,
    arrays,
    at,
    chosen,
    is_inexact,
    many_zeros,
    merged,
    nbytes,
    no_tangent,
    put,
    put_stretch,
    spread,
    stretch,
    wide,
)

Pullback = Callable[[Values, Values, Values, Values], tuple[Values, Values]]


class Operands(NamedTuple):
    """What a loop is run on, or something about each of them: is it differentiated? its cotangent."""

    consts: Values
    init: Values
    xs: Values

    @property
    def flat(self) -> Values:
        return [*self.consts, *self.init, *self.xs]


@dataclass(frozen=True, eq=False)
class Loop:
    """A scan whose backward pass follows a schedule.

    Attributes
    ----------
    jaxpr
        The body, closed: (consts, carry, x) -> (carry, y), all flat.
    schedule
        What to keep and what to compute again, for ``schedule.depth`` steps.
    pullback
        ``pullback(x, h_in, h_out, cotangent) -> (x_cotangent, h_cotangent)`` instead of ``jax.vjp`` of a step. For
        loops without constants and outputs, and schedules of single steps without a tail.
    """

    jaxpr: Any
    num_consts: int
    num_carry: int
    reverse: bool
    schedule: Schedule
    pullback: Pullback | None = None

    def __call__(self, operands: Operands) -> tuple[Values, Values]:
        """The carry and the outputs of the scan."""
        told = {"num_consts": self.num_consts, "num_carry": self.num_carry, "reverse": self.reverse}  # as of a scan
        flat, length = arrays(operands.flat, self.jaxpr.in_avals), self.schedule.depth
        return self.parted(loop_p.bind(*flat, jaxpr=self.jaxpr, length=length, loop=self, **told))

    def operands(self, flat: Sequence[Any]) -> Operands:
        a, b = self.num_consts, self.num_consts + self.num_carry
        return Operands(list(flat[:a]), list(flat[a:b]), list(flat[b:]))

    def parted(self, results: Sequence[Any]) -> tuple[Values, Values]:
        """Carry and outputs."""
        return list(results[: self.num_carry]), list(results[self.num_carry :])

    def body(self, consts: Values, h: Values, x: Values) -> tuple[Values, Values]:
        return self.parted(core.jaxpr_as_fun(self.jaxpr)(*consts, *h, *x))

    def scan(self, operands: Operands, count: int, checkpoint: bool = False) -> tuple[Values, Values]:
        """``count`` steps as a plain scan."""
        consts, init, xs = operands

        def step(h: Values, x: Values) -> tuple[Values, Values]:
            return self.body(consts, h, x)

        f = jax.checkpoint(step) if checkpoint else step
        return _jax.scan(f, init, xs, length=count, reverse=self.reverse)

    def place(self, step: Any, count: int = 1) -> Any:
        """Where the inputs and outputs of ``count`` steps from this one begin."""
        return self.schedule.depth - count - step if self.reverse else step


def plain(loop: Loop, operands: Operands, checkpoint: bool = False) -> Values:
    """All steps as a plain scan, of which JAX knows everything."""
    h, ys = loop.scan(operands, loop.schedule.depth, checkpoint)
    return [*h, *ys]


# ---------------------------------------------------------------- what is differentiated


@dataclass(frozen=True)
class Active:
    """Which operands have a tangent, which results then have one, and what of the carry its pullback reads."""

    operands: Operands
    results: list[bool]
    needed: list[bool]


def activity(loop: Loop, moving: Operands) -> Active:
    """Follow tangents through the body until no more of the carry gets one."""
    avals = list(loop.jaxpr.in_avals)
    carried = list(moving.init)
    while True:
        found = _moved(core.jaxpr_as_fun(loop.jaxpr), avals, [*moving.consts, *carried, *moving.xs])
        after = [old or new for old, new in zip(carried, found, strict=False)]
        if after == carried:
            break
        carried = after
    masks = moving._replace(init=carried)
    return Active(masks, [*carried, *found[len(carried) :]], _needed(loop, masks, avals))


def _needed(loop: Loop, moving: Operands, avals: Values) -> list[bool]:
    """What of the carry the pullback of a step reads, or another step to make that: the rest has no place in slots."""
    if loop.pullback is not None:
        return [True] * loop.num_carry
    jaxpr = jax.make_jaxpr(partial(_step_kept, loop, moving))(*avals)
    needed = [False] * loop.num_carry
    while True:
        asked = [*needed, *(True for _ in jaxpr.out_avals[loop.num_carry :])]
        used = loop.operands(_jax.inputs_used(jaxpr, asked)).init
        if used == needed:
            return needed
        needed = [a or b for a, b in zip(needed, used, strict=True)]


def _step_kept(loop: Loop, moving: Operands, *values: Any) -> Values:
    """The carry after a step, and what the step's pullback holds."""
    _, pullback, carry = _step_taped(loop, moving, values)
    return [*carry, *jax.tree.leaves(pullback)]


def _step_taped(loop: Loop, moving: Operands, values: Values) -> tuple[Values, Callable[..., Any], Values]:
    """A step's results that have derivatives, its pullback, and the carry."""

    def run(*some: Any) -> Any:
        found = core.jaxpr_as_fun(loop.jaxpr)(*merged(some, values, moving.flat))
        return [v for v in found if is_inexact(v)], found[: loop.num_carry]

    results, pullback, carry = jax.vjp(run, *chosen(values, moving.flat), has_aux=True)
    return results, pullback, carry


class StepBytes(NamedTuple):
    """What a step takes: what it hands to its pullback, what a block copies of its inputs for it, a slot.

    ``inputs`` are those of one step, and their cotangents.
    """

    residuals: int
    inputs: int
    slot: int


def step_bytes(loop: Loop) -> StepBytes:
    """What a gradient by all floating-point operands keeps of a step.

    Raises
    ------
    ValueError, NotImplementedError
        If JAX has no reverse mode for the body.
    """
    avals = list(loop.jaxpr.in_avals)
    moving = loop.operands(list(map(is_inexact, avals)))

    def pulled(*values: Any) -> Any:
        results, pullback, _ = _step_taped(loop, moving, values)
        return pullback(results)

    jax.eval_shape(pulled, *avals)  # what reverse mode refuses it may refuse only here
    kept = partial(_step_kept, loop, moving)
    jaxpr = jax.make_jaxpr(kept)(*avals).jaxpr
    varies = mapped_results(kept, avals, [i >= loop.num_consts for i in range(len(avals))])
    given = loop.operands(jaxpr.invars)
    free = {*given.consts, *given.xs, *jaxpr.constvars}
    pairs = list(zip(jaxpr.outvars, varies, strict=True))[loop.num_carry :]
    held: dict[Any, Any] = {v: v.aval for v, changes in pairs if changes and isinstance(v, core.Var) and v not in free}
    of_x = [v.aval for v in given.xs]
    slot = chosen([v.aval for v in given.init], _needed(loop, moving, avals))
    return StepBytes(nbytes(list(held.values())), nbytes([*of_x, *filter(is_inexact, of_x)]), nbytes(slot))


def _moved(f: Callable[..., Any], avals: Sequence[Any], moving: Sequence[bool]) -> list[bool]:
    """Which results of a function have a tangent if these arguments have one, as JAX itself sees it."""
    found: list[list[bool]] = []

    @jax.custom_jvp
    def probe(*results: Any) -> Any:
        return results

    def rule(results: Any, tangents: Any) -> Any:
        found.append([not isinstance(t, SymbolicZero) for t in tangents])
        return results, tangents

    probe.defjvp(rule, symbolic_zeros=True)

    def along(values: Sequence[Any], tangents: Sequence[Any]) -> Any:
        def run(*some: Any) -> Any:
            return probe(*f(*merged(some, values, moving)))

        return jax.jvp(run, chosen(values, moving), list(tangents))

    if not any(moving):
        return [False] * len(jax.eval_shape(f, *avals))
    jax.eval_shape(along, list(avals), chosen(avals, moving))
    return found[-1] if found else [False] * len(jax.eval_shape(f, *avals))  # JAX asks no rule where nothing moves


# ---------------------------------------------------------------- forward


class Kept(NamedTuple):
    """What the forward pass leaves for the backward pass, besides the operands."""

    slots: Values
    last: Any  # of the tail its pullback; with a pullback of steps the last activation


def sweep(loop: Loop, active: Active, operands: Operands) -> tuple[Values, Kept]:
    """Run the loop, store as the schedule says, tape the tail: its results, and what is kept."""
    consts, init, xs = operands
    schedule, c = loop.schedule, loop.schedule.block
    stores = schedule.first_stores  # a row a store: start, blocks, slot
    ys: Values = [many_zeros(y, schedule.depth) for y in loop.parted(loop.jaxpr.out_avals)[1]]
    slots = _empty_slots(schedule, chosen(init, active.needed))
    state: tuple[Values, Values] = (init, ys)
    stored = int(stores[:, 1].sum())
    # Blocks before each store, if always as many: XLA makes more of a loop whose trips it knows.
    even = int(stores[0, 1]) if len(stores) and (stores[:, 1] == stores[0, 1]).all() else 0

    def step(i: Any, state: tuple[Values, Values]) -> tuple[Values, Values]:
        h, y = loop.body(consts, state[0], at(xs, loop.place(i)))
        return h, put(state[1], y, loop.place(i))

    def to_slot(k: Any, carry: Any) -> Any:
        start, count, slot = jnp.asarray(stores)[k]
        slots, state = carry
        if even:
            state = _jax.fori_loop(0, even * c, lambda i, state: step(start * c + i, state), state)
        else:
            trips = {"trips": stored * c, "runs": len(stores)}
            state = _jax.told_loop(start * c, (start + count) * c, step, state, **trips)
        return _stored(schedule, slots, chosen(state[0], active.needed), slot), state

    slot_of = np.repeat(stores[:, 2], stores[:, 1])  # of each block the next slot that is filled

    def step_to_slot(i: Any, carry: Any) -> Any:
        slots, state = carry
        state = step(i, state)
        return _stored(schedule, slots, chosen(state[0], active.needed), jnp.asarray(slot_of)[i // c]), state

    if ys and stored:  # one loop: only then does XLA leave out outputs that nobody reads; a slot is written each step
        slots, state = _jax.fori_loop(0, stored * c, step_to_slot, (slots, state))
    elif stored:
        slots, state = _jax.fori_loop(0, len(stores), to_slot, (slots, state))
    if schedule.blocks > stored:
        state = _jax.fori_loop(stored * c, schedule.blocks * c, step, state)
    h, ys = state
    if not schedule.tail:
        return [*h, *ys], Kept(slots, h if loop.pullback else None)
    start = loop.place(schedule.blocks * c, schedule.tail)
    (h, ys_tail), pullback = taped(loop, active, consts, h, stretch(xs, start, schedule.tail), schedule.tail)
    return [*h, *put_stretch(ys, ys_tail, start)], Kept(slots, pullback)


# The slots. The first ones hold nothing but the input, which is there anyway: they are no part of the array.


def _empty_slots(schedule: Schedule, first: Values) -> Values:
    count = schedule.slots - schedule.input_slots
    if schedule.host:
        return [_jax.many_on_host(count, h) for h in first]
    return [jnp.broadcast_to(h, (count, *h.shape)) for h in first]


def _stored(schedule: Schedule, slots: Values, h: Values, slot: Any) -> Values:
    place = slot - schedule.input_slots
    with jax.named_scope(_jax.SLOTS):  # a plan calls them so
        if schedule.host:
            return [_put_on_host(held, v, place) for held, v in zip(slots, h, strict=True)]
        return put(slots, h, place)


def _loaded(schedule: Schedule, slots: Values, first: Values, slot: Any, position: Any) -> Values:
    if schedule.input_slots == schedule.slots:
        return first
    place = slot - schedule.input_slots
    held = [_at_host(v, place) for v in slots] if schedule.host else at(slots, place)
    return [jnp.where(position == 0, h, s) for h, s in zip(first, held, strict=True)]


# A host's memory takes and gives slices alone: of many loops at once, too, which JAX would gather and scatter.


@custom_vmap
def _at_host(held: Any, place: Any) -> Any:
    return _jax.on_device(lax.dynamic_index_in_dim(held, place, keepdims=False))


@_at_host.def_vmap
def _(_: int, batched: Any, held: Any, place: Any) -> Any:  # the place is the schedule's: the same for all
    return _jax.on_device(lax.dynamic_index_in_dim(held, place, int(batched[0]), keepdims=False)), batched[0]


@custom_vmap
def _put_on_host(held: Any, value: Any, place: Any) -> Any:
    return lax.dynamic_update_index_in_dim(held, _jax.on_host(value), place, 0)


@_put_on_host.def_vmap
def _(size: int, batched: Any, held: Any, value: Any, place: Any) -> Any:
    if not batched[0] and not batched[1]:
        return lax.dynamic_update_index_in_dim(held, _jax.on_host(value), place, 0), False
    many = held if batched[0] else jnp.broadcast_to(held, (size, *held.shape))
    each = value if batched[1] else jnp.broadcast_to(value, (size, *value.shape))
    return lax.dynamic_update_index_in_dim(many, _jax.on_host(each), place, 1), True


def taped(loop: Loop, active: Active, consts: Values, h: Values, xs: Values, count: int) -> Any:
    """A stretch of the loop with its pullback: (cotangents of constants so far, of the carry, of the outputs) -> those
    of constants by then, of the first carry, of the inputs; lists of what is differentiated.

    Constants' cotangents go along as a carry, so that there is one copy of them: the sums, in ``wide`` precision.
    """
    masks, results = active.operands, loop.parted(active.results)

    def run(moves: Values, h_a: Values, xs_a: Values) -> Any:
        def step(carry: tuple[Values, Values], x: Values) -> tuple[tuple[Values, Values], Values]:
            moves, h = carry
            moving, moves = _moving(chosen(consts, masks.consts), moves)
            h, y = loop.body(merged(moving, consts, masks.consts), h, x)
            return (moves, h), y

        start, inputs = (moves, merged(h_a, h, masks.init)), merged(xs_a, xs, masks.xs)
        if count == 1:  # not a loop of one trip: the partitioner would gather sharded weights for each way of it
            (moves, after), y = step(start, at(inputs, 0))
            ys = [v[None] for v in y]
        else:
            (moves, after), ys = _jax.scan(step, start, inputs, count, loop.reverse)
        return (moves, chosen(after, results[0]), chosen(ys, results[1])), (after, ys)

    still = [zeros_alike(v, wide(v.dtype)) for v in chosen(consts, masks.consts)]
    _, pullback, out = jax.vjp(run, still, chosen(h, masks.init), chosen(xs, masks.xs), has_aux=True)
    return out, pullback


@jax.custom_jvp
def _moving(values: Values, moves: Values) -> tuple[Values, Values]:
    """The values with the tangents of ``moves``, and these: what comes back untouched is a constant to a scan."""
    return values, moves


@_moving.defjvp
def _(primals: Any, tangents: Any) -> Any:
    moved = [t.astype(v.dtype) for v, t in zip(primals[0], tangents[1], strict=True)]
    return primals, (moved, tangents[1])


# ---------------------------------------------------------------- backward


def backward(loop: Loop, active: Active, operands: Operands, kept: Kept, cotangents: Sequence[Any]) -> Values:
    """Cotangents of the operands that are differentiated, from those of the results, None where zero."""
    consts, init, xs = operands
    masks, schedule, c = active.operands, loop.schedule, loop.schedule.block
    if loop.pullback is not None and any(masks.consts):
        raise TypeError("a pullback has no gradient for what the layer closes over: pass it in params")
    moves, steps = _tables(schedule)
    g, g_ys = loop.parted(cotangents)
    g = [zeros_alike(h) if ct is None else ct for h, ct, m in zip(init, g, masks.init, strict=True) if m]
    active_ys, of_y = loop.parted(active.results)[1], loop.parted(loop.jaxpr.out_avals)[1]

    def of_outputs(start: Any, count: int) -> Values:
        return [
            many_zeros(y, count) if ct is None else lax.dynamic_slice_in_dim(ct, start, count)
            for ct, y in zip(chosen(g_ys, active_ys), chosen(of_y, active_ys), strict=True)
        ]

    g_consts: Values = [zeros_alike(v, wide(v.dtype)) for v in chosen(consts, masks.consts)]
    g_xs: Values = [zeros_alike(v) for v in chosen(xs, masks.xs)]
    if schedule.tail:
        start = loop.place(schedule.blocks * c, schedule.tail)
        g_consts, g, of_tail = kept.last((g_consts, g, of_outputs(start, schedule.tail)))
        g_xs = put_stretch(g_xs, of_tail, start)

    # What of the carry nobody reads may be anything; not the first carry itself, which would then be kept.
    anything = [lax.full_like(h, 0) if not m else h for h, m in zip(init, active.needed, strict=True)]

    def advance(h: Values, start: Any, count: Any, counts: np.ndarray) -> Values:
        """Run so many blocks: one of these counts, all of which are run once."""

        def step(i: Any, h: Values) -> Values:
            h, _ = loop.body(consts, merged(h, anything, active.needed), at(xs, loop.place(i)))
            return chosen(h, active.needed)

        trips = {"trips": int(counts.sum(dtype=np.int64)) * c, "runs": len(counts)}
        return _jax.told_loop(start * c, (start + count) * c, step, h, **trips)

    first = chosen(init, active.needed)

    def hand_over(slots: Values, step: Any) -> tuple[Values, Values]:
        """Run the moves before a backward step; return the activation that it needs and the slots."""

        def move(k: Any, slots: Values) -> Values:
            load, start, count, store = jnp.asarray(moves)[k]
            h = advance(_loaded(schedule, slots, first, load, start), start, count, moves[:, 2])
            return _stored(schedule, slots, h, store)

        if steps[-1, STEP.end_move]:  # otherwise there are none
            trips = {"trips": len(moves), "runs": len(steps)}
            slots = _jax.told_loop(step[STEP.first_move], step[STEP.end_move], move, slots, **trips)
        h = _loaded(schedule, slots, first, step[STEP.load], step[STEP.at])
        counts = steps[:, STEP.advance]
        return advance(h, step[STEP.at], step[STEP.advance], counts) if counts.any() else h, slots

    def backward_step(carry: Any, step: Any) -> Any:
        slots, h_out, g, g_consts, g_xs = carry
        with jax.named_scope(_jax.AGAIN):
            h, slots = hand_over(slots, step)
        start = loop.place((step[STEP.at] + step[STEP.advance]) * c, c)
        if loop.pullback is None:
            h = merged(h, anything, active.needed)
            with jax.named_scope(_jax.AGAIN):
                _, pullback = taped(loop, active, consts, h, stretch(xs, start, c), c)
            g_consts, g, of_xs = pullback((g_consts, g, of_outputs(start, c)))
            g_xs = put_stretch(g_xs, of_xs, start)
        else:
            x = at(xs, start)
            of_x, of_h = loop.pullback(x, h, h_out, spread(g, masks.init))
            g, g_xs, h_out = chosen(of_h, masks.init), put(g_xs, chosen(of_x, masks.xs), start), h
        return (slots, h_out, g, g_consts, g_xs), None

    if schedule.blocks:
        carry = (kept.slots, kept.last if loop.pullback else None, g, g_consts, g_xs)
        (_, _, g, g_consts, g_xs), _ = _jax.scan(backward_step, carry, jnp.asarray(steps))
    narrow = [ct.astype(v.dtype) for ct, v in zip(g_consts, chosen(consts, masks.consts), strict=True)]
    return [*narrow, *g, *g_xs]


class _StepColumns(NamedTuple):
    """Columns of the table of backward steps; the moves from first_move to end_move come before the step."""

    load: int = 0
    at: int = 1
    advance: int = 2
    first_move: int = 3
    end_move: int = 4


STEP = _StepColumns()


def _tables(schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Rows that store, (load, at, advance, store), and rows that end in a backward step, see _StepColumns.

    Those of the first sweep are left out. A row that does both becomes one of each; the step then loads what the move
    stored.
    """
    table = schedule.table[schedule.first_sweep :]
    load, at, advance, store, backward = table.T
    stores, ends = _stores(table), backward == 1
    moves = table[stores][:, [LOAD, AT, ADVANCE, STORE]]
    steps = np.where(stores, [store, at + advance, np.zeros_like(at)], [load, at, advance])[:, ends]
    done = np.cumsum(stores)[ends]  # moves before each step
    steps = np.stack([*steps, np.concatenate([[0], done])[: len(done)], done], 1).astype(np.int32)
    return moves if len(moves) else np.zeros((1, 4), np.int32), steps


def _stores(table: Table) -> np.ndarray:
    """Which rows fill a slot: the input needs none."""
    return (table[:, STORE] != NO_STORE) & (table[:, AT] + table[:, ADVANCE] > 0)


# ---------------------------------------------------------------- derivatives


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, loop: Loop, **_: Any) -> tuple[Values, Values]:
    found, moved = _linearised(
        loop, arrays(primals, loop.jaxpr.in_avals), [None if isinstance(t, ad.Zero) else t for t in tangents]
    )
    return found, [ad.Zero(t.aval) if isinstance(t, SymbolicZero) else t for t in moved]


def _linearised(loop: Loop, primals: Values, tangents: Values) -> tuple[Values, Values]:
    """Results and their tangents; transposed, the tangents are the scheduled backward pass."""
    moving = [t is not None for t in tangents]
    active = activity(loop, loop.operands(moving))
    structure: list[Any] = []

    @jax.custom_jvp
    def swept(*flat: Any) -> Any:
        results, kept = sweep(loop, active, loop.operands(flat))
        leaves, tree = jax.tree.flatten(kept)
        structure[:] = [tree]
        return results, leaves

    def rule(flat: Any, changes: Any) -> Any:  # of a derivative of the derivative
        flat, changes = arrays(flat, loop.jaxpr.in_avals), [None if isinstance(t, SymbolicZero) else t for t in changes]
        results, leaves = swept(*flat)
        _, moved = _linearised(loop, flat, changes)
        return (results, leaves), (moved, list(map(no_tangent, leaves)))

    swept.defjvp(rule, symbolic_zeros=True)
    results, leaves = swept(*primals)

    def pushed(checkpoint: bool, residuals: Values, changes: Values) -> Values:
        flat = residuals[: len(primals)]

        def run(*some: Any) -> Values:
            return chosen(plain(loop, loop.operands(merged(some, flat, moving)), checkpoint), active.results)

        return jax.jvp(run, chosen(flat, moving), list(changes))[1]

    def pulled(residuals: Values, cotangents: Values) -> Values:
        flat, rest = residuals[: len(primals)], residuals[len(primals) :]
        found = _gradient(loop, active, structure[0], flat, rest, spread(cotangents, active.results))
        return chosen(spread(found, active.operands.flat), moving)

    linear = Linear(partial(pushed, False), partial(pushed, True), pulled)
    moved = linear([*primals, *leaves], chosen(tangents, moving))
    return results, merged(moved, list(map(no_tangent, results)), active.results)


def _gradient(loop: Loop, active: Active, tree: Any, flat: Values, leaves: Values, cotangents: Values) -> Values:
    """The backward pass, which can be differentiated in both modes by the operands and the cotangents."""
    given = [ct is not None for ct in cotangents]

    def scheduled(flat: Values, cotangents: Values, kept: Kept) -> Values:
        return backward(loop, active, loop.operands(flat), kept, spread(cotangents, given))

    def again(flat: Values, cotangents: Values) -> Values:
        return scheduled(flat, cotangents, sweep(loop, active, loop.operands(flat))[1])

    def rematerialised(flat: Values, cotangents: Values) -> Values:
        def run(*some: Any) -> Values:
            return chosen(plain(loop, loop.operands(merged(some, flat, mask)), True), given)

        mask = active.operands.flat
        return list(jax.vjp(run, *chosen(flat, mask))[1](list(cotangents)))

    @jax.custom_jvp
    def gradient(flat: Values, cotangents: Values, leaves: Values) -> Values:
        return scheduled(flat, cotangents, jax.tree.unflatten(tree, leaves))

    def rule(primals: Any, tangents: Any) -> Any:
        arguments = [*primals[0], *primals[1]]
        changes = [*tangents[0], *tangents[1]]  # what is kept follows from the operands
        mask = [not isinstance(t, SymbolicZero) for t in changes]

        def pushed(f: Callable[[Values, Values], Values], residuals: Values, moved: Values) -> Values:
            def run(*some: Any) -> Values:
                values = merged(some, residuals, mask)
                return f(values[: len(flat)], values[len(flat) :])

            return jax.jvp(run, chosen(residuals, mask), list(moved))[1]

        def pulled(residuals: Values, given: Values) -> Values:
            def run(*some: Any) -> Values:
                values = merged(some, residuals, mask)
                return rematerialised(values[: len(flat)], values[len(flat) :])

            results, pullback = jax.vjp(run, *chosen(residuals, mask))
            return list(pullback([zeros_alike(r) if ct is None else ct for r, ct in zip(results, given, strict=True)]))

        linear = Linear(partial(pushed, again), partial(pushed, rematerialised), pulled)
        found = gradient(*primals)
        return found, linear(arguments, chosen(changes, mask)) if any(mask) else list(map(no_tangent, found))

    gradient.defjvp(rule, symbolic_zeros=True)
    return gradient(list(flat), chosen(cotangents, given), list(leaves))


def _batch(axis: Any, flat: Any, dims: Any, *, loop: Loop, **_: Any) -> tuple[Values, Values]:
    """Many loops at once are one loop whose body does many steps at once; what they share stays single."""
    options = {"axis_name": axis.name, "axis_size": axis.size, "spmd_axis_name": axis.spmd_name}
    mapped, body = loop.operands([d is not None for d in dims]), core.jaxpr_as_fun(loop.jaxpr)
    avals = list(loop.jaxpr.in_avals)
    carried = [loop.pullback is not None or m for m in mapped.init]
    while True:
        inside = [*mapped.consts, *carried, *mapped.xs]
        found = mapped_results(body, avals, inside, **options)
        after = [old or new for old, new in zip(carried, found, strict=False)]
        if after == carried:
            break
        carried = after
    axes = [0 if m else None for m in inside]
    many = jax.vmap(body, axes, [0 if m else None for m in found], **options)
    jaxpr = jax.make_jaxpr(many)(*(_batched(a, axis.size) if m else a for a, m in zip(avals, inside, strict=True)))
    made = replace(
        loop,
        jaxpr=jaxpr,
        pullback=loop.pullback and _many_pullbacks(loop.pullback, [not m for m in mapped.xs], options),
    )
    where = loop.operands(dims)
    operands = Operands(
        [_moved_axis(v, d, 0) for v, d in zip(loop.operands(flat).consts, where.consts, strict=True)],
        [
            batching.bdim_at_front(v, d, axis.size) if m else v
            for v, d, m in zip(loop.operands(flat).init, where.init, carried, strict=True)
        ],
        [_moved_axis(v, d, 1) for v, d in zip(loop.operands(flat).xs, where.xs, strict=True)],
    )
    h, ys = made(operands)
    ends = [*(0 for _ in h), *(1 for _ in ys)]
    return [*h, *ys], [place if m else None for place, m in zip(ends, found, strict=True)]


def mapped_results(
    f: Callable[..., Any], avals: Sequence[Any], mapped: Sequence[bool], axis_size: int = 2, **options: Any
) -> list[bool]:
    """Which results of a function differ from one to the next of many if these arguments do."""
    found: list[list[bool]] = []

    @custom_vmap
    def probe(*results: Any) -> Any:
        return results

    @probe.def_vmap
    def _(_: int, batched: Any, *results: Any) -> Any:
        found.append(list(batched))
        return results, tuple(batched)

    shapes = [_batched(a, axis_size) if m else a for a, m in zip(avals, mapped, strict=True)]
    axes = [0 if m else None for m in mapped]
    jax.eval_shape(jax.vmap(lambda *values: probe(*f(*values)), axes, axis_size=axis_size, **options), *shapes)
    return found[-1] if found else [False] * len(jax.eval_shape(f, *avals))


def _batched(aval: Any, size: int) -> Any:
    return jax.eval_shape(lambda value: jnp.broadcast_to(value, (size, *aval.shape)), aval)


def _moved_axis(value: Any, source: int | None, place: int) -> Any:
    return value if source is None else jnp.moveaxis(value, source, place)


def _many_pullbacks(pullback: Pullback, shared: Sequence[bool], options: Any) -> Pullback:
    """The pullbacks of many steps: cotangents of inputs that they share are added up."""

    def rule(x: Values, h_in: Values, h_out: Values, g: Values) -> tuple[Values, Values]:
        axes = [None if s else 0 for s in shared]
        of_x, of_h = jax.vmap(pullback, (axes, 0, 0, 0), **options)(x, h_in, h_out, g)
        return [ct.sum(0) if s else ct for ct, s in zip(of_x, shared, strict=True)], of_h

    return rule


def _run(*operands: Any, loop: Loop, **_: Any) -> Values:
    return plain(loop, loop.operands(operands))


def _avals(*_avals: Any, loop: Loop, length: int, **_: Any) -> Values:
    carry, ys = loop.parted(loop.jaxpr.out_avals)
    return [*carry, *(y.update(shape=(length, *y.shape)) for y in ys)]


loop_p = core.Primitive(_jax.SCHEDULED)
loop_p.multiple_results = True
loop_p.def_impl(_run)
loop_p.def_abstract_eval(_avals)
mlir.register_lowering(loop_p, mlir.lower_fun(_run, multiple_results=True))
ad.primitive_jvps[loop_p] = _jvp
batching.fancy_primitive_batchers[loop_p] = _batch
