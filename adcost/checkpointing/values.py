"""Flat lists of arrays: entries along the first axis, masks, zeros."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from adcost import _jax

Values = Sequence[Any]


def arrays(values: Values, avals: Sequence[Any]) -> Values:
    """The values as arrays: some come as numbers."""
    pairs = zip(values, avals, strict=True)
    return [v if isinstance(v, jax.Array) else jnp.asarray(v, a.dtype) for v, a in pairs]


def at(values: Values, i: Any) -> Values:
    """Entry ``i`` of each."""
    return [lax.dynamic_index_in_dim(v, i, keepdims=False) for v in values]


def stretch(values: Values, start: Any, count: int) -> Values:
    """``count`` entries of each."""
    return [lax.dynamic_slice_in_dim(v, start, count) for v in values]


def put(values: Values, entries: Values, i: Any) -> Values:
    """Each with its entry ``i`` replaced."""
    return [lax.dynamic_update_index_in_dim(v, e, i, 0) for v, e in zip(values, entries, strict=True)]


def put_stretch(values: Values, entries: Values, start: Any) -> Values:
    """Each with some entries replaced."""
    return [lax.dynamic_update_slice_in_dim(v, e, start, 0) for v, e in zip(values, entries, strict=True)]


def chosen(values: Values, mask: Sequence[bool]) -> Values:
    """The values of a mask."""
    return [v for v, m in zip(values, mask, strict=True) if m]


def merged(some: Values, values: Values, mask: Sequence[bool]) -> Values:
    """The values, those of the mask replaced."""
    given = iter(some)
    return [next(given) if m else v for v, m in zip(values, mask, strict=True)]


def spread(some: Values, mask: Sequence[bool]) -> Values:
    """Values at the places of a mask, None elsewhere."""
    return merged(some, [None] * len(mask), mask)


def many_zeros(aval: Any, count: int) -> Any:
    """Zeros of ``count`` values of a type."""
    return jnp.broadcast_to(_jax.zeros_of(aval), (count, *aval.shape))


def nbytes(avals: Sequence[Any]) -> int:
    """Bytes of values of these types; what holds no numbers, as a token, has none."""
    return sum(int(a.size * a.dtype.itemsize) for a in avals if hasattr(a, "dtype"))


def is_array(leaf: Any) -> bool:
    """Is a leaf of an argument an array, or the shape of one? NumPy's integers are sizes."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype") and not isinstance(leaf, np.integer)


def is_inexact(value: Any) -> bool:
    """Does a value have derivatives: is it of floating-point or complex numbers?"""
    return bool(jnp.issubdtype(value.dtype, jnp.inexact))


def wide(dtype: Any) -> Any:
    """The type in which cotangents of a type are added up: float32 for less than that."""
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32 else dtype


def no_tangent(value: Any) -> Any:
    """The tangent of what does not move."""
    return SymbolicZero(jax.typeof(value).to_tangent_aval())
