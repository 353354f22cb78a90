"""Zeros that lie on the devices of a mesh as another value does.

A shape does not say where a value lies (jax #16080): where the compiler's partitioner decides, zeros made by shape are
whole on every device unless what is added to them says otherwise, and the sum of a gradient does not.
"""

from typing import Any

import jax
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from adcost import _jax


def zeros_alike(like: Any, dtype: Any = None) -> Any:
    """Zeros of a value's shape, of its type or another, sharded as it is."""
    if not isinstance(like, jax.core.Tracer):
        return lax.full_like(like, 0, dtype)
    return zeros_alike_p.bind(like, dtype=jax.dtypes.canonicalize_dtype(dtype or like.dtype))


def _zeros(like: Any, *, dtype: Any) -> Any:
    return lax.full_like(like, 0, dtype)


def _lowered(ctx: Any, like: Any, *, dtype: Any) -> Any:
    (zeros,) = mlir.lower_fun(_zeros, multiple_results=False)(ctx, like, dtype=dtype)
    _jax.lie_alike(ctx, zeros, like)
    return [zeros]


def _jvp(primals: Any, _: Any, *, dtype: Any) -> Any:
    zeros = zeros_alike_p.bind(*primals, dtype=dtype)
    return zeros, ad.Zero(jax.typeof(zeros).to_tangent_aval())


zeros_alike_p = core.Primitive("zeros_alike")
zeros_alike_p.def_impl(_zeros)
zeros_alike_p.def_abstract_eval(lambda like, *, dtype: like.update(dtype=dtype, weak_type=False))
mlir.register_lowering(zeros_alike_p, _lowered)
ad.primitive_jvps[zeros_alike_p] = _jvp
batching.primitive_batchers[zeros_alike_p] = lambda values, dims, *, dtype: (
    zeros_alike_p.bind(*values, dtype=dtype),
    dims[0],
)
