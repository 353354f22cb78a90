"""Hessians: which composition of forward and reverse mode, with ``jax.jit`` and without?

The lecture computes the Hessian of g(x) = 1/3 ||x||^3, which is ||x||^-1 x x^T + ||x|| I. Four compositions compute it,
and three products of it with a vector. Pushing d tangents through a gradient, or pulling d cotangents, costs d x O(T);
pulling cotangents through d tangents that are already there costs d^2 x O(T), and so does pushing d tangents through
d tangents. Beside the lecture's function stands a small network. At x = 0 the norm has no derivative: automatic
differentiation gives NaN where the Hessian is 0, and the usual cure, to take the norm of something that is not 0 there,
gives 0 (JAX's FAQ, "Gradients contain NaN where using where").
"""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from adcost.suite.vocabulary import Case, Method, Params, Program, Study, once_a_size

WIDTH = 64  # of the network's two layers
EAGER = (64, 192)  # inputs at which programs also run without jax.jit
PRODUCTS_AT = (8, 32, 128, 512)  # inputs at which the gradient and products with the Hessian are asked for

Vector = Float[Array, " d"]
Scalar = Float[Array, ""]
Function = Callable[[Vector], Scalar]


def cubed_norm(weights: tuple[()], x: Vector) -> Scalar:
    """g(x) = 1/3 ||x||^3."""
    return jnp.linalg.norm(x) ** 3 / 3


def safe_cubed_norm(weights: tuple[()], x: Vector) -> Scalar:
    """The same, and differentiable at 0: the root is taken of 1 there, and the result thrown away."""
    square = jnp.sum(x * x)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1))
    return jnp.where(square > 0, norm, 0) ** 3 / 3


def network(weights: tuple[Array, Array, Array], x: Vector) -> Scalar:
    """Two layers of tanh and a sum with weights."""
    first, second, last = weights
    return last @ jnp.tanh(second @ jnp.tanh(first @ x))


FAMILIES: dict[str, Callable[[Any, Vector], Scalar]] = {"cubed": cubed_norm, "network": network, "origin": cubed_norm}


# Methods: each takes f, x and a vector v.


def function(f: Function, x: Vector, v: Vector) -> Scalar:
    """f itself: the yardstick."""
    return f(x)


def gradient(f: Function, x: Vector, v: Vector) -> Vector:
    """The gradient: the yardstick of products."""
    return jax.grad(f)(x)


def fwd_rev(f: Function, x: Vector, v: Vector) -> Float[Array, "d d"]:
    """Forward over reverse: what ``jax.hessian`` does."""
    return jax.jacfwd(jax.jacrev(f))(x)


def rev_rev(f: Function, x: Vector, v: Vector) -> Float[Array, "d d"]:
    """Reverse over reverse."""
    return jax.jacrev(jax.jacrev(f))(x)


def rev_fwd(f: Function, x: Vector, v: Vector) -> Float[Array, "d d"]:
    """Reverse over forward."""
    return jax.jacrev(jax.jacfwd(f))(x)


def fwd_fwd(f: Function, x: Vector, v: Vector) -> Float[Array, "d d"]:
    """Forward over forward."""
    return jax.jacfwd(jax.jacfwd(f))(x)


def hvp_fwd_rev(f: Function, x: Vector, v: Vector) -> Vector:
    """One tangent through the gradient."""
    return jax.jvp(jax.grad(f), (x,), (v,))[1]


def hvp_rev_fwd(f: Function, x: Vector, v: Vector) -> Vector:
    """The gradient of a directional derivative."""
    return jax.grad(lambda x: jax.jvp(f, (x,), (v,))[1])(x)


def hvp_rev_rev(f: Function, x: Vector, v: Vector) -> Vector:
    """The gradient of the gradient's product with v."""
    return jax.grad(lambda x: jnp.vdot(jax.grad(f)(x), v))(x)


def closed_form(f: Function, x: Vector, v: Vector) -> Float[Array, "d d"]:
    """||x||^-1 x x^T + ||x|| I, the lecture's; f is not asked."""
    norm = jnp.linalg.norm(x)
    return jnp.outer(x, x) / norm + norm * jnp.eye(x.size, dtype=x.dtype)


def _safe_beside_plain(case: Case) -> bool:
    return case.word("family") == "cubed" and case["inputs"] in PRODUCTS_AT


