"""f(x1, x2) = x1 x2 + sin x1 at (2, 5): both evaluation traces, value by value.

The lecture's worked example (its figure 3). The traces are derived from the program; the run records every value,
tangent, adjoint and local derivative, so that the graph and both tables can be drawn from the results alone.
"""

from collections.abc import Iterator
from math import cos
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from adcost.evaluation_trace import evaluation_trace
from adcost.suite.vocabulary import Case, Figure, Method, Program, Study

AT = (2.0, 5.0)


def f(x1: Float[Array, ""], x2: Float[Array, ""]) -> Float[Array, ""]:
    """The lecture's function."""
    return x1 * x2 + jnp.sin(x1)


METHODS = {"gradient": Method(lambda: jax.grad(f, argnums=(0, 1)), label="jax.grad, beside both traces")}


def program(case: Case) -> Program:
    """The gradient; what the run says are the traces of the function itself."""
    return Program(METHODS[case.method].build(), inputs, says=lambda _: said_of_traces())


def inputs() -> tuple[np.ndarray, ...]:
    """The lecture's x1 and x2."""
    return tuple(np.asarray(x, np.float32) for x in AT)


def said_of_traces() -> Iterator[Figure]:
    """Every node: its name and expression with its value, its tangents by input, its adjoint, its local derivatives."""
    for i, node in enumerate(evaluation_trace(f, *AT)):
        here = ("node", i)
        yield Figure("value", "1", node.value, at=(here,), flags=(node.name, node.expression))
        for j, tangent in enumerate(node.tangents):
            yield Figure("tangent", "1", tangent, at=(here, ("input", j)))
        yield Figure("adjoint", "1", node.adjoint, at=(here,))
        for j, (name, derivative) in enumerate(node.operands):
            yield Figure("local derivative", "1", derivative, at=(here, ("operand", j)), flags=(name,))


def reference(case: Case) -> Any:
    """The derivatives by hand: x2 + cos x1 and x1."""
    x1, x2 = AT
    return x2 + cos(x1), x1


STUDY = Study(
    name="worked_example",
    question="What do forward and reverse mode do, step by step?",
    methods=METHODS,
    sizes={"quick": [{"inputs": len(AT)}], "full": [{"inputs": len(AT)}]},
    program=program,
    reference=reference,
    tolerance=lambda case: 1e-6,
    baselines=("gradient",),
    compared={"inputs": ()},
)
