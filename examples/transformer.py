"""A transformer of Equinox's layers in the size of GPT-2 medium, all layers as one scan.

adcost advise examples/transformer.py:loss --target nvidia-h100 --memory "16 GiB"
adcost largest examples/transformer.py:loss --target nvidia-h100 --memory "40 GiB"
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

LAYERS, HEADS, WIDTH, TOKENS = 24, 16, 1024, 1024


class Layer(eqx.Module):
    """Attention and a perceptron, each after a normalisation and beside a sum."""

    before_attention: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    before_mlp: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP

    def __init__(self, key: Key[Array, ""]) -> None:
        for_attention, for_mlp = jax.random.split(key)
        self.before_attention, self.before_mlp = eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH)
        self.attention = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=for_attention)
        self.mlp = eqx.nn.MLP(WIDTH, WIDTH, 4 * WIDTH, 1, jax.nn.gelu, key=for_mlp)

    def __call__(self, x: Float[Array, "tokens width"]) -> Float[Array, "tokens width"]:
        h = jax.vmap(self.before_attention)(x)
        x = x + self.attention(h, h, h, jnp.tril(jnp.ones((len(x), len(x)), bool)))
        return x + jax.vmap(self.mlp)(jax.vmap(self.before_mlp)(x))


def loss(layers: Layer, x: Float[Array, "batch tokens width"]) -> Float[Array, ""]:
    """Mean square of what the layers, stacked in one module, make of a batch."""
    stacked, rest = eqx.partition(layers, eqx.is_array)

    def step(x: Any, layer: Any) -> Any:
        return jax.vmap(eqx.combine(layer, rest))(x), None

    return jnp.mean(jax.lax.scan(step, x, stacked)[0] ** 2)


def example(batch: int = 8) -> tuple[Layer, jax.ShapeDtypeStruct]:
    """Layers as shapes, so that no weight is made, and a batch."""
    layers = eqx.filter_eval_shape(eqx.filter_vmap(Layer), jax.random.split(jax.random.key(0), LAYERS))
    return layers, jax.ShapeDtypeStruct((batch, TOKENS, WIDTH), "float32")
