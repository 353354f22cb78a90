"""Loops from the field, a step of each: a solver, a recurrent cell, a transformer, a filter, an iteration.

Every step runs ``tanh`` exactly once, so that its evaluations can be counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.studies.networks import transformer_block

Tree = Any  # a pytree of arrays
Step = Callable[[Any, Any], tuple[Any, Any]]
Make = Callable[[np.random.Generator, int, int, int], tuple[Tree, Tree, Tree]]


@dataclass(frozen=True)
class Family:
    """A loop: ``step(weights, carry, x) -> (carry, y)``, ``make(rng, rows, width, steps) -> (weights, carry, xs)``.

    ``goes_on(weights, carry)``, where there is one, says whether there is another step; such a loop has no outputs.
    ``learnt`` are the arguments, of (weights, carry, xs), by which it is differentiated.
    """

    step: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
    make: Make
    goes_on: Callable[[Tree, Tree], Any] | None = None
    learnt: tuple[int, ...] = (0,)


def loss(carry: Tree, outputs: Tree) -> Any:
    """Half the mean square of the last carry; less the mean of what the steps give, where they give something."""
    of_carry = sum(jnp.mean(leaf * leaf) / 2 for leaf in jax.tree.leaves(carry))
    return of_carry - sum(jnp.mean(leaf) for leaf in jax.tree.leaves(outputs))


def solver_step(weights: Tree, u: Any, drive: Any) -> tuple[Any, None]:
    """A conservation law with diffusion on a ring, driven: its viscosity and the drive's profile are learnt."""
    viscosity, profile = weights
    ahead, behind = jnp.roll(u, -1, -1), jnp.roll(u, 1, -1)
    flux = jnp.tanh(u) * (ahead - behind) / 2
    return u + 0.1 * (viscosity * (ahead - 2 * u + behind) - flux + drive * profile), None


def _solver(rng: np.random.Generator, rows: int, width: int, steps: int) -> tuple[Tree, Tree, Tree]:
    weights = rng.uniform(0.2, 0.8, width), rng.normal(size=width)
    return weights, rng.normal(size=(rows, width)), rng.normal(size=steps)


def gated_step(weights: Tree, h: Any, x: Any) -> tuple[Any, None]:
    """A gated recurrent unit (Cho et al., arXiv:1406.1078)."""
    of_input, of_carry = x @ weights["input"], h @ weights["carry"]
    (reset, update, new), (reset_h, update_h, new_h) = (jnp.split(v, 3, -1) for v in (of_input, of_carry))
    gate = jax.nn.sigmoid(update + update_h)
    return gate * h + (1 - gate) * jnp.tanh(new + jax.nn.sigmoid(reset + reset_h) * new_h), None


def _gated(rng: np.random.Generator, rows: int, width: int, steps: int) -> tuple[Tree, Tree, Tree]:
    weights = {name: rng.normal(size=(width, 3 * width)) / np.sqrt(width) for name in ("input", "carry")}
    return weights, np.zeros((rows, width)), rng.normal(size=(steps, rows, width))


TOKENS = 16


def block_step(_: Tree, h: Any, params: Tree) -> tuple[Any, None]:
    """A block of a transformer on 16 tokens, heads of 32; its weights come with the step."""
    return transformer_block(params, h, heads=h.shape[-1] // 32), None


def _stack(rng: np.random.Generator, rows: int, width: int, steps: int) -> tuple[Tree, Tree, Tree]:
    shapes = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width)}
    scale = {"out": (2 * steps) ** -0.5, "down": (2 * steps) ** -0.5}
    blocks = {
        name: rng.normal(size=(steps, *shape)) * scale.get(name, 1.0) / np.sqrt(shape[0])
        for name, shape in shapes.items()
    }
    return (), rng.normal(size=(rows // TOKENS, TOKENS, width)), blocks


def filter_step(weights: Tree, state: Tree, observed: Any) -> tuple[Tree, Any]:
    """An extended Kalman filter with a diagonal covariance; gives each row's log-likelihood of what is observed."""
    mean, variance = state
    ahead = jnp.tanh(mean @ weights["dynamics"])
    spread = variance * (1 - ahead * ahead) ** 2 + jnp.exp(weights["noise"])
    gain = spread / (spread + 0.1)
    surprise = observed - ahead
    likelihood = -(surprise**2 / (spread + 0.1) + jnp.log(spread + 0.1)) / 2
    return (ahead + gain * surprise, (1 - gain) * spread), jnp.sum(likelihood, -1)


def _filter(rng: np.random.Generator, rows: int, width: int, steps: int) -> tuple[Tree, Tree, Tree]:
    weights = {"dynamics": rng.normal(size=(width, width)) / np.sqrt(width), "noise": np.full(width, -2.0)}
    state = np.zeros((rows, width)), np.ones((rows, width))
    return weights, state, rng.normal(size=(steps, rows, width))


CLOSE = 1e-4  # of a fixed point: the change of a step at which it is found


def fixed_point_step(weights: Tree, state: Tree, _: Any) -> tuple[Tree, None]:
    """One step towards the fixed point of a layer (Bai et al., arXiv:1909.01377), and how far it went.

    The largest change would do, but for its derivative: that asks which entry it equals, and of a step that is computed
    again a compiler may round the two differently, so that none is (XLA on an AMD EPYC; under jax.checkpoint, too).
    """
    u, _ = state
    new = 0.9 * u + 0.1 * jnp.tanh(u @ weights["layer"] + weights["bias"])
    return (new, jnp.sqrt(jnp.mean((new - u) ** 2))), None


def _not_there(_: Tree, state: Tree) -> Any:
    return state[1] > CLOSE


def _fixed_point(rng: np.random.Generator, rows: int, width: int, _: int) -> tuple[Tree, Tree, Tree]:
    layer = np.linalg.qr(rng.normal(size=(width, width)))[0] / 2
    return {"layer": layer, "bias": rng.normal(size=width)}, (np.zeros((rows, width)), np.array(np.inf)), None


FAMILIES = {
    "solver": Family(solver_step, _solver),
    "gated": Family(gated_step, _gated),
    "transformer": Family(block_step, _stack, learnt=(2,)),
    "filter": Family(filter_step, _filter),
    "early": Family(fixed_point_step, _fixed_point, _not_there),
}
