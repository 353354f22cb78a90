"""A linear map that is told how it is transposed: what lets a function have a backward pass of its own in both modes.

``jax.custom_vjp`` would refuse forward mode. A primitive that is linear in its tangents and brings its transpose is
taken by both: forward mode runs it, reverse mode transposes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from adcost.checkpointing.values import Values, chosen, merged


@dataclass(frozen=True, eq=False)
class Linear:
    """A map (residuals, tangents) -> tangents that is linear in the tangents; all are flat lists.

    Attributes
    ----------
    forward
        The map as it runs.
    plain
        The same map, written so that JAX can differentiate it in every mode.
    transpose
        (residuals, cotangents) -> cotangents of the tangents; a cotangent that is zero is None.
    """

    forward: Callable[[Values, Values], Values]
    plain: Callable[[Values, Values], Values]
    transpose: Callable[[Values, Values], Values]

    def __call__(self, residuals: Values, tangents: Values) -> list[Any]:
        jaxpr = jax.make_jaxpr(self.forward)(list(residuals), list(tangents))
        return list(linear_p.bind(*residuals, *tangents, jaxpr=jaxpr, linear=self, residuals=len(residuals)))

    def batched(self, axis: Any, dims: Sequence[int | None]) -> "Linear":
        """Many at once: the residuals along these axes, the tangents along their first."""
        options = {"axis_name": axis.name, "axis_size": axis.size, "spmd_axis_name": axis.spmd_name}

        def mapped(f: Callable[[Values, Values], Values]) -> Callable[[Values, Values], Values]:
            return lambda residuals, rest: jax.vmap(f, (list(dims), 0), **options)(list(residuals), list(rest))

        return Linear(mapped(self.forward), mapped(self.plain), mapped(self.transpose))


linear_p = core.Primitive("transposable")
linear_p.multiple_results = True


def _split(operands: Values, residuals: int) -> tuple[Values, Values]:
    return operands[:residuals], operands[residuals:]


def _run(*operands: Any, jaxpr: Any, **_: Any) -> list[Any]:
    return list(core.jaxpr_as_fun(jaxpr)(*operands))


def _avals(*_avals: Any, jaxpr: Any, **_: Any) -> list[Any]:
    return list(jaxpr.out_avals)


def _jvp(primals: Values, tangents: Values, *, jaxpr: Any, linear: Linear, residuals: int) -> tuple[Values, Values]:
    found = linear_p.bind(*primals, jaxpr=jaxpr, linear=linear, residuals=residuals)
    moving = [not isinstance(t, ad.Zero) for t in tangents]

    def along(*some: Any) -> list[Any]:
        return list(linear.plain(*_split(merged(some, primals, moving), residuals)))

    _, changes = jax.jvp(along, chosen(primals, moving), chosen(tangents, moving))
    return found, changes


def _transpose(cotangents: Values, *operands: Any, linear: Linear, residuals: int, **_: Any) -> list[Any]:
    kept, tangents = _split(operands, residuals)
    given = [None if isinstance(ct, ad.Zero) else ct for ct in cotangents]
    found = linear.transpose(kept, given)
    asked = [ct if ad.is_undefined_primal(t) else None for t, ct in zip(tangents, found, strict=True)]
    return [None] * residuals + asked


def _batch(
    axis: Any, operands: Values, dims: Values, *, jaxpr: Any, linear: Linear, residuals: int
) -> tuple[Values, Values]:
    if all(d is None for d in dims):
        found = linear_p.bind(*operands, jaxpr=jaxpr, linear=linear, residuals=residuals)
        return found, [None] * len(found)
    kept, tangents = _split(operands, residuals)
    kept_dims, tangent_dims = _split(dims, residuals)
    moved = [batching.bdim_at_front(t, d, axis.size) for t, d in zip(tangents, tangent_dims, strict=True)]
    found = linear.batched(axis, kept_dims)(kept, moved)
    return found, [0] * len(found)


linear_p.def_impl(_run)
linear_p.def_abstract_eval(_avals)
mlir.register_lowering(linear_p, mlir.lower_fun(_run, multiple_results=True))
ad.primitive_jvps[linear_p] = _jvp
ad.primitive_transposes[linear_p] = _transpose
batching.fancy_primitive_batchers[linear_p] = _batch
