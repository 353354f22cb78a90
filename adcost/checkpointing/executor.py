"""One executor that runs any checkpointing schedule as one compiled program.

The program is a loop over the schedule's rows, so its size does not depend on the depth. XLA's buffer
assignment shapes it; each of these rules was found by measuring what it costs to break it (JAX 0.10.2):

- no ``lax.cond`` in the loop, because a conditional copies the slots: the rows are sorted beforehand into
  moves that store and moves that end in a backward step, and nothing is left to decide at run time;
- the slots are one array, updated in place;
- a value that outlives an update of the slots is a register of its own in the loop's carry.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes, lax

from adcost.checkpointing.schedules import ADVANCE, AT, LOAD, NO_STORE, STORE, Schedule

Tree = Any  # a pytree of arrays
Layer = Callable[[Tree, Tree], Tree]
ADVANCING, MOVING = "checkpointing_advance", "checkpointing_move"  # the names of its loops in a jaxpr
Pullback = Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Tree]]


def checkpointed_chain(
    layer: Layer, schedule: Schedule, pullback: Pullback | None = None
) -> Callable[[Tree, Tree], Tree]:
    """Chain of layers whose backward pass follows a checkpointing schedule.

    Parameters
    ----------
    layer
        ``layer(params_i, h) -> h``; pytrees, the carry ``h`` keeps its structure, shapes and dtypes.
    schedule
        What to keep and what to compute again, for ``schedule.depth`` layers.
    pullback
        ``pullback(params_i, h_in, h_out, cotangent) -> (params_cotangent, h_cotangent)``: the layer's backward
        step from its stored input and output. With it no layer is evaluated more than ``schedule.evaluations``
        counts. Without it every backward step runs ``jax.vjp`` of the layer: ``schedule.taped_evaluations``.

    Returns
    -------
    ``f(params, x) -> h_depth``: each leaf of ``params`` has a leading axis of length ``depth``. Differentiable in
    reverse mode with respect to both, under ``jit`` and inside a larger loss. Leaves that are not floating point
    (keys, counters) are carried along and get no gradient.

    Raises
    ------
    ValueError
        When called, if ``params`` has another depth.
    TypeError
        When called, if the layer changes the structure, a shape or a dtype of its carry.
    """
    moves, steps = _tables(schedule)

    def advance(params: Tree, h: Tree, start: jax.Array, count: jax.Array) -> Tree:
        with jax.named_scope(ADVANCING):
            return lax.fori_loop(start, start + count, lambda i, h: layer(_at(params, i), h), h)

    def hand_over(params: Tree, held: Tree, step: jax.Array) -> tuple[Tree, Tree]:
        """Run the moves before a backward step; return the activation that it needs and the slots."""

        def move(k: jax.Array, held: Tree) -> Tree:
            load, start, count, store = jnp.asarray(moves)[k]
            return _put(held, advance(params, _at(held, load), start, count), store)

        with jax.named_scope(MOVING):
            held = lax.fori_loop(step[STEP.first_move], step[STEP.end_move], move, held)
        h = advance(params, _at(held, step[STEP.load]), step[STEP.at], step[STEP.advance])
        return h, held

    @jax.custom_vjp
    def run(params: Tree, x: Tree) -> Tree:
        return advance(params, x, jnp.int32(0), jnp.int32(schedule.depth))

    def run_fwd(params: Tree, x: Tree) -> tuple[Tree, Tree]:
        held = jax.tree.map(lambda a: jnp.broadcast_to(a, (schedule.slots, *a.shape)), x)
        h, held = hand_over(params, held, jnp.asarray(steps[0]))
        return h, (params, held, None if pullback is None else h)

    def run_bwd(residuals: Tree, cotangent: Tree) -> tuple[Tree, Tree]:
        params, held, h_out = residuals

        def backward_step(carry: Tree, step: jax.Array) -> tuple[Tree, None]:
            held, h_out, g, gradients = carry
            h_in, held = hand_over(params, held, step)
            i = step[STEP.at] + step[STEP.advance]
            params_i, g = _at(params, i), _with_float0(g, h_in)
            if pullback is None:
                params_g, g = jax.vjp(layer, params_i, h_in)[1](g)
            else:
                params_g, g = pullback(params_i, h_in, h_out, g)
                h_out = h_in
            return (
                held,
                h_out,
                _differentiable(g, h_in),
                _put(gradients, _differentiable(params_g, params_i), i),
            ), None

        gradients = _differentiable(jax.tree.map(lambda a: jnp.zeros_like(a) if _is_inexact(a) else a, params), params)
        start = (held, h_out, _differentiable(cotangent, _at(held, 0)), gradients)
        (held, _, g, gradients), _ = lax.scan(backward_step, start, jnp.asarray(steps[1:]))
        return _with_float0(gradients, params), _with_float0(g, _at(held, 0))

    run.defvjp(run_fwd, run_bwd)

    def chain(params: Tree, x: Tree) -> Tree:
        _check(layer, schedule.depth, params, x)
        return run(params, jax.tree.map(jnp.asarray, x))

    return chain


def loop_trips(schedule: Schedule) -> dict[str, int]:
    """Total trips of the executor's loops whose bounds are data, by the ``named_scope`` they run in."""
    moves, steps = _tables(schedule)
    stores = int((schedule.table[:, STORE] != NO_STORE).sum())
    return {ADVANCING: int(moves[:, ADVANCE].sum() + steps[:, STEP.advance].sum()), MOVING: stores}


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

    A row that does both becomes one of each; the step then loads what the move stored.
    """
    load, at, advance, store, backward = schedule.table.T
    stores, ends = store != NO_STORE, backward == 1
    moves = schedule.table[stores][:, [LOAD, AT, ADVANCE, STORE]]
    steps = np.where(stores, [store, at + advance, np.zeros_like(at)], [load, at, advance])[:, ends]
    done = np.cumsum(stores)[ends]  # moves before each step
    steps = np.stack([*steps, np.concatenate([[0], done[:-1]]), done], 1).astype(np.int32)
    return moves if len(moves) else np.zeros((1, 4), np.int32), steps


def _at(tree: Tree, i: jax.Array | int) -> Tree:
    return jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, i, keepdims=False), tree)


def _put(tree: Tree, entry: Tree, i: jax.Array) -> Tree:
    return jax.tree.map(lambda a, v: lax.dynamic_update_index_in_dim(a, v, i, 0), tree, entry)


# A cotangent of a leaf that is not floating point is a float0 array, which no loop can carry: it is left out
# of the carry (None) and put back where JAX asks for it.


def _is_inexact(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jnp.inexact)


def _differentiable(cotangent: Tree, like: Tree) -> Tree:
    return jax.tree.map(lambda a, g: g if _is_inexact(a) else None, like, cotangent)


def _with_float0(cotangent: Tree, like: Tree) -> Tree:
    return jax.tree.map(lambda a, g: g if _is_inexact(a) else np.zeros(a.shape, dtypes.float0), like, cotangent)


def _check(layer: Layer, depth: int, params: Tree, x: Tree) -> None:
    lengths = {jnp.shape(a)[:1] for a in jax.tree.leaves(params)}
    if lengths != {(depth,)}:
        found = ", ".join(str(length[0]) if length else "none" for length in sorted(lengths)) or "no leaves"
        raise ValueError(f"params need a leading axis of length {depth}, the schedule's depth; found: {found}")
    h = jax.eval_shape(lambda tree: tree, x)
    out = jax.eval_shape(lambda params, x: layer(_at(params, 0), x), params, x)
    if jax.tree.map(lambda a: (a.shape, a.dtype), h) != jax.tree.map(lambda a: (a.shape, a.dtype), out):
        raise TypeError(f"the layer must keep its carry's structure, shapes and dtypes; it turned {h} into {out}")
