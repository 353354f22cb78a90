"""Hutchinson's estimator: the trace of a network's Hessian from its products with random vectors.

The lecture: Tr X = E[v^T X v] for probes with E[v v^T] = I, and a product of a Hessian with a vector costs a few
gradients, so that the trace needs no matrix. X is the Hessian of a trained network's loss on handwritten digits: once
with so few weights that the exact trace is at hand, once with more than 10^5.

Three questions share the study. ``costs``: V products in every order of modes, batched, in chunks, one by one.
``estimates``: many quadratic forms of each kind of probe, whose mean, variance and error theory foretells (Avron and
Toledo, J. ACM 58, 2011). ``budgets``: Hutchinson's mean, Hutch++ and XTrace with as many products.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from adcost import trace_estimators
from adcost.rulers import estimate
from adcost.suite.vocabulary import Case, Figure, Method, Params, Program, Study, once_a_size
from benchmarks.workloads.digits import digits

LAYERS = {"small": (16, 14, 10), "large": (64, 300, 300, 10)}
IMAGES = 64  # of which the loss is the mean
ORDERS_AT = 32  # probes at which all orders are compared
CHUNK, SAMPLE_CHUNK = 16, 512  # probes that are multiplied at once
STEPS, RATE, MOMENTUM = 300, 0.1, 0.9  # of training
KINDS = ("rademacher", "gaussian", "sphere")

Weights = Float[Array, " d"]
Probes = Float[Array, "v d"]
Product = Callable[[Array], Array]


# The network.


def loss(weights: Weights, images: Array, labels: Array, layers: tuple[int, ...]) -> Float[Array, ""]:
    """Mean cross-entropy of layers of tanh, with a bias each; the weights are one vector."""
    h, begin = images, 0
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(layers)):
        middle, end = begin + fan_in * fan_out, begin + (fan_in + 1) * fan_out
        z = h @ weights[begin:middle].reshape(fan_in, fan_out) + weights[middle:end]
        h, begin = (z if i == len(layers) - 2 else jnp.tanh(z)), end
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(h), axis=1))


def dimension(network: str) -> int:
    """Weights and biases of a network."""
    layers = LAYERS[network]
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(layers))


@lru_cache
def trained(network: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights after ``STEPS`` steps of gradient descent with momentum, images and labels, in float64."""
    layers = LAYERS[network]
    images, labels = digits(round(layers[0] ** 0.5), IMAGES)
    rng = np.random.default_rng(0)
    parts = [
        part
        for fan_in, fan_out in itertools.pairwise(layers)
        for part in (rng.normal(size=fan_in * fan_out) / fan_in**0.5, np.zeros(fan_out))
    ]
    weights = np.concatenate(parts)
    velocity = np.zeros_like(weights)
    for _ in range(STEPS):
        velocity = MOMENTUM * velocity - RATE * gradient(weights, images, labels, layers)
        weights = weights + velocity
    return weights, images, labels


def gradient(weights: np.ndarray, images: np.ndarray, labels: np.ndarray, layers: tuple[int, ...]) -> np.ndarray:
    """The gradient of the loss by hand, in NumPy."""
    hidden, kernels, begin = [images], [], 0
    shapes = list(itertools.pairwise(layers))
    for i, (fan_in, fan_out) in enumerate(shapes):
        middle, end = begin + fan_in * fan_out, begin + (fan_in + 1) * fan_out
        kernels.append(weights[begin:middle].reshape(fan_in, fan_out))
        z = hidden[-1] @ kernels[-1] + weights[middle:end]
        hidden.append(z if i == len(shapes) - 1 else np.tanh(z))
        begin = end
    z = hidden[-1] - hidden[-1].max(1, keepdims=True)
    softmax = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    delta = (softmax - labels) / len(images)
    parts: list[np.ndarray] = []
    for i in reversed(range(len(shapes))):
        parts = [(hidden[i].T @ delta).ravel(), delta.sum(0), *parts]
        delta = (delta @ kernels[i].T) * (1 - hidden[i] ** 2)
    return np.concatenate(parts)


def products(network: str, probes: np.ndarray) -> np.ndarray:
    """The Hessian's products with probes, a row each, by central differences of the gradient by hand, in float64."""
    weights, images, labels = trained(network)
    layers, step = LAYERS[network], 1e-5
    scale = np.linalg.norm(probes, axis=1, keepdims=True)
    along = step * probes / scale
    pairs = [
        gradient(weights + v, images, labels, layers) - gradient(weights - v, images, labels, layers) for v in along
    ]
    return np.stack(pairs) / (2 * step) * scale


@lru_cache
def hessian(network: str) -> np.ndarray:
    """The exact Hessian, symmetric; for a small network alone."""
    found = products(network, np.eye(dimension(network)))
    return (found + found.T) / 2


# Orders of the two modes in a product, and ways to multiply by many probes.


