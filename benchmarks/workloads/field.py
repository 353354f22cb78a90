"""Programs from the field whose right mode people asked about, with arguments: twelve functions of R^d to R^m.

Each is named by what it is made of; the issue or package that it comes from stands beside it. ``make(rng)`` gives its
weights and its point, in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
from jax import lax
from jax.experimental import sparse

Weights = tuple[Any, ...]


@dataclass(frozen=True)
class Workload:
    """``f(weights, x)`` gives m numbers of the d in x. ``modes``: those that JAX does not refuse."""

    f: Callable[[Weights, Any], Any]
    make: Callable[[np.random.Generator], tuple[Weights, np.ndarray]]
    inputs: int
    outputs: int
    modes: tuple[str, ...] = ("jacfwd", "jacrev")


def _alone(d: int) -> Callable[[np.random.Generator], tuple[Weights, np.ndarray]]:
    """No weights, and a point of d numbers."""
    return lambda rng: ((), rng.normal(size=d))


def gather(weights: Weights, x: Any) -> Any:
    """A few entries of a long table (jax #719)."""
    return x[np.arange(64) * 7]


def lookup(weights: Weights, x: Any) -> Any:
    """A short table, looked up again and again (jax #719)."""
    return x[np.arange(4096) % 64]


def smallest(weights: Weights, x: Any) -> Any:
    """Order statistics (jax #719)."""
    return jnp.sort(x)[:16]


def tiles(weights: Weights, x: Any) -> Any:
    """A few values, repeated and sorted (jax #719)."""
    return jnp.sort(jnp.tile(x, 64))


def pooling(weights: Weights, x: Any) -> Any:
    """The largest of each 4 x 4 pixels, as networks pool."""
    return lax.reduce_window(x.reshape(32, 32), -jnp.inf, lax.max, (4, 4), (4, 4), "VALID").ravel()


def sparse_product(weights: Weights, x: Any) -> Any:
    """A sparse matrix of few rows times x, and a sine."""
    entries, places = weights
    return jnp.sin(sparse.BCOO((entries, places), shape=(32, 1024)) @ x)


def implicit(weights: Weights, x: Any) -> Any:
    """The solution of a system whose matrix depends on x, by conjugate gradients (lineax, jaxopt users)."""
    modes, right = weights
    tol = float(jnp.finfo(x.dtype).eps) ** 0.85
    return jsp.sparse.linalg.cg(lambda v: 2 * v + modes.T @ (x**2 * (modes @ v)), right, tol=tol)[0]


def attention(weights: Weights, x: Any) -> Any:
    """One head over 16 tokens of 8 numbers, and the mean of what it says (GPT's kind)."""
    query, key, value = weights
    tokens = x.reshape(16, 8)
    shares = jax.nn.softmax((tokens @ query) @ (tokens @ key).T / np.sqrt(8))
    return jnp.mean(shares @ (tokens @ value), 0)


STEPS, STEP = 64, 0.02


@jax.custom_vjp
def flow(x: Any, rates: Any) -> Any:
    """Euler's method for dx/dt = tanh(rates x)."""
    return lax.fori_loop(0, STEPS, lambda _, x: x + STEP * jnp.tanh(rates @ x), x)


def _flow_forward(x: Any, rates: Any) -> Any:
    end = flow(x, rates)
    return end, (end, rates)


def _flow_backward(residuals: Any, cotangent: Any) -> Any:
    """The adjoint equation beside the flow run backwards, so that no state is kept (Chen et al., arXiv:1806.07366)."""
    end, rates = residuals

    def back(_: Any, carry: Any) -> Any:
        x, adjoint, by_rates = carry
        for _ in range(3):  # the step before this one, by a fixed point
            before = carry[0] - STEP * jnp.tanh(rates @ x)
            x = before
        slope = STEP * adjoint * (1 - jnp.tanh(rates @ x) ** 2)
        return x, adjoint + rates.T @ slope, by_rates + jnp.outer(slope, x)

    _, by_x, by_rates = lax.fori_loop(0, STEPS, back, (end, cotangent, jnp.zeros_like(rates)))
    return by_x, by_rates


flow.defvjp(_flow_forward, _flow_backward)


def adjoint(weights: Weights, x: Any) -> Any:
    """The end of a flow that brings its own adjoint (diffrax, torchdiffeq users)."""
    return jnp.stack([jnp.sum(flow(x, weights[0]) ** 2)])


def phases(weights: Weights, x: Any) -> Any:
    """Phases of an interferometer's baselines (jax #215)."""
    baselines, frequencies = weights
    directions = x.reshape(-1, 2) / 4
    n = jnp.sqrt(1 - jnp.sum(directions**2, 1)) - 1
    paths = directions @ baselines[:, :2].T + n[:, None] * baselines[:, 2]
    return (paths[..., None] * frequencies).ravel()


def recurrence(weights: Weights, x: Any) -> Any:
    """A linear recurrence by its decay rates, through an associative scan (jax #19498)."""
    pair = jnp.broadcast_to(x, weights[0].shape), weights[0]
    return lax.associative_scan(lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1]), pair)[1].ravel()


