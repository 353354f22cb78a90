"""The lecture's worked example: f(x1, x2) = x1 x2 + sin x1 at (2, 5), its traces from the program."""

from functools import cache
from math import cos
from typing import Any

import jax.numpy as jnp

from adcost.evaluation_trace import Node, evaluation_trace

AT = (2.0, 5.0)


def f(x1: Any, x2: Any) -> Any:
    """The lecture's function."""
    return x1 * x2 + jnp.sin(x1)


@cache
def _nodes() -> tuple[Node, ...]:
    return tuple(evaluation_trace(f, *AT))


def lecture() -> list[Node]:
    """The rows of the lecture's function."""
    return list(_nodes())


def by_hand() -> tuple[float, float]:
    """The derivatives with respect to x1 and x2."""
    x1, x2 = AT
    return x2 + cos(x1), x1