def fwd_rev(f: Callable[[Weights], Array], weights: Weights) -> Product:
    """One tangent through the gradient."""
    return lambda v: jax.jvp(jax.grad(f), (weights,), (v,))[1]


def rev_fwd(f: Callable[[Weights], Array], weights: Weights) -> Product:
    """The gradient of a directional derivative."""
    return lambda v: jax.grad(lambda w: jax.jvp(f, (w,), (v,))[1])(weights)


def rev_rev(f: Callable[[Weights], Array], weights: Weights) -> Product:
    """The gradient of the gradient's product with v."""
    return lambda v: jax.grad(lambda w: jnp.vdot(jax.grad(f)(w), v))(weights)


def linearized(f: Callable[[Weights], Array], weights: Weights) -> Product:
    """The gradient linearized once, for all probes."""
    return jax.linearize(jax.grad(f), weights)[1]


def batched(product: Product, probes: Probes) -> Probes:
    """All probes at once."""
    return jax.vmap(product)(probes)


def chunked(product: Product, probes: Probes, size: int = CHUNK) -> Probes:
    """So many at once."""
    return lax.map(product, probes, batch_size=size)


def sequential(product: Product, probes: Probes) -> Probes:
    """One after the other."""
    return lax.map(product, probes)


def forms(order: Any, many: Any) -> Any:
    """A method of the costs and the estimates: the quadratic form of every probe."""

    def run(f: Callable[[Weights], Array], weights: Weights, probes: Probes) -> Float[Array, " v"]:
        product = order(f, weights)
        return many(lambda v: jnp.vdot(v, product(v)), probes)

    return run


def exact(f: Callable[[Weights], Array], weights: Weights, probes: Probes) -> Float[Array, ""]:
    """The trace by d products with the unit vectors, in chunks."""
    unit = jnp.eye(weights.size, dtype=weights.dtype)
    return jnp.trace(chunked(fwd_rev(f, weights), unit))


def budget(estimator: Any) -> Any:
    """A method of the budgets: an estimate from every draw of as many probes, one draw after the other."""

    def run(f: Callable[[Weights], Array], weights: Weights, probes: Float[Array, "r v d"]) -> Float[Array, " r"]:
        product = linearized(f, weights)
        return lax.map(lambda draw: estimator(lambda columns: batched(product, columns.T).T, draw.T), probes)

    return run


def matfree_hutchinson(matmat: trace_estimators.Matmat, probes: Array) -> Array:
    """matfree's mean of quadratic forms."""
    from matfree import stochtrace

    estimator = stochtrace.estimator_monte_carlo(stochtrace.monte_carlo_trace(), sampler=lambda key: probes.T)
    return estimator(lambda v: matmat(v[:, None])[:, 0], None)


