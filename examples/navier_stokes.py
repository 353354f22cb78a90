"""The Navier-Stokes equations in two dimensions by exponax: how the mean enstrophy at the end depends on the start.

adcost advise examples/navier_stokes.py:loss --target nvidia-h100 --memory "1 GiB"
"""

import exponax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

STEPS = 500
POINTS = 512


def loss(vorticity: Float[Array, "1 n n"]) -> Float[Array, ""]:
    """Mean square of the vorticity after so many steps."""
    n = vorticity.shape[-1]
    stepper = exponax.stepper.NavierStokesVorticity(2, 2 * jnp.pi, n, 0.01, diffusivity=1e-3)
    return jnp.mean(exponax.repeat(stepper, STEPS)(vorticity) ** 2)


def example(points: int = POINTS) -> tuple[jax.ShapeDtypeStruct]:
    """A start on a grid of so many points a side; nothing is allocated for a plan."""
    return (jax.ShapeDtypeStruct((1, points, points), "float32"),)
