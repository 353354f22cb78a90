"""Programs of other people's packages: losses of exponax, Diffrax, Equinox, Flax and Optax, as their users write them.

Each imports its package when it is made. A loop that the user writes himself takes the scan to use, so that peers of
``lax.scan`` can stand in its place; one that the package writes is its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any  # a pytree of arrays
Scan = Callable[..., tuple[Tree, Tree]]
Loss = Callable[..., Any]
Made = tuple[Callable[[Scan], Loss], tuple[Tree, ...]]  # the loss by the scan that it uses, and its arguments
KEY = jax.random.key


@dataclass(frozen=True)
class Program:
    """A program: ``make(steps)`` gives loss and arguments; it is differentiated by the first of these.

    Attributes
    ----------
    packages
        Modules that it imports.
    steps
        Steps of its loop, or layers.
    form
        ``scan``: the user's own loop; ``theirs``: one that a package writes; ``unrolled``: no loop.
    arithmetic
        Do products of large matrices dominate its time?
    tolerance
        Of a float32 gradient beside one in float64.
    """

    make: Callable[[int], Made]
    packages: tuple[str, ...]
    steps: int
    form: str = "scan"
    arithmetic: bool = False
    tolerance: float = 1e-3


def last(scan: Scan, step: Callable[[Tree], Tree], start: Tree, steps: int) -> Tree:
    """The last state of a loop that has no outputs."""
    return scan(lambda state, _: (step(state), None), start, None, steps)[0]


def vorticity(steps: int) -> Made:
    """Two-dimensional turbulence, its enstrophy by the initial vorticity."""
    import exponax

    def by(scan: Scan) -> Loss:
        def loss(start: Tree) -> Any:
            stepper = exponax.stepper.NavierStokesVorticity(2, 2 * jnp.pi, 96, 0.01, diffusivity=1e-2)
            return jnp.mean(last(scan, stepper, start, steps) ** 2)

        return loss

    return by, (jax.random.normal(KEY(0), (1, 96, 96)),)


def burgers(steps: int) -> Made:
    """Burgers' equation in one dimension, the energy at the end by the initial velocity."""
    import exponax

    def by(scan: Scan) -> Loss:
        def loss(start: Tree) -> Any:
            stepper = exponax.stepper.Burgers(1, 2 * jnp.pi, 16384, 1e-3, diffusivity=1e-2)
            return jnp.mean(last(scan, stepper, start, steps) ** 2)

        return loss

    place = jnp.linspace(0, 2 * jnp.pi, 16384, endpoint=False)
    return by, (jnp.sin(place)[None] + 0.5 * jnp.cos(3 * place)[None],)


def kuramoto(steps: int) -> Made:
    """The Kuramoto-Sivashinsky equation on 128 points: a small carry, many steps."""
    import exponax

    def by(scan: Scan) -> Loss:
        def loss(start: Tree) -> Any:
            stepper = exponax.stepper.KuramotoSivashinsky(1, 60.0, 128, 0.01)
            return jnp.mean(last(scan, stepper, start, steps) ** 2)

        return loss

    return by, (jnp.sin(jnp.linspace(0, 8 * jnp.pi, 128, endpoint=False))[None],)


def oscillator(steps: int) -> Made:
    """A van der Pol oscillator by Diffrax, fixed steps of Tsit5: a carry of two numbers, its loop Diffrax's own."""
    import diffrax

    def by(_: Scan) -> Loss:
        def loss(start: Tree) -> Any:
            term = diffrax.ODETerm(lambda t, y, _: jnp.stack([y[1], (1 - y[0] ** 2) * y[1] - y[0]]))
            options = {"max_steps": steps, "adjoint": diffrax.DirectAdjoint(), "throw": False}
            found = diffrax.diffeqsolve(term, diffrax.Tsit5(), 0.0, 5.0, 5.0 / steps, start, **options)
            return jnp.sum(found.ys**2)

        return loss

    return by, (jnp.array([1.0, 0.5]),)


