"""A loop whose outputs another loop reads from the end, as in a gradient that is part of a function.

The outputs are what the first loop hands to its own backward pass. Block by block they are computed again when they are
read, from the carry at the block's beginning: the stack of all is never there.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from adcost import _jax
from adcost.checkpointing.schedules import grid
from adcost.checkpointing.values import arrays, chosen, merged, nbytes, spread

WORTH_IT = 0.5  # of the stack: blocks that take more are not worth their evaluations
CUT = "checkpointing_cut"  # the name of these loops in a jaxpr: they are not cut into blocks once more


class Pair(NamedTuple):
    """A loop, the loop that goes back over these of its outputs, and the steps of a block."""

    forth: Any
    back: Any
    again: list[bool]  # of the outputs of ``forth``: are they computed again?
    block: int


def in_blocks(closed: Any) -> Any:
    """The program with loops that are read from the end run again, block by block, wherever there are such."""
    if any(map(_jax.ordered_effects, _jax.equations(closed.jaxpr))):  # effects have their order
        return closed
    while (pair := _pair(closed)) is not None:
        closed = _jax.pruned(_rewritten(closed, pair))
    return closed


def _pair(closed: Any) -> Pair | None:
    scans = [eqn for eqn in closed.jaxpr.eqns if eqn.primitive.name == "scan"]
    for forth in scans:
        if (parts := _jax.scan_parts(forth)).reverse or CUT in _jax.scope(forth):
            continue
        for back in scans:
            again = [_only_back(closed.jaxpr, v, back) for v in forth.outvars[parts.carry :]]
            if any(again) and _goes_back(back, parts.length):
                block = _block(parts, again)
                if block is not None:
                    return Pair(forth, back, again, block)
    return None


def _goes_back(eqn: Any, length: int) -> bool:
    if eqn.primitive.name != "scan":
        return False
    parts = _jax.scan_parts(eqn)
    return parts.reverse and parts.length == length


def _only_back(jaxpr: Any, v: Any, back: Any) -> bool:
    """Does nobody else read an output, and this loop step by step?"""
    if _jax.is_dropped(v) or v in jaxpr.outvars or back.primitive.name != "scan":
        return False
    readers = [eqn for eqn in jaxpr.eqns if any(v is operand for operand in eqn.invars)]
    parts = _jax.scan_parts(back)
    return readers == [back] and not any(v is operand for operand in back.invars[: parts.consts + parts.carry])


def _block(parts: _jax.Scan, again: Sequence[bool]) -> int | None:
    """The steps of a block with which least is held; None if that is not much less than the stack."""
    avals = parts.body.out_avals
    carry, outputs = nbytes(avals[: parts.carry]), nbytes(chosen(avals[parts.carry :], again))

    def held(block: int) -> int:
        count, tail = divmod(parts.length, block)
        return count * carry + (tail + block) * outputs

    block = min(grid(2, parts.length // 2), key=held, default=None)
    return block if block is not None and held(block) <= WORTH_IT * parts.length * outputs else None


def _rewritten(closed: Any, pair: Pair) -> Any:
    forth, back = _jax.scan_parts(pair.forth), _jax.scan_parts(pair.back)
    count, tail = divmod(forth.length, pair.block)
    whole = count * pair.block
    kept: dict[str, Any] = {}

    def blocks_of(values: Sequence[Any]) -> list[Any]:
        return [v[:whole].reshape(count, pair.block, *v.shape[1:]) for v in values]

    def put_together(blocks: Sequence[Any], rest: Sequence[Any]) -> list[Any]:
        first = [b.reshape(whole, *b.shape[2:]) for b in blocks]
        return [jnp.concatenate(parts) for parts in zip(first, rest, strict=True)] if tail else first

    def run_forth(operands: Sequence[Any]) -> list[Any]:
        a, b = forth.consts, forth.consts + forth.carry
        body, xs = core.jaxpr_as_fun(forth.body), list(operands[b:])

        def steps(h: Sequence[Any], xs: Sequence[Any], length: int, asked: Sequence[bool]) -> Any:
            def step(h: Any, x: Any) -> Any:
                out = arrays(body(*operands[:a], *h, *x), forth.body.out_avals)  # some are numbers of the program
                return out[: forth.carry], chosen(out[forth.carry :], asked)

            return _jax.scan(step, list(h), list(xs), length)

        others = [not m for m in pair.again]

        def block(h: Any, part: Any) -> Any:
            after, ys = steps(h, part, pair.block, others)
            return after, (h, ys)

        with jax.named_scope(CUT):
            h, (starts, ys) = _jax.scan(block, list(operands[a:b]), blocks_of(xs), count)
        rest: Any = [None] * len(others)
        if tail:
            h, rest = steps(h, [v[whole:] for v in xs], tail, [True] * len(others))
        kept.update(steps=steps, starts=starts, xs=blocks_of(xs), rest=chosen(rest, pair.again))
        found = put_together(ys, chosen(rest, others))
        return [*h, *spread(found, others)]

    def run_back(operands: Sequence[Any]) -> list[Any]:
        a, b = back.consts, back.consts + back.carry
        body = core.jaxpr_as_fun(back.body)
        names = chosen(pair.forth.outvars[forth.carry :], pair.again)
        place = [next((i for i, v in enumerate(names) if v is w), None) for w in pair.back.invars[b:]]
        own = [i is None for i in place]
        xs = [v for v in operands[b:] if v is not None]

        def steps(g: Sequence[Any], given: Sequence[Any], made: Sequence[Any], length: int) -> Any:
            def step(g: Any, x: Any) -> Any:
                given, made = x
                out = body(*operands[:a], *g, *merged(given, [made[i] if i is not None else None for i in place], own))
                out = arrays(out, back.body.out_avals)
                return out[: back.carry], out[back.carry :]

            return _jax.scan(step, list(g), (list(given), list(made)), length, True)

        def block(g: Any, part: Any) -> Any:
            start, of_forth, given = part
            with jax.named_scope(CUT):
                _, made = kept["steps"](start, of_forth, pair.block, pair.again)
            return steps(g, given, made, pair.block)

        g, rest = operands[a:b], [None] * (len(pair.back.outvars) - back.carry)
        if tail:
            g, rest = steps(g, [v[whole:] for v in xs], kept["rest"], tail)
        g, ys = _jax.scan(block, list(g), (kept["starts"], kept["xs"], blocks_of(xs)), count, True)
        return [*g, *put_together(ys, rest)]

    def rule(eqn: Any) -> Callable[[Sequence[Any]], Any] | None:
        return run_forth if eqn is pair.forth else run_back if eqn is pair.back else None

    return jax.make_jaxpr(lambda *given: _jax.evaluated_program(closed, given, rule))(*closed.in_avals)
