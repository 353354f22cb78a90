"""A transformer of 1.2 billion weights on 256 devices that are not here: what each of them takes, computes and sends.

The batch is divided over the devices, and so are the weights, which each block gathers when it needs them.

adcost plan examples/sharded.py:loss --grad --target nvidia-h100:8x32
adcost plan examples/sharded.py:loss --grad --target tpu-v5e:16x16
adcost advise examples/sharded.py:loss --target nvidia-h100:8x32 --memory "16 GiB"
"""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

import adcost

CLUSTER, DEVICES = "nvidia-h100:8x32", 256  # or another of as many
LAYERS, HEADS, WIDTH, TOKENS = 24, 16, 2048, 2048

Weights = dict[str, Float[Array, "layers rows columns"]]
Hidden = Float[Array, "batch tokens width"]


def normalised(h: Hidden) -> Hidden:
    """Mean square 1 at every token."""
    return h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-6)


def attention(h: Hidden, weights: Weights) -> Hidden:
    """Each token reads those before it."""
    q, k, v = (jnp.reshape(h @ weights[name], (*h.shape[:2], HEADS, -1)) for name in ("query", "key", "value"))
    read = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return read.reshape(h.shape) @ weights["out"]


def block(h: Hidden, weights: Weights) -> Hidden:
    """Attention and a layer with one hidden layer, each added to what went in."""
    h = h + attention(normalised(h), weights)
    return h + jax.nn.gelu(normalised(h) @ weights["up"]) @ weights["down"]


def loss(weights: Weights, x: Hidden, y: Hidden) -> Float[Array, ""]:
    """Mean square of what is left of the target."""
    last, _ = jax.lax.scan(lambda h, each: (block(h, each), None), x, weights)
    return jnp.mean((last - y) ** 2)


def example(batch: int = 256) -> tuple[Weights, Hidden, Hidden]:
    """Shapes alone: such arrays need not fit here."""
    mesh = adcost.mesh(CLUSTER, data=DEVICES)

    def on(spec: P, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))

    square = dict.fromkeys(("query", "key", "value", "out"), (WIDTH, WIDTH))
    shapes = {**square, "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    weights = {name: on(P(None, "data"), LAYERS, *shape) for name, shape in shapes.items()}
    hidden = on(P("data"), batch, TOKENS, WIDTH)
    return weights, hidden, hidden
