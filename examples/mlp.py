"""A deep perceptron of Equinox, all layers written out: a program without loops.

adcost advise examples/mlp.py:loss --target nvidia-h100 --memory "200 MiB"
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

WIDTH, DEPTH, BATCH = 512, 48, 2048


def loss(network: eqx.nn.MLP, x: Float[Array, "batch width"]) -> Float[Array, ""]:
    """Mean square of the output."""
    return jnp.mean(jax.vmap(network)(x) ** 2)


def example(batch: int = BATCH) -> tuple[eqx.nn.MLP, Float[Array, "batch width"]]:
    """A network and a batch."""
    network = eqx.nn.MLP(WIDTH, WIDTH, WIDTH, DEPTH, jax.nn.gelu, key=jax.random.key(0))
    return network, jax.random.normal(jax.random.key(1), (batch, WIDTH))
