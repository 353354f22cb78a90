"""The evaluation trace of a scalar function: every value, tangent and adjoint, from the program and not by hand.

A row for each elementary operation: its value in order, its tangent for each seed in the same order, its adjoint in
reverse.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from adcost import _jax

SIGNS = {"mul": "*", "add": "+", "add_any": "+", "sub": "-", "div": "/"}


@dataclass(frozen=True)
class Node:
    """A row of an evaluation trace.

    Attributes
    ----------
    name, expression
        As ``v1`` and ``x1 * x2``.
    operands
        Each operand's name, and the local derivative with respect to it.
    value
        What the operation gives.
    tangents
        The derivative of this node with respect to each input.
    adjoint
        The derivative of the result with respect to this node.
    """

    name: str
    expression: str
    operands: tuple[tuple[str, float], ...]
    value: float
    tangents: tuple[float, ...]
    adjoint: float


@dataclass(frozen=True)
class _Step:
    name: str
    expression: str
    operands: tuple[tuple[str, float], ...]
    value: float


def evaluation_trace(f: Callable[..., Any], *inputs: float) -> list[Node]:
    """Every value, tangent and adjoint of a scalar function, from its program.

    Parameters
    ----------
    f
        A function of scalars to a scalar, made of operations on scalars.
    *inputs
        Where it is evaluated.

    Returns
    -------
    list of Node
        In the order of evaluation. The inputs are the first rows, x1, x2 and so on; constants have no row, they stand
        in the expressions.

    Raises
    ------
    ValueError
        If ``f`` is not such a function.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed. 2008, tables 1.2 to 1.5.
    """
    arguments = [jnp.asarray(x, float) for x in inputs]
    closed = jax.make_jaxpr(f)(*arguments)
    outputs: list[Any] = closed.jaxpr.outvars
    if any(v.aval.shape for v in outputs) or len(outputs) != 1:
        raise ValueError("an evaluation trace is of a function of scalars to one scalar")
    steps = [_Step(f"x{i}", f"x{i}", (), float(x)) for i, x in enumerate(arguments, 1)]
    names = {step.name: (step.name, jnp.asarray(step.value)) for step in steps}
    (last,) = _walk(closed.jaxpr, closed.consts, list(names.values()), steps)
    return _differentiated(steps, len(inputs), last[0])


Operand = tuple[str, Any]  # a name, or a constant as text; and the value


def _walk(jaxpr: Any, consts: Any, arguments: list[Operand], steps: list[_Step]) -> list[Operand]:
    """Add a step for each operation of the jaxpr; the operations of functions that it calls stand in their place."""
    known: dict[Any, Operand] = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= {v: (_text(c), c) for v, c in zip(jaxpr.constvars, consts, strict=True)}

    def read(v: Any) -> Operand:
        return (_text(v.val), v.val) if isinstance(v, core.Literal) else known[v]

    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        if _jax.primitive_name(eqn) in _jax.BRANCHES_AND_LOOPS:
            raise ValueError(
                f"{_jax.primitive_name(eqn)} has no evaluation trace: it does not run its program just once"
            )
        called = _jax.called_program(eqn)
        results = [_taken(eqn, operands, steps)] if called is None else _walk(*called, operands, steps)
        known |= dict(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _taken(eqn: Any, operands: list[Operand], steps: list[_Step]) -> Operand:
    name = eqn.primitive.name
    values = [jnp.asarray(value) for _, value in operands]
    result = _jax.evaluated(eqn, values)
    if eqn.primitive.multiple_results or jnp.shape(result):
        raise ValueError(f"{name} is no operation on scalars: an evaluation trace has one number a row")
    rows = {step.name for step in steps}
    named = [i for i, (text, _) in enumerate(operands) if text in rows]
    if not named:
        return _text(result), result  # a constant
    if name in ("convert_element_type", "copy", "stop_gradient"):
        return operands[0]
    if not jnp.issubdtype(jnp.result_type(result), jnp.floating):
        return _text(result), result  # a comparison: constant between its jumps
    partials = jax.grad(lambda *v: _jax.evaluated(eqn, v), argnums=tuple(named))(*values)
    row = f"v{sum(step.name.startswith('v') for step in steps) + 1}"
    local = tuple((operands[i][0], float(d)) for i, d in zip(named, partials, strict=True))
    steps.append(_Step(row, _expression(name, [text for text, _ in operands], eqn.params), local, float(result)))
    return row, result


def _expression(name: str, operands: list[str], params: Mapping[str, Any]) -> str:
    if name in SIGNS and len(operands) == 2:
        return f"{operands[0]} {SIGNS[name]} {operands[1]}"
    if name == "integer_pow":
        return f"{operands[0]}^{params['y']}"
    return f"{name}({', '.join(operands)})"


def _text(value: Any) -> str:
    return f"{float(value):g}"


def _differentiated(steps: list[_Step], inputs: int, last: str) -> list[Node]:
    tangents: dict[str, tuple[float, ...]] = {}
    for k, step in enumerate(steps):
        seed = tuple(float(k == i) for i in range(inputs))
        pushed = (tuple(d * t for t in tangents[name]) for name, d in step.operands)
        tangents[step.name] = tuple(map(sum, zip(*pushed, strict=True))) if step.operands else seed
    adjoints = {step.name: float(step.name == last) for step in steps}
    for step in reversed(steps):
        for name, d in step.operands:
            adjoints[name] += adjoints[step.name] * d
    return [
        Node(step.name, step.expression, step.operands, step.value, tangents[step.name], adjoints[step.name])
        for step in steps
    ]


def adjoint_sums(nodes: list[Node]) -> Iterator[tuple[str, str]]:
    """How reverse mode gets each adjoint, as (name, sum), in the order in which it is complete: the last row first."""
    for node in reversed(nodes):
        users = [f"{_barred(user.name)} · {d:.4g}" for user in nodes for name, d in user.operands if name == node.name]
        yield node.name, " + ".join(users) or f"{node.adjoint:g}"


def _barred(name: str) -> str:
    return f"{name[0]}\N{COMBINING MACRON}{name[1:]}"
