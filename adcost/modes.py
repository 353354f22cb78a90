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
    """Which mode to choose for a Jacobian, and what the choice rests on.

    Attributes
    ----------
    mode
        The cheaper one, or ``"too close to call"``.
    forward_flops, reverse_flops
        Flops of the whole Jacobian by each mode.
    stored_bytes
        Bytes that reverse mode keeps from the forward pass for the backward pass.
    """

    mode: Mode
    forward_flops: int
    reverse_flops: int
    stored_bytes: int


def which_mode(f: Callable[..., Any], *example: Any, argnums: int | tuple[int, ...] = 0) -> Advice:
    """Forward or reverse mode for the Jacobian of ``f``? Nothing is run: both programs are traced and counted.

    Parameters
    ----------
    f
        The function, of arrays to arrays.
    *example
        Its arguments, as arrays or as ``jax.ShapeDtypeStruct``.
    argnums
        The arguments with respect to which it is differentiated.

    Returns
    -------
    Advice
        The mode, the flops of the Jacobian by each, and the bytes that reverse mode stores.

    Raises
    ------
    adcost.rulers.count.DynamicTripCount
        If ``f`` holds a loop whose trip count only the data know; reverse mode could not differentiate it.

    References
    ----------
    Griewank and Walther, Evaluating Derivatives, 2nd ed. 2008, chapter 3: d tangents against m cotangents.
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
