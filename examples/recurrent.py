"""A recurrent network of Flax, an LSTM, over long sequences.

adcost advise examples/recurrent.py:loss --memory "600 MiB"
adcost largest examples/recurrent.py:loss --memory "1 GiB"
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jaxtyping import Array, Float

WIDTH, BATCH, LENGTH = 256, 64, 1024
NETWORK = linen.RNN(linen.OptimizedLSTMCell(WIDTH))


def loss(weights: Any, x: Float[Array, "batch time width"]) -> Float[Array, ""]:
    """Mean square of the last output."""
    return jnp.mean(NETWORK.apply(weights, x)[:, -1] ** 2)


def example(length: int = LENGTH) -> tuple[Any, Float[Array, "batch time width"]]:
    """Weights, and sequences of so many steps."""
    x = jax.random.normal(jax.random.key(1), (BATCH, length, WIDTH))
    return NETWORK.init(jax.random.key(0), x[:, :2]), x