COMPOSITIONS = {"fwd_rev": fwd_rev, "rev_rev": rev_rev, "rev_fwd": rev_fwd, "fwd_fwd": fwd_fwd}
LABELS = {
    "fwd_rev": "jax.hessian, forward over reverse",
    "rev_rev": "reverse over reverse",
    "rev_fwd": "reverse over forward",
    "fwd_fwd": "forward over forward",
}
PRODUCTS = {"hvp_fwd_rev": hvp_fwd_rev, "hvp_rev_fwd": hvp_rev_fwd, "hvp_rev_rev": hvp_rev_rev}
METHODS = {
    "function": Method(function, differentiates=False),
    "gradient": Method(gradient, where=lambda case: case["inputs"] in PRODUCTS_AT, differentiates=False),
    **{name: Method(build, label=LABELS[name]) for name, build in COMPOSITIONS.items()},
    **{
        f"{name}_eager": Method(build, where=lambda case: case["inputs"] in EAGER, jitted=False)
        for name, build in COMPOSITIONS.items()
    },
    **{
        name: Method(build, form="product", where=lambda case: case["inputs"] in PRODUCTS_AT)
        for name, build in PRODUCTS.items()
    },
    "closed_form": Method(closed_form, where=lambda case: case.word("family") == "cubed"),
    "fwd_rev_safe": Method(
        fwd_rev, form="safe", where=lambda case: case.word("family") == "origin" or _safe_beside_plain(case)
    ),
}


def program(case: Case) -> Program:
    """The case's Hessian, or its product with a vector."""
    method = METHODS[case.method]
    f = safe_cubed_norm if method.form == "safe" else FAMILIES[case.word("family")]

    def run(weights: Any, x: Vector, v: Vector) -> Array:
        return method.build(partial(f, weights), x, v)

    return Program(run, partial(inputs, case))


@once_a_size
def inputs(case: Case) -> tuple[Any, ...]:
    """The network's weights, x and v; x is 0 in the family ``origin``."""
    rng = np.random.default_rng(0)
    d = case["inputs"]
    weights: tuple[np.ndarray, ...] = ()
    x, v = rng.normal(size=d) / np.sqrt(d), rng.normal(size=d) / np.sqrt(d)
    if case.word("family") == "network":
        shapes = (WIDTH, d), (WIDTH, WIDTH), (WIDTH,)
        weights = tuple(rng.normal(size=shape) / np.sqrt(shape[-1]) for shape in shapes)
    if case.word("family") == "origin":
        x = np.zeros(d)
    return tuple(w.astype(case.dtype) for w in weights), x.astype(case.dtype), v.astype(case.dtype)


def reference(case: Case) -> np.ndarray:
    """The Hessian by hand, in NumPy and float64, or its product with v."""
    weights, x, v = inputs(case)
    weights, x, v = [w.astype(float) for w in weights], x.astype(float), v.astype(float)
    hessian = _network(weights, x) if weights else _cubed_norm(x)
    return hessian @ v if METHODS[case.method].form == "product" else hessian


def _cubed_norm(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x)
    return np.outer(x, x) / norm + norm * np.eye(x.size) if norm > 0 else np.zeros((x.size, x.size))


def _network(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """By the chain rule: J^T f'' J of the second layer, and the first layer's own curvature."""
    first, second, last = weights
    h = np.tanh(first @ x)
    y = np.tanh(second @ h)
    slope_h, slope_y = 1 - h * h, 1 - y * y
    jacobian_h = slope_h[:, None] * first
    jacobian = second @ jacobian_h
    by_h = second.T @ (last * slope_y)
    return jacobian.T @ ((-2 * last * y * slope_y)[:, None] * jacobian) + first.T @ (
        (-2 * by_h * h * slope_h)[:, None] * first
    )


def sizes(dimensions: tuple[int, ...]) -> list[Params]:
    """Both functions at each number of inputs, and the lecture's at x = 0."""
    families = [name for name in FAMILIES if name != "origin"]
    grid: list[Params] = [{"family": family, "inputs": d} for family in families for d in dimensions]
    return [*grid, {"family": "origin", "inputs": 8}]


STUDY = Study(
    name="hessians",
    question="Which composition of forward and reverse mode for a Hessian, and for its product with a vector?",
    methods=METHODS,
    sizes={
        "quick": sizes((4, 8, 16, 24, 32, 48, 64, 128)),
        "full": sizes((4, 8, 16, 32, 64, 96, 128, 192, 256, 512)),
    },
    program=program,
    reference=reference,
    tolerance=lambda case: inf if case.word("family") == "origin" else 1e-3,  # there the error is the finding
    baselines=("fwd_rev", "gradient", "function"),
    together=("inputs",),
    compared={"inputs": ()},
)