def tridiagonal(weights: Weights, x: Any) -> Any:
    """The residual of a boundary value problem (jax #4753)."""
    padded = jnp.pad(x, 1)
    return (padded[2:] - 2 * x + padded[:-2]) * 100 + jnp.exp(x)


def _with_entries(rng: np.random.Generator) -> tuple[Weights, np.ndarray]:
    places = np.stack([rng.integers(32, size=2048), rng.integers(1024, size=2048)], 1)
    return (rng.normal(size=2048) / 8, places), rng.normal(size=1024)


def _with_modes(rng: np.random.Generator) -> tuple[Weights, np.ndarray]:
    return (rng.normal(size=(8, 256)) / 16, rng.normal(size=256)), rng.uniform(1, 2, size=8)


def _with_heads(rng: np.random.Generator) -> tuple[Weights, np.ndarray]:
    return tuple(rng.normal(size=(3, 8, 8)) / np.sqrt(8)), rng.normal(size=128)


def _with_rates(rng: np.random.Generator) -> tuple[Weights, np.ndarray]:
    return (rng.normal(size=(64, 64)) / 8,), rng.normal(size=64)


def _with_baselines(rng: np.random.Generator) -> tuple[Weights, np.ndarray]:
    return (rng.normal(size=(32, 3)), rng.uniform(1, 2, size=16)), rng.uniform(size=8)


def _with_drive(rng: np.random.Generator) -> tuple[Weights, np.ndarray]:
    return (rng.normal(size=(64, 16)),), rng.uniform(0.5, 0.95, size=16)


FIELD = {
    "gather": Workload(gather, _alone(4096), 4096, 64),
    "lookup": Workload(lookup, _alone(64), 64, 4096),
    "smallest": Workload(smallest, _alone(2048), 2048, 16),
    "tiles": Workload(tiles, _alone(16), 16, 1024),
    "pooling": Workload(pooling, _alone(1024), 1024, 64),
    "sparse": Workload(sparse_product, _with_entries, 1024, 32),
    "implicit": Workload(implicit, _with_modes, 8, 256),
    "attention": Workload(attention, _with_heads, 128, 8),
    "adjoint": Workload(adjoint, _with_rates, 64, 1, ("jacrev",)),
    "phases": Workload(phases, _with_baselines, 8, 2048),
    "recurrence": Workload(recurrence, _with_drive, 16, 1024),
    "tridiagonal": Workload(tridiagonal, _alone(256), 256, 256),
}


def arguments(name: str, dtype: str) -> tuple[Weights, np.ndarray]:
    """Weights and point of a workload; integers stay integers."""
    weights, x = FIELD[name].make(np.random.default_rng(0))
    return tuple(w.astype(dtype) if np.issubdtype(w.dtype, np.floating) else w for w in weights), x.astype(dtype)


@cache
def jacobian(name: str) -> np.ndarray:
    """The Jacobian, m x d, by central differences in float64: from values alone."""
    workload, step = FIELD[name], 1e-6
    with jax.enable_x64(True):
        weights, x = arguments(name, "float64")

        def slope(direction: Any) -> Any:
            ahead, behind = (workload.f(weights, x + way * direction) for way in (step, -step))
            return (ahead - behind) / (2 * step)

        # Of what brings its own rule, too, only values are asked.
        columns = jax.jit(lambda: lax.map(slope, jnp.eye(x.size), batch_size=64))()
        return np.asarray(columns).T
