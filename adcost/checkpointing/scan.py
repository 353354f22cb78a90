"""A loop by a schedule: ``scan`` in the place of ``lax.scan``, ``checkpointed_chain`` for layers with parameters."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend import core

from adcost import _jax
from adcost.checkpointing.executor import Loop, step_bytes
from adcost.checkpointing.schedules import Schedule, blocks

Tree = Any  # a pytree of arrays
Carry = TypeVar("Carry")
Layer = Callable[[Tree, Tree], Tree]
Pullback = Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Tree]]
Scheduled = Schedule | Callable[[int], Schedule]


def scan(
    f: Callable[[Carry, Any], tuple[Carry, Any]],
    init: Carry,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    *,
    schedule: Scheduled,
) -> tuple[Carry, Any]:
    """``lax.scan`` whose backward pass follows a checkpointing schedule.

    Parameters
    ----------
    f, init, xs, length, reverse
        As those of ``lax.scan``. What ``f`` closes over is differentiated too.
    schedule
        What to keep and what to compute again, or a function of the length that makes it: ``adcost.sqrt``.

    Returns
    -------
    The last carry and the outputs of all steps. Both modes differentiate them, to any order: reverse mode holds the
    schedule's slots instead of all residuals, forward mode is that of ``lax.scan``. Under ``jit`` and ``vmap``, in
    other loops and in ``jax.checkpoint`` as anywhere. Cotangents of constants in less than 32 bits are added up in 32.

    Raises
    ------
    ValueError
        If the schedule is for another length.
    TypeError
        If the carry changes its type; the message of ``lax.scan``.

    References
    ----------
    jax #2139: what people ask for.
    """
    return _looped(lambda init, xs: _jax.scan(f, init, xs, length, reverse), init, xs, schedule)


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
    ``f(params, x) -> h_depth``: each leaf of ``params`` has a leading axis of length ``depth``; without leaves all
    layers are the same. Differentiable with respect to both, and to what the layer closes over, under ``jit`` and
    inside a larger loss. Leaves that are not floating point (keys, counters) are carried along and get no gradient.

    Raises
    ------
    ValueError
        When called, if ``params`` has another depth.
    TypeError
        When called, if the layer changes the structure, a shape or a dtype of its carry; or, differentiated, if the
        pullback gives another structure than the layer's arguments, or the layer closes over what is differentiated.
    """

    def chain(params: Tree, x: Tree) -> Tree:
        _check(layer, schedule.depth, params, x)
        rule = None if pullback is None else _flat(pullback, params, x)
        return _looped(
            lambda x, params: _jax.scan(lambda h, p: (layer(p, h), None), x, params, schedule.depth),
            x,
            params,
            schedule,
            rule,
        )[0]

    return chain


def residuals(
    f: Callable[[Carry, Any], tuple[Carry, Any]], init: Carry, xs: Any = None, length: int | None = None
) -> float:
    """What a step of a loop hands to its backward pass, in carries: what ``within`` asks for.

    Parameters
    ----------
    f, init, xs, length
        As those of ``lax.scan``; ``init`` and ``xs`` may be of ``jax.ShapeDtypeStruct``.

    Returns
    -------
    Bytes over those of what a slot holds of the carry: the residuals that differ from step to step, and a copy of the
    step's inputs and of their cotangents, which a block makes. Constants are not among them; 0 without a carry.

    Raises
    ------
    ValueError, NotImplementedError
        If JAX has no reverse mode for ``f``.
    """
    closed = jax.make_jaxpr(lambda init, xs: _jax.scan(f, init, xs, length))(init, xs)
    (parts,) = (_jax.scan_parts(eqn) for eqn in closed.jaxpr.eqns if eqn.primitive.name == "scan")
    found = step_bytes(loop_of(parts, blocks(parts.length)))
    return (found.residuals + found.inputs) / found.slot if found.slot else 0.0


def _looped(plain: Callable[[Any, Any], Any], init: Any, xs: Any, schedule: Scheduled, pullback: Any = None) -> Any:
    """A plain scan by a schedule: ``lax.scan`` itself says what it does and what it refuses."""
    closed, shape = jax.make_jaxpr(plain, return_shape=True)(init, xs)

    def by_schedule(eqn: Any) -> Any:
        if eqn.primitive.name != "scan":
            return None
        return lambda operands: scheduled(_jax.scan_parts(eqn), operands, schedule, pullback)

    found = _jax.evaluated_program(closed, jax.tree.leaves((init, xs)), by_schedule)
    return jax.tree.unflatten(jax.tree.structure(shape), found)


