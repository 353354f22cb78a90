"""A loop that ends when its data say so, differentiable in reverse with a few slots: ``while_loop``.

How many steps there will be is known when they have been made. So the forward pass keeps every step that is a multiple
of a stride, and doubles the stride when the slots are full; the backward pass knows the number of steps, and takes the
optimum for the slots that become free.

References
----------
Stumm and Walther, "New algorithms for optimal online checkpointing", SIAM J. Sci. Comput. 32 (2010).
Wang, Moin and Iaccarino, "Minimal repetition dynamic checkpointing algorithm", SIAM J. Sci. Comput. 31 (2009).
Griewank and Walther, "Algorithm 799: revolve", ACM TOMS 26 (2000), for the backward pass.
"""

from collections.abc import Callable, Sequence
from math import comb
from operator import index
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend import core

from adcost import _jax
from adcost.checkpointing.alike import zeros_alike
from adcost.checkpointing.executor import Active, Loop, Operands, activity, taped
from adcost.checkpointing.linear import Linear
from adcost.checkpointing.schedules import blocks
from adcost.checkpointing.values import Values, arrays, at, chosen, merged, no_tangent, put, spread, wide

Carry = TypeVar("Carry")
FREE = -1  # the position of a slot that holds nothing


def while_loop(
    cond: Callable[[Carry], Any], body: Callable[[Carry], Carry], init: Carry, *, max_steps: int, slots: int
) -> Carry:
    """``lax.while_loop`` that reverse mode differentiates; its memory is ``slots`` carries, whatever its steps.

    Parameters
    ----------
    cond, body, init
        As those of ``lax.while_loop``. What ``body`` closes over is differentiated too.
    max_steps
        The loop ends after so many steps, whatever ``cond`` says. It costs no memory.
    slots
        Carries that may be held at most, the first among them.

    Returns
    -------
    The last carry. Forward mode is that of ``lax.while_loop``, also over reverse mode; a second reverse mode is
    refused by JAX.

    Raises
    ------
    ValueError
        If ``max_steps`` or ``slots`` is below 1.

    References
    ----------
    jax #8239: a bounded loop that stops early costs far more backwards than forwards.
    """
    if index(max_steps) < 1 or index(slots) < 1:
        raise ValueError(f"while_loop needs max_steps and slots of at least 1, got {max_steps} and {slots}")
    closed, shape = jax.make_jaxpr(lambda init: lax.while_loop(cond, body, init), return_shape=True)(init)

    def by_slots(eqn: Any) -> Any:
        if eqn.primitive.name != "while":
            return None
        return lambda operands: _looped(_Bounded.of(eqn, max_steps, slots), operands)

    found = _jax.evaluated_program(closed, jax.tree.leaves(init), by_slots)
    return jax.tree.unflatten(jax.tree.structure(shape), found)


class _Bounded(NamedTuple):
    """A while loop: when it goes on, its step as a loop's body, and what it may take."""

    cond: Any  # closed jaxpr
    num_cond: int  # constants of cond; they come first
    loop: Loop
    max_steps: int
    slots: int

    @classmethod
    def of(cls, eqn: Any, max_steps: int, slots: int) -> "_Bounded":
        parts = _jax.while_parts(eqn)
        loop = Loop(parts.body, len(parts.body_consts), len(parts.init), False, blocks(0))
        return cls(parts.cond, len(parts.cond_consts), loop, max_steps, slots)

    def goes_on(self, flat: Values, h: Values, steps: Any) -> Any:
        (more,) = core.jaxpr_as_fun(self.cond)(*flat[: self.num_cond], *h)
        return jnp.logical_and(more, steps < self.max_steps)

    def operands(self, flat: Values) -> Operands:
        return self.loop.operands(flat[self.num_cond :])

    def step(self, consts: Values, h: Values) -> Values:
        return self.loop.body(consts, h, [])[0]


def _plain(bounded: _Bounded, flat: Values) -> Values:
    consts, init, _ = bounded.operands(flat)
    found = lax.while_loop(
        lambda state: bounded.goes_on(flat, *state),
        lambda state: (bounded.step(consts, state[0]), state[1] + 1),
        (init, jnp.int32(0)),
    )
    return list(found[0])


class _Online(NamedTuple):
    """What the forward pass leaves: how many steps it made, and which positions stand in the slots."""

    steps: Any
    positions: Any
    held: Values


