"""Which mode for this function? Task 1 of the lecture, answered from the program's text, without a run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax

from adcost.rulers import count as counts

Mode = Literal["forward", "reverse", "too close to call"]
CLOSE = 1.25  # costs within this factor of each other: what a flop costs differs by more between operations


@dataclass(frozen=True)
class Advice:
    """The mode to choose, the flops of the Jacobian by each, and the bytes that reverse mode stores."""

    mode: Mode
    forward_flops: int
    reverse_flops: int
    stored_bytes: int


def which_mode(f: Callable[..., Any], *example: Any, argnums: int | tuple[int, ...] = 0) -> Advice:
    """Forward or reverse mode for the Jacobian of ``f`` by ``argnums``, at arrays of these shapes.

    Nothing is run: both programs are traced and their operations counted.

    Raises
    ------
    adcost.rulers.count.DynamicTripCount
        If ``f`` holds a loop whose trip count only the data know; reverse mode could not differentiate it.
    """
    forward = counts.count(jax.jacfwd(f, argnums), *example)[counts.FLOPS]
    reverse = counts.count(jax.jacrev(f, argnums), *example)[counts.FLOPS]
    return Advice(advised(forward, reverse), forward, reverse, counts.residual_bytes(f, *example))


def advised(forward: int | float, reverse: int | float) -> Mode:
    """The mode with fewer flops, unless they are within a factor of ``CLOSE``."""
    if forward * CLOSE < reverse:
        return "forward"
    if reverse * CLOSE < forward:
        return "reverse"
    return "too close to call"