def adaptive(steps: int) -> Made:
    """A neural differential equation by Diffrax that chooses its steps, at most so many."""
    import diffrax
    import equinox as eqx

    field = eqx.nn.MLP(64, 64, 256, 2, jnp.tanh, key=KEY(0))
    weights, rest = eqx.partition(field, eqx.is_array)

    def by(_: Scan) -> Loss:
        def loss(weights: Tree, start: Tree) -> Any:
            term = diffrax.ODETerm(lambda t, y, field: jax.vmap(field)(y))
            control = diffrax.PIDController(rtol=1e-3, atol=1e-5)
            options = {"max_steps": steps, "adjoint": diffrax.DirectAdjoint(), "throw": False}
            found = diffrax.diffeqsolve(
                term,
                diffrax.Tsit5(),
                0.0,
                1.0,
                0.02,
                start,
                args=eqx.combine(weights, rest),
                stepsize_controller=control,
                **options,
            )
            return jnp.mean(found.ys**2)

        return loss

    return by, (weights, jax.random.normal(KEY(1), (256, 64)))


def lstm(steps: int) -> Made:
    """An LSTM of Flax over sequences, its loop Flax's own."""
    from flax import linen

    def network(dtype: Any) -> Any:
        return linen.RNN(linen.OptimizedLSTMCell(128, param_dtype=dtype))  # the type of its first carry

    x = jax.random.normal(KEY(1), (128, steps, 128), "float32")
    weights = network("float32").init(KEY(0), x)
    return lambda _: lambda weights, x: jnp.mean(network(x.dtype).apply(weights, x)[:, -1] ** 2), (weights, x)


def gru(steps: int) -> Made:
    """A gated recurrent unit of Equinox over sequences."""
    import equinox as eqx

    cell = eqx.nn.GRUCell(128, 128, key=KEY(0))
    weights, rest = eqx.partition(cell, eqx.is_array)

    def by(scan: Scan) -> Loss:
        def loss(weights: Tree, x: Tree) -> Any:
            run = jax.vmap(eqx.combine(weights, rest))
            h, _ = scan(lambda h, x: (run(x, h), None), jnp.zeros_like(x[0]), x, steps)
            return jnp.mean(h**2)

        return loss

    return by, (weights, jax.random.normal(KEY(1), (steps, 256, 128)))


def transformer(steps: int) -> Made:
    """Layers of a transformer of Equinox's parts, stacked."""
    import equinox as eqx

    def layer(key: Any) -> Any:
        for_attention, for_mlp = jax.random.split(key)
        attention = eqx.nn.MultiheadAttention(4, 128, key=for_attention)
        mlp = eqx.nn.MLP(128, 128, 512, 1, jax.nn.gelu, key=for_mlp)
        return eqx.nn.LayerNorm(128), attention, eqx.nn.LayerNorm(128), mlp

    weights, rest = eqx.partition(eqx.filter_vmap(layer)(jax.random.split(KEY(0), steps)), eqx.is_array)

    def run(x: Any, weights: Tree) -> tuple[Any, None]:
        first, attention, second, mlp = eqx.combine(weights, rest)
        h = jax.vmap(first)(x)
        x = x + attention(h, h, h)
        return x + jax.vmap(mlp)(jax.vmap(second)(x)), None

    def by(scan: Scan) -> Loss:
        def loss(weights: Tree, x: Tree) -> Any:
            return jnp.mean(scan(jax.vmap(run, (0, None)), x, weights, steps)[0] ** 2)

        return loss

    return by, (weights, jax.random.normal(KEY(1), (16, 64, 128)))