def scheduled(parts: _jax.Scan, operands: Sequence[Any], schedule: Scheduled, pullback: Any = None) -> list[Any]:
    """What a scan gives, by a schedule. What no step changes is no part of its carry."""
    made = schedule(parts.length) if callable(schedule) else schedule
    if effects := _jax.ordered_effects(parts.body):
        raise TypeError(
            f"a body that is run again can have no effects of an order ({', '.join(effects)}): take them out"
        )
    if made.depth != parts.length:
        raise ValueError(f"the schedule is for {made.depth} steps, the loop has {parts.length}")
    kept = _unchanged(parts) if pullback is None else []
    if kept:
        parts, operands = _without(parts, operands, kept)
    loop = loop_of(parts, made, pullback)
    carry, ys = loop(loop.operands(operands))
    fixed = iter(operands[parts.consts - len(kept) : parts.consts])
    moving = iter(carry)
    return [*(next(fixed) if i in kept else next(moving) for i in range(parts.carry + len(kept))), *ys]


def loop_of(parts: _jax.Scan, schedule: Schedule, pullback: Any = None) -> Loop:
    return Loop(parts.body, parts.consts, parts.carry, parts.reverse, schedule, pullback)


def _unchanged(parts: _jax.Scan) -> list[int]:
    """Of the carry the places that every step hands on as they are."""
    before = parts.body.jaxpr.invars[parts.consts :]
    after = parts.body.jaxpr.outvars[: parts.carry]
    return [i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a is b]


def _without(parts: _jax.Scan, operands: Sequence[Any], kept: Sequence[int]) -> tuple[_jax.Scan, list[Any]]:
    """A scan with what no step changes among its constants."""
    n, end = parts.consts, parts.consts + parts.carry
    moving = [i for i in range(parts.carry) if i not in kept]
    order = [*range(n), *(n + i for i in kept), *(n + i for i in moving), *range(end, len(parts.body.jaxpr.invars))]

    def body(*values: Any) -> list[Any]:
        placed: list[Any] = [None] * len(order)
        for place, value in zip(order, values, strict=True):
            placed[place] = value
        found = core.jaxpr_as_fun(parts.body)(*placed)
        return [*(found[i] for i in moving), *found[parts.carry :]]

    jaxpr = jax.make_jaxpr(body)(*(parts.body.in_avals[place] for place in order))
    made = parts._replace(body=jaxpr, consts=n + len(kept), carry=len(moving))
    return made, [operands[place] for place in order]


def _flat(pullback: Pullback, params: Tree, x: Tree) -> Any:
    """The pullback on flat lists; a cotangent that is zero is None, one of what has none is left out."""
    trees: Any = jax.tree.structure(params), jax.tree.structure(x)
    of_params, of_x = trees

    def rule(p: Sequence[Any], h_in: Sequence[Any], h_out: Sequence[Any], g: Sequence[Any]) -> tuple[Any, Any]:
        given = [_jax.no_cotangent(h) if ct is None else ct for ct, h in zip(g, h_in, strict=True)]
        args = of_params.unflatten(p), of_x.unflatten(h_in)
        found = pullback(*args, of_x.unflatten(h_out), of_x.unflatten(given))
        if not (isinstance(found, tuple) and len(found) == 2):
            raise TypeError(f"the pullback gives (params_cotangent, h_cotangent); this one gave {type(found).__name__}")
        leaves = []
        for name, ct, tree in zip(("params", "h"), found, trees, strict=True):
            if jax.tree.structure(ct) != tree:
                raise TypeError(
                    f"the pullback's cotangent of {name} has the structure {jax.tree.structure(ct)}, {name} has {tree}"
                )
            leaves.append(jax.tree.leaves(ct))
        return leaves[0], leaves[1]

    return rule


def _check(layer: Layer, depth: int, params: Tree, x: Tree) -> None:
    lengths = {jnp.shape(a)[:1] for a in jax.tree.leaves(params)}
    if lengths - {(depth,)}:
        found = ", ".join(str(length[0]) if length else "none" for length in sorted(lengths))
        raise ValueError(f"params need a leading axis of length {depth}, the schedule's depth; found: {found}")
    first = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), jax.eval_shape(lambda p: p, params))
    h = jax.eval_shape(lambda tree: tree, x)
    try:
        out = jax.eval_shape(layer, first, h)
    except Exception as error:
        raise TypeError(f"layer(params_i, h) fails on {first} and {h}: {_jax.first_line(error)}") from error
    if jax.tree.map(lambda a: (a.shape, a.dtype), h) != jax.tree.map(lambda a: (a.shape, a.dtype), out):
        raise TypeError(f"the layer must keep its carry's structure, shapes and dtypes; it turned {h} into {out}")
