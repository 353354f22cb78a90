"""The evaluation trace of a scalar function: every value, tangent and adjoint, from the program and not by hand.

A row for each elementary operation: its value in order, its tangent for each seed in the same order, its adjoint in
reverse.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
        A function of scalars to a scalar, made of operations on scalars. Loops and branches are run; a function that
        brings its own derivative (``jax.custom_jvp``, ``jax.custom_vjp``) is one row.
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
        If ``f`` is not such a function; the message names the operation.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed. 2008, tables 1.2 to 1.5.
    """
    if any(np.ndim(x) or not np.isrealobj(x) for x in inputs):
        raise ValueError("an evaluation trace is taken at real numbers")
    arguments = [jnp.asarray(x, float) for x in inputs]
    closed = jax.make_jaxpr(f)(*arguments)
    outputs: list[Any] = closed.jaxpr.outvars
    if any(v.aval.shape for v in outputs) or len(outputs) != 1:
        raise ValueError("an evaluation trace is of a function of scalars to one scalar")
    steps = [_Step(f"x{i}", f"x{i}", (), float(x)) for i, x in enumerate(arguments, 1)]
    given = [_Operand(step.name, x, True) for step, x in zip(steps, arguments, strict=True)]
    (last,) = _walk(closed, given, steps)
    if last.text != steps[-1].name or not last.row:  # the result is a row before, or no row: it gets one of its own
        reached = ((last.text, 1.0),) if last.row else ()
        steps.append(_Step(f"v{len(steps) - len(inputs) + 1}", last.text, reached, float(last.value)))
    return _differentiated(steps, len(inputs))


class _Operand(NamedTuple):
    """A row's name, or a constant as text; its value; is it a row?"""

    text: str
    value: Any
    row: bool = False


MOST_ROWS = 1000  # a trace is to be read


def _constant(value: Any) -> _Operand:
    dtype = jax.dtypes.result_type(value)
    real = not jnp.issubdtype(dtype, jax.dtypes.prng_key) and not jnp.issubdtype(dtype, jnp.complexfloating)
    return _Operand(f"{float(value):g}" if real and jnp.ndim(value) == 0 else "constant", value)


def _walk(closed: Any, arguments: Sequence[_Operand], steps: list[_Step]) -> list[_Operand]:
    """Add a step for each operation that a program runs; the operations of what it calls stand in their place."""
    jaxpr = closed.jaxpr
    known: dict[Any, _Operand] = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= {v: _constant(c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True)}

    def read(v: Any) -> _Operand:
        return _constant(v.val) if isinstance(v, core.Literal) else known[v]

    used = {v for v in (*jaxpr.outvars, *(v for eqn in jaxpr.eqns for v in eqn.invars)) if isinstance(v, core.Var)}
    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        known |= dict(zip(eqn.outvars, _run(eqn, operands, used, steps), strict=True))
        if len(steps) > MOST_ROWS:
            raise ValueError(
                f"an evaluation trace has at most {MOST_ROWS} rows, this one more: {_name(eqn)} runs too often"
            )
    return [read(v) for v in jaxpr.outvars]


def _run(eqn: Any, operands: list[_Operand], used: Container[Any], steps: list[_Step]) -> list[_Operand]:
    """The results of an equation, and its rows."""
    name = _jax.primitive_name(eqn)
    if _jax.has_effects(eqn) and name not in ("scan", "while", "cond"):
        raise ValueError(f"{_name(eqn)} has an effect besides its result: it has no evaluation trace")
    if not any(operand.row for operand in operands):
        return [_constant(value) for value in _jax.evaluated(eqn, [operand.value for operand in operands])]
    if name == "scan":
        return _scan(_jax.scan_parts(eqn), operands, eqn.outvars, steps)
    if name == "while":
        return _while(_jax.while_parts(eqn), operands, steps)
    if name == "cond":
        taken = _jax.branches(eqn)[int(operands[0].value)]
        return _walk(taken, operands[1:], steps)
    called = None if name in _jax.CUSTOM else _jax.called_program(eqn)
    if called is not None and len(called[0].invars) == len(operands) and name != "Scan3":
        return _walk(_Closed(*called), operands, steps)
    return _operation(eqn, operands, used, steps)


class _Closed(NamedTuple):
    jaxpr: Any
    consts: Sequence[Any]


