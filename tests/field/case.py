"""Programs with which people ran into the memory and the time of derivatives, and what is right of each.

``right`` holds what is true: ``mode`` ("forward", "reverse", "either"; with ``only`` the other one raises), ``value``,
``gradient`` (closed form, or ``PLAIN``: plain JAX's own is right), ``jacobian``, ``derivative`` (by the first scalar),
``plain_is_nan`` (the right gradient is the closed form), ``plain_mib`` and ``temp_at_most_mib`` (planned memory of the
gradient, and what is enough), ``primitive`` and ``flops`` (the order of its cost: a count within a factor 4 is right),
``hessian_trace``, ``hessian_diagonal`` and ``rank``, ``refused`` (plain JAX or its device can't).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Program = tuple[Callable[..., Any], tuple[Any, ...]]
PLAIN = "that of plain JAX"


@dataclass(frozen=True)
class Case:
    """A program that people brought, and what is true of it.

    ``make()`` gives the function and its arguments: arrays, static values, or ``jax.ShapeDtypeStruct`` where they are
    big. ``right`` holds the right answers. ``ideal()`` is the same function written by hand
    so that its gradient fits ``right["temp_at_most_mib"]``. A case that ``needs`` a missing package is skipped.
    """

    name: str
    source: str
    met: str
    make: Callable[[], Program]
    right: Mapping[str, Any]
    ideal: Callable[[], Callable[..., Any]] | None = None
    needs: tuple[str, ...] = field(default=())


def loop(
    name: str, source: str, met: str, build: Callable[..., Program], needs: tuple[str, ...] = (), **right: Any
) -> Case:
    """A case built from the scan to use: by ``lax.scan`` it is the program, by ``blocks`` its ideal."""
    return Case(name, source, met, lambda: build(jax.lax.scan), right, lambda: build(blocks)[0], needs)


def shape(*sizes: int, dtype: str = "float32") -> jax.ShapeDtypeStruct:
    """An argument of which only shape and dtype matter."""
    return jax.ShapeDtypeStruct(sizes, dtype)


def normal(*sizes: int, scale: float = 1.0):
    """The same numbers whenever it is called."""
    return jnp.asarray(np.random.default_rng(0).normal(size=sizes) * scale, jnp.float32)


def blocks(f: Callable[..., Any], init: Any, xs: Any = None, length: int | None = None, reverse: bool = False) -> Any:
    """``lax.scan`` in two levels, each recomputed on the way back: about 2 sqrt(n) states are held instead of n."""
    n = length if xs is None else len(jax.tree.leaves(xs)[0])
    size = next(b for b in range(max(1, math.isqrt(n)), 0, -1) if n % b == 0)
    rows = jax.tree.map(lambda x: x.reshape(n // size, size, *x.shape[1:]), xs)
    block = jax.checkpoint(lambda carry, x: jax.lax.scan(jax.checkpoint(f), carry, x, length=size, reverse=reverse))
    carry, ys = jax.lax.scan(block, init, rows, length=n // size, reverse=reverse)
    return carry, jax.tree.map(lambda y: y.reshape(n, *y.shape[2:]), ys)