def matfree_xtrace(matmat: trace_estimators.Matmat, probes: Array) -> Array:
    """matfree's XTrace, as it comes."""
    from matfree import stochtrace

    half = probes[:, : probes.shape[1] // 2]
    estimator = stochtrace.estimator_leave_one_out(stochtrace.leave_one_out_xtrace(), sampler=lambda key: half.T)
    return estimator(lambda v: matmat(v[:, None])[:, 0], None)


def _orders(case: Case) -> bool:
    """Where all orders are compared: at one number of probes."""
    return case.word("question") == "costs" and case["probes"] == ORDERS_AT


def _exact(case: Case) -> bool:
    """Where as many products are made as the exact trace takes, and where the orders are compared."""
    d = dimension("small")
    return case.word("question") == "costs" and case.word("network") == "small" and case["probes"] in (ORDERS_AT, d)


def _of(question: str) -> Any:
    return lambda case: case.word("question") == question


def _estimator(estimator: Any, label: str, extra: tuple[str, str] | None = None) -> Method:
    return Method(budget(estimator), label=label, where=_of("budgets"), differentiates=False, extra=extra)


METHODS = {
    "gradient": Method(lambda f, weights, probes: jax.grad(f)(weights), where=_orders, differentiates=False),
    "fwd_rev": Method(forms(fwd_rev, batched), label="all at once", where=_of("costs")),
    "rev_fwd": Method(forms(rev_fwd, batched), where=_orders),
    "rev_rev": Method(forms(rev_rev, batched), where=_orders),
    "linearized": Method(forms(linearized, batched), where=_orders),
    "fwd_rev_chunked": Method(forms(fwd_rev, chunked), label=f"{CHUNK} at once", where=_of("costs")),
    "fwd_rev_sequential": Method(forms(fwd_rev, sequential), label="one by one", where=_of("costs")),
    "linearized_sequential": Method(forms(linearized, sequential), where=_orders),
    "exact": Method(exact, where=_exact),
    "estimates": Method(forms(fwd_rev, partial(chunked, size=SAMPLE_CHUNK)), where=_of("estimates")),
    "hutchinson": _estimator(trace_estimators.hutchinson, "the mean of the quadratic forms"),
    "hutchpp": _estimator(trace_estimators.hutchpp, "Hutch++"),
    "xtrace": _estimator(trace_estimators.xtrace, "XTrace"),
    "matfree_hutchinson": _estimator(matfree_hutchinson, "matfree's mean", extra=("peers", "matfree")),
    "matfree_xtrace": _estimator(matfree_xtrace, "matfree's XTrace", extra=("peers", "matfree")),
}


def program(case: Case) -> Program:
    """The case's quadratic forms, exact trace or estimates."""
    method, layers = METHODS[case.method], LAYERS[case.word("network")]

    def run(weights: Weights, images: Array, labels: Array, probes: Array) -> Array:
        return method.build(partial(loss, images=images, labels=labels, layers=layers), weights, probes)

    said = {"estimates": said_of_estimates, "budgets": said_of_budgets}.get(case.word("question"))
    return Program(run, partial(inputs, case), says=partial(said, case) if said else None)


@once_a_size
def inputs(case: Case) -> tuple[np.ndarray, ...]:
    """Trained weights, images, labels and the probes, a row each."""
    network, count = case.word("network"), (case["draws"], case["probes"])
    drawn = probes(case.word("kind"), count, dimension(network))
    arrays = (*trained(network), drawn if case.word("question") == "budgets" else drawn[0])
    return tuple(array.astype(case.dtype) for array in arrays)


def probes(kind: str, count: tuple[int, int], d: int) -> np.ndarray:
    """Random vectors v of d numbers with E[v v^T] = I: signs, normal, or uniform on the sphere of radius sqrt(d)."""
    rng = np.random.default_rng(KINDS.index(kind))
    if kind == "rademacher":
        return rng.integers(2, size=(*count, d)) * 2.0 - 1
    v = rng.normal(size=(*count, d))
    return v if kind == "gaussian" else v * (d**0.5 / np.linalg.norm(v, axis=-1, keepdims=True))


def reference(case: Case) -> Any:
    """The quadratic forms, or the trace, by differences of the gradient by hand."""
    network = case.word("network")
    if case.method == "exact":
        return np.trace(hessian(network))
    drawn = inputs(case)[-1].astype(float)
    multiplied = drawn @ hessian(network) if network == "small" else products(network, drawn)
    return np.sum(drawn * multiplied, axis=1)


def said_of_estimates(case: Case, result: Array) -> Iterator[Figure]:
    """What the quadratic forms say, and what theory takes of the matrix to foretell them."""
    matrix = hessian(case.word("network"))
    yield Figure("exact trace", "1", float(np.trace(matrix)))
    yield Figure("squared Frobenius norm", "1", float(np.sum(matrix**2)))
    yield Figure("squared diagonal", "1", float(np.sum(np.diag(matrix) ** 2)))
    yield from estimate.of_sample(np.asarray(result, float), float(np.trace(matrix)))


def said_of_budgets(case: Case, result: Array) -> Iterator[Figure]:
    """The error of the estimates."""
    return estimate.of_draws(np.asarray(result, float), float(np.trace(hessian(case.word("network")))))


def tolerance(case: Case) -> float:
    """What rounding in float32 and the differences leave of a sum over the weights."""
    return 1e-3


def sizes(
    many: tuple[int, ...], large: tuple[int, ...], sample: int, budgets: tuple[int, ...], draws: int
) -> list[Params]:
    """Numbers of probes of either network, the large samples, and numbers of products of the estimators."""

    def size(question: str, network: str, kind: str, probes: int, draws: int = 1) -> Params:
        return {"question": question, "network": network, "kind": kind, "probes": probes, "draws": draws}

    return [
        *(size("costs", "small", "rademacher", count) for count in many),
        *(size("costs", "large", "rademacher", count) for count in large),
        *(size("estimates", "small", kind, sample) for kind in KINDS),
        *(size("budgets", "small", "gaussian", count, draws) for count in budgets),
    ]


STUDY = Study(
    name="trace",
    question="What does Hutchinson's estimate of a Hessian's trace cost, and is it as good as theory says?",
    methods=METHODS,
    sizes={
        "quick": sizes((16, 32, 48, 64, 96, 128, 192, 256, 388), (32,), 32768, (12, 48), 32),
        "full": sizes(
            (16, 32, 48, 64, 96, 128, 192, 256, 388, 768), (8, 32, 128), 65536, (12, 24, 48, 96, 192, 384), 256
        ),
    },
    program=program,
    reference=reference,
    tolerance=tolerance,
    baselines=("fwd_rev", "gradient"),
    against=lambda case: {"exact": case.with_method("exact")} if case.word("question") == "costs" else {},
    together=("question", "network", "kind", "probes", "draws"),
    in_turn=("question", "network"),
    compared={"probes": ()},
)