def _scan(scan: _jax.Scan, operands: list[_Operand], outvars: Sequence[Any], steps: list[_Step]) -> list[_Operand]:
    """Every trip, one after the other; its stacked results must be constants or of no use."""
    consts, carry = operands[: scan.consts], operands[scan.consts : scan.consts + scan.carry]
    xs = operands[scan.consts + scan.carry :]
    if any(x.row for x in xs):
        raise ValueError("scan runs over values that depend on the inputs: an evaluation trace has one number a row")
    rows: list[list[_Operand]] = []
    for k in range(scan.length):
        at = scan.length - 1 - k if scan.reverse else k
        results = _walk(scan.body, [*consts, *carry, *(_constant(x.value[at]) for x in xs)], steps)
        carry = results[: scan.carry]
        rows.insert(0 if scan.reverse else k, results[scan.carry :])
    if not rows:  # stacks of no row
        return [*carry, *(_constant(jnp.zeros(v.aval.shape, v.aval.dtype)) for v in outvars[scan.carry :])]
    return [*carry, *(_stacked(column) for column in zip(*rows, strict=True))]


def _stacked(column: Sequence[_Operand]) -> _Operand:
    """The results of all trips as one array: a constant, or what no operation takes."""
    values = jnp.stack([operand.value for operand in column])
    return _Operand("scan's stacked results", values, any(operand.row for operand in column))


def _while(loop: _jax.While, operands: list[_Operand], steps: list[_Step]) -> list[_Operand]:
    """Every trip, until the condition fails."""
    n, m = len(loop.cond_consts), len(loop.cond_consts) + len(loop.body_consts)
    cond_consts, body_consts, carry = operands[:n], operands[n:m], operands[m:]
    while bool(_walk(loop.cond, [_constant(v.value) for v in (*cond_consts, *carry)], steps)[0].value):
        carry = _walk(loop.body, [*body_consts, *carry], steps)
    return carry


def _operation(eqn: Any, operands: list[_Operand], used: Container[Any], steps: list[_Step]) -> list[_Operand]:
    """A row for each result of use: of an operation on scalars, or of a function that brings its own derivative."""
    name = _name(eqn)
    values = [jnp.asarray(operand.value) for operand in operands]
    results = _jax.evaluated(eqn, values)
    if any(map(jnp.shape, (*results, *values))):
        raise ValueError(f"{name} is no operation on scalars: an evaluation trace has one number a row")
    if any(jnp.iscomplexobj(x) for x in (*results, *values)):
        raise ValueError(f"{name} works on complex numbers: an evaluation trace is of real ones")
    asked = [k for k, v in enumerate(eqn.outvars) if v in used]
    rows = [_constant(result) for result in results]
    for k in asked:
        if name == "stop_gradient" or not jnp.issubdtype(results[k].dtype, jnp.floating):
            continue  # a comparison, a conversion to an integer: constant between its jumps
        if name in ("convert_element_type", "copy", "reduce_precision") and results[k] == values[0]:
            rows[k] = _Operand(operands[0].text, results[k], True)
            continue
        by = tuple(i for i, x in enumerate(operands) if x.row and jnp.issubdtype(values[i].dtype, jnp.floating))
        try:
            partials = jax.grad(lambda *v, k=k: _jax.evaluated(eqn, v)[k], argnums=by)(*values)
        except Exception as error:
            raise ValueError(f"{name} has no derivative in reverse mode: it has no evaluation trace") from error
        rows[k] = _Operand(f"v{sum(step.name.startswith('v') for step in steps) + 1}", results[k], True)
        expression = _expression(name, [operand.text for operand in operands], eqn.params)
        local = tuple((operands[i].text, float(d)) for i, d in zip(by, partials, strict=True))
        several = f"[{k}]" if len(asked) > 1 else ""
        steps.append(_Step(rows[k].text, expression + several, local, float(results[k])))
    return rows


def _name(eqn: Any) -> str:
    return _jax.called_name(eqn) if _jax.primitive_name(eqn) in _jax.CUSTOM else _jax.primitive_name(eqn)


def _expression(name: str, operands: list[str], params: Mapping[str, Any]) -> str:
    if name in SIGNS and len(operands) == 2:
        return f"{operands[0]} {SIGNS[name]} {operands[1]}"
    if name == "integer_pow":
        return f"{operands[0]}^{params['y']}"
    return f"{name}({', '.join(operands)})"


def _differentiated(steps: list[_Step], inputs: int) -> list[Node]:
    tangents: dict[str, tuple[float, ...]] = {}
    for k, step in enumerate(steps):
        seed = tuple(float(k == i) for i in range(inputs))
        pushed = (tuple(d * t for t in tangents[name]) for name, d in step.operands)
        tangents[step.name] = tuple(map(sum, zip(*pushed, strict=True))) if step.operands else seed
    adjoints = dict.fromkeys((step.name for step in steps), 0.0) | {steps[-1].name: 1.0}
    reaching = {steps[-1].name}  # a row that the result does not depend on has the adjoint 0 and hands on nothing
    for step in reversed(steps):
        for name, d in step.operands if step.name in reaching else ():
            reaching.add(name)
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
