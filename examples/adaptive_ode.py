"""A neural differential equation by Diffrax, whose solver chooses its steps.

adcost advise examples/adaptive_ode.py:loss --memory "16 MiB"
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

WIDTH, BATCH, MOST_STEPS = 64, 32, 256


def loss(field: eqx.nn.MLP, starts: Float[Array, "batch width"]) -> Float[Array, ""]:
    """Mean square of the solutions at the end."""

    def solved(start: Any) -> Any:
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, field: field(y)),
            diffrax.Tsit5(),
            t0=0.0,
            t1=1.0,
            dt0=0.01,
            y0=start,
            args=field,
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-6),
            max_steps=MOST_STEPS,
            adjoint=diffrax.DirectAdjoint(),  # loops that JAX differentiates; by default Diffrax brings its own
        ).ys

    return jnp.mean(jax.vmap(solved)(starts) ** 2)


def example(batch: int = BATCH) -> tuple[eqx.nn.MLP, Float[Array, "batch width"]]:
    """The right side, a network, and starts."""
    field = eqx.nn.MLP(WIDTH, WIDTH, 4 * WIDTH, 2, jnp.tanh, key=jax.random.key(0))
    return field, jax.random.normal(jax.random.key(1), (batch, WIDTH))
