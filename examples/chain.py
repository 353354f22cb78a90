"""The lecture's chain of layers: which line of it holds the memory, and what a policy or another JAX changes.

adcost plan examples/chain.py:loss --grad --annotate
adcost plan examples/chain.py:loss --grad --save plain.json
adcost plan examples/chain.py:checkpointed --grad --save checkpointed.json
adcost diff plain.json checkpointed.json
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LAYERS, WIDTH, BATCH = 64, 32, 1024

Weight = Float[Array, "width width"]
Weights = Float[Array, "layers width width"]
Batch = Float[Array, "batch width"]


def layer(weight: Weight, h: Batch) -> Batch:
    """A product and an activation, a line each."""
    product = h @ weight
    return jnp.tanh(product)


def loss(weights: Weights, x: Batch) -> Float[Array, ""]:
    """Mean square of the last activation."""
    last, _ = jax.lax.scan(lambda h, weight: (layer(weight, h), None), x, weights)
    return jnp.mean(last**2)


def checkpointed(weights: Weights, x: Batch) -> Float[Array, ""]:
    """The same with every layer computed again in the backward pass."""
    last, _ = jax.lax.scan(lambda h, weight: (jax.checkpoint(layer)(weight, h), None), x, weights)
    return jnp.mean(last**2)


def example(batch: int = BATCH) -> tuple[Weights, Batch]:
    """Weights that keep the scale of a batch, and a batch."""
    weights = jax.random.normal(jax.random.key(0), (LAYERS, WIDTH, WIDTH)) / WIDTH**0.5
    return weights, jax.random.normal(jax.random.key(1), (batch, WIDTH))