def perceptron(steps: int) -> Made:
    """A deep perceptron of Equinox, written out layer by layer."""
    import equinox as eqx

    weights, rest = eqx.partition(eqx.nn.MLP(512, 512, 512, steps, jax.nn.gelu, key=KEY(0)), eqx.is_array)
    x = jax.random.normal(KEY(1), (512, 512))
    return lambda _: lambda weights, x: jnp.mean(jax.vmap(eqx.combine(weights, rest))(x) ** 2), (weights, x)


def convolutions(steps: int) -> Made:
    """Residual convolutions of Flax on small pictures, written out layer by layer."""
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            for _ in range(steps):
                x = x + linen.gelu(linen.Conv(32, (3, 3))(linen.GroupNorm(8)(x)))
            return x

    network: Any = Network()
    x = jax.random.normal(KEY(1), (16, 32, 32, 32))
    return lambda _: lambda weights, x: jnp.mean(network.apply(weights, x) ** 2), (network.init(KEY(0), x), x)


def encoder(steps: int) -> Made:
    """Attention of Flax, written out layer by layer."""
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            for _ in range(steps):
                h = linen.LayerNorm()(x)
                x = x + linen.MultiHeadDotProductAttention(4, use_bias=False)(h, h)
                x = x + linen.Dense(128)(linen.gelu(linen.Dense(256)(linen.LayerNorm()(x))))
            return x

    network: Any = Network()
    x = jax.random.normal(KEY(1), (16, 64, 128))
    return lambda _: lambda weights, x: jnp.mean(network.apply(weights, x) ** 2), (network.init(KEY(0), x), x)


def training(steps: int) -> Made:
    """Steps of Adam by Optax on a small network of Flax: the loss at the end by the first weights."""
    import optax
    from flax import linen

    network: Any = linen.Sequential([linen.Dense(128), linen.tanh, linen.Dense(1)])
    optimiser = optax.adam(1e-2)
    x = jax.random.normal(KEY(1), (256, 32))

    def by(scan: Scan) -> Loss:
        def loss(weights: Tree, x: Tree) -> Any:
            def error(weights: Tree) -> Any:
                return jnp.mean((network.apply(weights, x)[:, 0] - jnp.sin(x[:, 0])) ** 2)

            def step(state: Tree) -> Tree:
                weights, moments = state
                changes, moments = optimiser.update(jax.grad(error)(weights), moments)
                return optax.apply_updates(weights, changes), moments

            return error(last(scan, step, (weights, optimiser.init(weights)), steps)[0])

        return loss

    return by, (network.init(KEY(0), x), x)


PROGRAMS = {
    "vorticity": Program(vorticity, ("exponax",), 144),
    "burgers": Program(burgers, ("exponax",), 144),
    "kuramoto": Program(kuramoto, ("exponax",), 1024),
    "oscillator": Program(oscillator, ("diffrax",), 4096, "theirs"),
    "adaptive": Program(adaptive, ("diffrax", "equinox"), 64, "theirs", tolerance=1e-2),
    "lstm": Program(lstm, ("flax",), 256, "theirs"),
    "gru": Program(gru, ("equinox",), 144),
    "transformer": Program(transformer, ("equinox",), 16),
    "perceptron": Program(perceptron, ("equinox",), 24, "unrolled", arithmetic=True),
    "convolutions": Program(convolutions, ("flax",), 12, "unrolled", arithmetic=True),
    "encoder": Program(encoder, ("flax",), 8, "unrolled"),
    "training": Program(training, ("flax", "optax"), 100),
}


@lru_cache(maxsize=1)
def made(name: str, steps: int) -> Made:
    """A program with its arguments as lists of float32, also where more could be had: they know no package."""
    with jax.enable_x64(False):
        by, arguments = PROGRAMS[name].make(steps)
    trees = [jax.tree.structure(tree) for tree in arguments]

    def of_lists(scan: Scan) -> Loss:
        return lambda *lists: by(scan)(*(jax.tree.unflatten(t, leaves) for t, leaves in zip(trees, lists, strict=True)))

    return of_lists, tuple(jax.tree.leaves(tree) for tree in arguments)
