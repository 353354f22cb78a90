"""Backprop through a chain of n layers: what is stored, what is computed again, what does it cost?

The lecture's three strategies (its figures 9 to 12) are vanilla backprop, which stores every activation;
memory-poor backprop, which computes each from the input; and checkpoints every sqrt(n) layers. Beside them stand
the optimum for a given number of slots (Griewank and Walther 2000) and what people write in JAX today.

The workload is a chain of dense tanh layers without biases, a wide batch and narrow layers, so that an activation
(batch x width) dwarfs a weight matrix (width x width) and memory measures activations.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import ceil
from math import sqrt as square_root
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from adcost.checkpointing import (
    Schedule,
    binomial,
    checkpointed_chain,
    memory_poor,
    multilevel,
    sqrt,
    store_all,
)
from adcost.suite.vocabulary import Case, Fit, Method, Program, Study, once_a_size

Weights = Float[Array, "depth width width"]
Weight = Float[Array, "width width"]
Activation = Float[Array, "batch width"]
Layer = Callable[[Any, Any], Any]
Chain = Callable[[Any, Any], Any]
Remat = Callable[[Chain], Chain]


def layer(weight: Weight, h: Activation) -> Activation:
    """One layer: one matrix product, one tanh."""
    return jnp.tanh(h @ weight)


def pullback(weight: Weight, h_in: Activation, h_out: Activation, g: Activation) -> tuple[Weight, Activation]:
    """Backward step of ``layer`` from its stored input and output: tanh' = 1 - tanh^2."""
    dz = g * (1 - h_out * h_out)
    return h_in.T @ dz, dz @ weight.T


def loss(h: Activation) -> Float[Array, ""]:
    """Half the mean square of the last activation."""
    return jnp.mean(h * h) / 2


# Methods: each takes a layer and a depth and returns the chain f(weights, x) -> h_depth.


def vanilla(layer: Layer, depth: int) -> Chain:
    """Plain ``jax.grad`` of a ``lax.scan`` over the layers."""
    return lambda weights, x: lax.scan(lambda h, weight: (layer(weight, h), None), x, weights)[0]


def vanilla_unrolled(layer: Layer, depth: int) -> Chain:
    """Plain ``jax.grad`` of a Python loop over the layers."""

    def chain(weights: Weights, x: Activation) -> Activation:
        for i in range(depth):
            x = layer(weights[i], x)
        return x

    return chain


def by_schedule(schedule: Callable[[int], Schedule]) -> Callable[[Layer, int], Chain]:
    """The executor with the layer's own backward step: the lecture's account of evaluations."""
    return lambda layer, depth: checkpointed_chain(layer, schedule(depth), pullback)


def by_schedule_taped(schedule: Callable[[int], Schedule]) -> Callable[[Layer, int], Chain]:
    """The executor with ``jax.vjp`` of the layer: the tape's account, one more evaluation a layer."""
    return lambda layer, depth: checkpointed_chain(layer, schedule(depth))


def jax_remat_layer(layer: Layer, depth: int) -> Chain:
    """``jax.checkpoint`` around every layer of the scan."""
    return vanilla(jax.checkpoint(layer), depth)