def _sweep(bounded: _Bounded, active: Active, flat: Values) -> tuple[Values, _Online]:
    consts, init, _ = bounded.operands(flat)
    slots = bounded.slots

    def run_to(end: Any, h: Values, steps: Any) -> tuple[Values, Any]:
        return lax.while_loop(
            lambda state: jnp.logical_and(bounded.goes_on(flat, *state), state[1] < end),
            lambda state: (bounded.step(consts, state[0]), state[1] + 1),
            (h, steps),
        )

    def to_next(state: Any) -> Any:
        h, stride, (steps, positions, held) = state
        h, steps = run_to((steps // stride + 1) * stride, h, steps)
        full = jnp.all(positions != FREE)
        stride = jnp.where(full, 2 * stride, stride)
        positions = jnp.where(positions % stride == 0, positions, FREE)
        slot = jnp.argmin(positions)  # a free one: there is one after each doubling
        positions = positions.at[slot].set(jnp.where(steps % stride == 0, steps, FREE))
        return h, stride, _Online(steps, positions, put(held, chosen(h, active.needed), slot))

    positions = jnp.full(slots, FREE, jnp.int32).at[0].set(0)
    held = [jnp.broadcast_to(h, (slots, *h.shape)) for h in chosen(init, active.needed)]
    if slots == 1:
        h, steps = run_to(jnp.int32(bounded.max_steps), init, jnp.int32(0))
        return h, _Online(steps, positions, held)
    h, _, online = lax.while_loop(
        lambda state: bounded.goes_on(flat, state[0], state[2].steps),
        to_next,
        (init, jnp.int32(1), _Online(jnp.int32(0), positions, held)),
    )
    return h, online


def _backward(bounded: _Bounded, active: Active, flat: Values, online: _Online, cotangents: Values) -> Values:
    """Cotangents of constants and init that are differentiated."""
    consts, init, _ = bounded.operands(flat)
    masks, reach = active.operands, _reach(bounded.slots, bounded.max_steps)
    anything = [lax.full_like(h, 0) if not m else h for h, m in zip(init, active.needed, strict=True)]
    g = [zeros_alike(h) if ct is None else ct for h, ct, m in zip(init, cotangents, masks.init, strict=True) if m]
    g_consts = [zeros_alike(v, wide(v.dtype)) for v in chosen(consts, masks.consts)]

    def advance(h: Values, count: Any) -> Values:
        def step(_: Any, h: Values) -> Values:
            return chosen(bounded.step(consts, merged(h, anything, active.needed)), active.needed)

        return _jax.fori_loop(0, count, step, h)

    def back(state: Any) -> Any:
        (i, positions, held), g, g_consts = state
        i = i - 1
        positions = jnp.where(positions > i, FREE, positions)
        slot = jnp.argmax(positions)

        def split(part: Any) -> Any:
            h, start, positions, held = part
            count = _first_part(reach, i - start + 1, jnp.sum(positions == FREE) + 1)
            h, start, slot = advance(h, count), start + count, jnp.argmin(positions)
            return h, start, positions.at[slot].set(start), put(held, h, slot)

        def splits(part: Any) -> Any:
            _, start, positions, _ = part
            return jnp.logical_and(start < i - 1, jnp.any(positions == FREE))

        part = (at(held, slot), positions[slot], positions, held)
        h, start, positions, held = lax.while_loop(splits, split, part)
        h = advance(h, i - start)
        _, pullback = taped(bounded.loop, active, consts, merged(h, anything, active.needed), [], 1)
        g_consts, g, _ = pullback((g_consts, g, []))
        return _Online(i, positions, held), g, g_consts

    _, g, g_consts = lax.while_loop(lambda state: state[0].steps > 0, back, (online, g, g_consts))
    narrow = [ct.astype(v.dtype) for ct, v in zip(g_consts, chosen(consts, masks.consts), strict=True)]
    return [*narrow, *g]


def _reach(slots: int, most: int) -> np.ndarray:
    """Row s, column r: the longest chain that s slots reverse with r repeats; as far as two slots need columns."""
    most = min(most, 2**31 - 2)  # positions are of 32 bits
    columns = next(r for r in range(1, most + 2) if (r + 1) * (r + 2) // 2 > most)
    rows = [[min(comb(s + r, s), most + 1) for r in range(columns + 1)] for s in range(slots + 1)]
    return np.array(rows, np.int32)


def _first_part(reach: np.ndarray, length: Any, slots: Any) -> Any:
    """Of a chain to be reversed with so many slots (two or more) the steps before the next one that is kept."""
    of, fewer = jnp.asarray(reach)[slots], jnp.asarray(reach)[slots - 1]
    repeats = jnp.maximum(jnp.searchsorted(of, length.astype(of.dtype)), 1)
    return jnp.maximum(jnp.minimum(of[repeats - 1], length - fewer[repeats - 1]), 1)


def _looped(bounded: _Bounded, operands: Sequence[Any]) -> Values:
    avals = [*bounded.cond.in_avals[: bounded.num_cond], *bounded.loop.jaxpr.in_avals]

    @jax.custom_jvp
    def looped(*flat: Any) -> Values:
        return _plain(bounded, flat)

    def rule(flat: Any, tangents: Any) -> Any:
        mask, flat = [not isinstance(t, SymbolicZero) for t in tangents], arrays(flat, avals)
        active = activity(bounded.loop, bounded.operands(mask))
        results, online = _sweep(bounded, active, flat)
        leaves, tree = jax.tree.flatten(online)
        moving = [*(False for _ in mask[: bounded.num_cond]), *mask[bounded.num_cond :]]

        def pushed(residuals: Values, changes: Values) -> Values:
            given = residuals[: len(flat)]

            def run(*some: Any) -> Values:
                return chosen(_plain(bounded, merged(some, given, moving)), active.results)

            return list(jax.jvp(run, chosen(given, moving), list(changes))[1])

        def pulled(residuals: Values, cotangents: Values) -> Values:
            given, kept = residuals[: len(flat)], jax.tree.unflatten(tree, residuals[len(flat) :])
            found = _backward(bounded, active, given, kept, spread(cotangents, active.results))
            return chosen(spread(found, active.operands.flat), moving[bounded.num_cond :])

        moved: Values = []
        if any(moving):
            moved = Linear(pushed, pushed, pulled)([*flat, *leaves], chosen(tangents, moving))
        return results, merged(moved, list(map(no_tangent, results)), active.results)

    looped.defjvp(rule, symbolic_zeros=True)
    return looped(*arrays(operands, avals))