def jax_remat_sqrt(
    layer: Layer, depth: int, inner: Callable[[Layer], Layer] = lambda layer: layer, checkpoint: Remat = jax.checkpoint
) -> Chain:
    """A scan over segments of about sqrt(n) layers, ``jax.checkpoint`` around each segment's scan."""
    length = ceil(square_root(depth))
    whole = depth - depth % length
    segment = checkpoint(vanilla(inner(layer), length))

    def chain(weights: Weights, x: Activation) -> Activation:
        segments = weights[:whole].reshape(-1, length, *weights.shape[1:])
        x = vanilla(segment, depth // length)(segments, x)
        return segment(weights[whole:], x) if whole < depth else x

    return chain


def jax_remat_sqrt_inner(layer: Layer, depth: int) -> Chain:
    """As ``jax_remat_sqrt``, with ``jax.checkpoint`` around every layer inside as well."""
    return jax_remat_sqrt(layer, depth, inner=jax.checkpoint)


def jax_remat_unrolled(layer: Layer, depth: int, checkpoint: Remat = jax.checkpoint) -> Chain:
    """A Python loop over segments of about sqrt(n) layers, ``jax.checkpoint`` around each: the usual recipe."""
    length = ceil(square_root(depth))

    def chain(weights: Weights, x: Activation) -> Activation:
        for start in range(0, depth, length):
            part = weights[start : start + length]
            x = checkpoint(vanilla_unrolled(layer, len(part)))(part, x)
        return x

    return chain


def jax_remat_nested(layer: Layer, depth: int) -> Chain:
    """``jax.checkpoint`` around halves of halves: log n memory, n log n evaluations (Chen et al. 2016, section 4.2)."""
    if depth == 1:
        return lambda weights, x: layer(weights[0], x)
    half = jax.checkpoint(jax_remat_nested(layer, depth // 2))

    def chain(weights: Weights, x: Activation) -> Activation:
        halves = weights[: depth - depth % 2].reshape(2, depth // 2, *weights.shape[1:])
        x = vanilla(half, 2)(halves, x)
        return jax.checkpoint(layer)(weights[-1], x) if depth % 2 else x

    return chain


def equinox(layer: Layer, depth: int, checkpoints: int | None = None) -> Chain:
    """Equinox's checkpointed scan, its own choice of checkpoints unless told (online binomial, arXiv:2005.04322)."""
    from equinox.internal import scan

    def chain(weights: Weights, x: Activation) -> Activation:
        def body(h: Activation, weight: Weight) -> tuple[Activation, None]:
            return layer(weight, h), None

        return scan(body, x, weights, kind="checkpointed", checkpoints=checkpoints)[0]

    return chain


def two_pass_slots(depth: int) -> int:
    """Least slots with which no layer is evaluated more than twice: about sqrt(2n)."""
    slots = 1
    while (slots + 1) * (slots + 2) // 2 < depth + 1:
        slots += 1
    return slots


def scheduled(schedule: Callable[[int], Schedule], label: str, followed: bool = False) -> Method:
    """A method that runs a schedule with the layer's own backward step: the lecture's account of evaluations."""
    return Method(by_schedule(schedule), label=label, schedule=schedule, followed=followed)


def unrolled(build: Callable[..., Chain], label: str) -> Method:
    """A method without a loop."""
    because = "an unrolled program takes too long to compile beyond"
    return Method(build, {"depth": 144}, because, label, form="unrolled", compiles=False)


def binomial_two_passes(depth: int) -> Schedule:
    """The binomial schedule with the least slots for two passes."""
    return binomial(depth, two_pass_slots(depth))


# Narrow layers write more than they compute; of wide ones arithmetic is what counts. And the length at which others
# have published what checkpointing costs (Gruslys et al. 2016, 50 slots; Griewank and Walther 2000, 10).
WIDE = {"width": 1024, "batch": 512}
LONG = {"depth": 1000, "width": 256, "batch": 256}
ON_WIDE = ("vanilla", "store_all", "sqrt", "binomial_3", "binomial_10", "jax_remat_layer", "jax_remat_sqrt", "forward")
ON_LONG = ("vanilla", "store_all", "binomial_50", "binomial_10_tape", "forward")


def asked(name: str, case: Case) -> bool:
    """Is a method asked for at a case's size?"""
    if case["width"] == WIDE["width"]:
        return name in ON_WIDE
    if (case["depth"], case["width"]) == (LONG["depth"], LONG["width"]):
        return name in ON_LONG
    return name not in ("binomial_50", "binomial_10_tape")


PEER = ("peers", "equinox")
# Followed are those of whose growth a claim speaks; that of the binomial schedule speaks of every size by itself.
METHODS = {
    "vanilla": Method(vanilla, label="plain jax.grad of a scan", followed=True),
    "store_all": scheduled(store_all, "checkpointed_chain that stores everything", followed=True),
    "memory_poor": Method(
        by_schedule(memory_poor),
        {"depth": 144},
        "its n(n+1)/2 evaluations take too long beyond",
        "memory-poor: every activation computed from the input",
        schedule=memory_poor,
        followed=True,
    ),
    "sqrt": scheduled(sqrt, "checkpoints every sqrt(n) layers", followed=True),
    "multilevel_3": scheduled(partial(multilevel, levels=3), "checkpoints on three levels"),
    "binomial_3": scheduled(partial(binomial, slots=3), "the binomial schedule with 3 slots"),
    "binomial_10": scheduled(partial(binomial, slots=10), "the binomial schedule with 10 slots"),
    "binomial_50": scheduled(partial(binomial, slots=50), "the binomial schedule with 50 slots"),
    "binomial_10_tape": Method(
        by_schedule_taped(partial(binomial, slots=10)),
        label="the binomial schedule with 10 slots, jax.vjp of each layer",
        schedule=partial(binomial, slots=10),
        form="taped",
    ),
    "binomial_sqrt": scheduled(binomial_two_passes, "the binomial schedule with about sqrt(2n) slots"),
    "sqrt_tape": Method(
        by_schedule_taped(sqrt),
        label="checkpoints every sqrt(n) layers, jax.vjp of each layer",
        schedule=sqrt,
        form="taped",
    ),
    "vanilla_unrolled": unrolled(vanilla_unrolled, "plain jax.grad without a loop"),
    "jax_remat_layer": Method(jax_remat_layer, label="jax.checkpoint around every layer"),
    "jax_remat_sqrt": Method(jax_remat_sqrt, label="jax.checkpoint around segments of sqrt(n) layers"),
    "jax_remat_sqrt_inner": Method(jax_remat_sqrt_inner, label="jax.checkpoint around segments and the layers in them"),
    "jax_remat_unrolled": unrolled(jax_remat_unrolled, "jax.checkpoint around segments, without a loop"),
    "jax_remat_nested": Method(jax_remat_nested, label="jax.checkpoint around halves of halves"),
    "equinox": Method(equinox, label="Equinox's checkpointed scan", form="online", extra=PEER),
    "equinox_10": Method(
        partial(equinox, checkpoints=10),
        label="Equinox's checkpointed scan with 10 checkpoints",
        form="online",
        extra=PEER,
    ),
    "forward": Method(vanilla, label="the forward pass alone", differentiates=False),
}
METHODS = {name: replace(method, where=partial(asked, name)) for name, method in METHODS.items()}


def program(case: Case, method: Method | None = None) -> Program:
    """The gradient of the loss with respect to the weights (of a yardstick: the loss), by the case's method."""
    method = method or METHODS[case.method]
    of_chain = gradient if method.differentiates else value
    return with_slots(of_chain(case, method.build(layer, case["depth"])), method, case["depth"])


def with_slots(program: Program, method: Method, depth: int) -> Program:
    """The program, which says how many slots its schedule has."""
    if method.schedule is None:
        return program
    return replace(program, facts={**program.facts, "slots": (method.schedule(depth).slots, "activations")})


def gradient(case: Case, chain: Chain) -> Program:
    """The gradient of a chain's loss with respect to its weights."""
    forward = value(case, chain)
    return replace(forward, run=jax.grad(forward.run), loss=forward.run)


def value(case: Case, chain: Chain) -> Program:
    """A chain's loss."""

    def of_weights(weights: Weights, x: Activation) -> Float[Array, ""]:
        return loss(chain(weights, x))

    facts = {"activation": (case["batch"] * case["width"] * DTYPE_BYTES[case.dtype], "B")}
    return Program(of_weights, partial(inputs, case), facts=facts, shapes=partial(shapes, case))


DTYPE_BYTES = {"float32": 4, "float64": 8}


@once_a_size
def inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Orthogonal weights, which neither blow gradients up nor let them vanish, and a standard normal batch."""
    rng = np.random.default_rng(0)
    weights = np.linalg.qr(rng.normal(size=(case["depth"], case["width"], case["width"])))[0]
    x = rng.normal(size=(case["batch"], case["width"]))
    return weights.astype(case.dtype), x.astype(case.dtype)


def shapes(case: Case) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of the inputs."""
    weights = jax.ShapeDtypeStruct((case["depth"], case["width"], case["width"]), case.dtype)
    return weights, jax.ShapeDtypeStruct((case["batch"], case["width"]), case.dtype)


@once_a_size
def reference(case: Case) -> np.ndarray:
    """The gradient by hand, in NumPy and float64: it shares no code with what it checks."""
    weights, h = (a.astype(np.float64) for a in inputs(case))
    activations = [h]
    for weight in weights:
        h = np.tanh(h @ weight)
        activations.append(h)
    g = h / h.size
    gradient = np.empty_like(weights)
    for i in reversed(range(len(weights))):
        dz = g * (1 - activations[i + 1] ** 2)
        gradient[i] = activations[i].T @ dz
        g = dz @ weights[i].T
    return gradient


def executions(case: Case) -> int:
    """How often the case's program really evaluates a layer, counted while it runs (at width 2, batch 1)."""
    count = 0

    def bump(_: Any) -> None:
        nonlocal count
        count += 1

    def counted(weight: Weight, h: Activation) -> Activation:
        jax.debug.callback(bump, h[0, 0])  # without an operand a scan would hoist it out of its loop
        return layer(weight, h)

    chain = METHODS[case.method].build(counted, case["depth"])
    small = Case(case.study, case.method, (("depth", case["depth"]), ("width", 2), ("batch", 1)), case.dtype)
    jax.block_until_ready(jax.jit(jax.grad(lambda *arrays: loss(chain(*arrays))))(*inputs(small)))
    jax.effects_barrier()
    return count


STUDY = Study(
    name="backprop",
    question="What does it cost to backpropagate through n layers, and what does it take to store less?",
    methods=METHODS,
    sizes={
        "quick": [{"depth": n, "width": 32, "batch": 1024} for n in (4, 8, 16, 36, 49, 64, 100, 144, 1024)],
        "full": [
            *({"depth": n, "width": 64, "batch": 1024} for n in (4, 8, 16, 25, 36, 64, 100, 144, 256, 400, 576, 1024)),
            *({"depth": n, **WIDE} for n in (16, 36)),
            LONG,
        ],
    },
    program=program,
    reference=reference,
    tolerance=lambda case: 1e-3,
    baselines=("vanilla", "store_all", "forward"),
    evaluates="tanh",
    executions=executions,
    executed={"depth": (16, 144, 1024)},  # the drawn one, memory-poor's largest, the largest
    compared={"depth": (1024,)},
    besides={"quick": {"depth": (16, 144, 1024)}},
    # An activation of 1 GiB, a weight of 4 MiB.
    fit=Fit("depth", lambda case: {"width": 1024, "batch": 2**18}, most=lambda case: 2**14),
)
