"""Gradient checkpointing in real networks: training steps of a stack of blocks, by policy and by schedule.

The lecture closes its part on checkpointing with an example of its use. Here two networks are trained on handwritten
digits: an MLP, and a transformer (pixels as tokens; attention, MLP and normalisation before each, as in Vaswani et al.
2017 and Xiong et al. 2020). A step takes the gradient of the mean cross-entropy and moves the weights by Adam. What
differs between methods is what the forward pass keeps of each block for the backward pass:

- a policy of ``jax.checkpoint`` around every block: nothing, everything, products of matrices, named values, named
  values that are moved to the host's memory;
- segments of blocks, each run again as a whole. Where backprop keeps rho carries of a block, the memory of k segments
  is k + rho n / k carries, least at k = sqrt(rho n) (Chen et al. 2016, section 4.1, has rho = 1);
- a schedule of ``adcost.checkpointing``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from adcost.checkpointing import Schedule, checkpointed_chain, sqrt
from adcost.suite.vocabulary import Case, Figure, Fit, Method, Params, Program, Study, once_a_size
from benchmarks.studies.backprop import binomial_two_passes
from benchmarks.workloads.digits import CLASSES, digits

Tree = Any  # a pytree of arrays
Block = Callable[[Tree, Array], Array]
Stack = Callable[[Tree, Array], Array]
Carry = Float[Array, "batch tokens width"] | Float[Array, "batch width"]

RATE, DECAY = 1e-3, 0.9  # of Adam: step size, decay of the first moment
NAMES = ("attended", "hidden")  # what the policies of named values keep of a block
UNROLLED = 6  # blocks of the programs without a loop


# Blocks. Each keeps the shape of what it is given; the weights of all blocks lie in one array a kind, block by block.


def mlp_block(params: Tree, h: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
    """A dense layer with a skip connection."""
    return h + jax.nn.gelu(checkpoint_name(h @ params["kernel"] + params["bias"], "hidden"))


def transformer_block(
    params: Tree, h: Float[Array, "batch tokens width"], heads: int
) -> Float[Array, "batch tokens width"]:
    """Attention of every token to every token, then an MLP, each on the normalised carry and added to it."""
    qkv = (normalised(h) @ params["qkv"]).reshape(*h.shape[:2], 3, heads, -1)
    q, k, v = (qkv[:, :, i] for i in range(3))
    scores = jnp.einsum("bqhc,bkhc->bhqk", q, k) / q.shape[-1] ** 0.5
    attended = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(scores), v).reshape(h.shape)
    h = h + checkpoint_name(attended @ params["out"], "attended")
    hidden = checkpoint_name(normalised(h) @ params["up"], "hidden")
    return h + jax.nn.gelu(hidden) @ params["down"]


def normalised(h: Array) -> Array:
    """Mean 0 and variance 1 over the last axis (Ba et al. 2016, without gain and bias)."""
    h = h - jnp.mean(h, axis=-1, keepdims=True)
    return h * lax.rsqrt(jnp.mean(h * h, axis=-1, keepdims=True) + 1e-5)


@dataclass(frozen=True)
class Network:
    """A stack of equal blocks; ``weights`` are the shapes of a block's, ``tokens`` is 1 where a carry has none."""

    block: Block
    tokens: int
    width: int
    pixels: int
    weights: Mapping[str, tuple[int, ...]]


def mlp(width: int) -> Network:
    """Layers of one width, on the 8 x 8 pixels of an image."""
    return Network(mlp_block, 1, width, 64, {"kernel": (width, width), "bias": (width,)})


def transformer(tokens: int, width: int, heads: int) -> Network:
    """Blocks on as many tokens as an image has pixels."""
    weights = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width)}
    return Network(partial(transformer_block, heads=heads), tokens, width, tokens, weights)


NETWORKS = {
    "mlp": mlp(128),
    "broadmlp": mlp(1024),  # here arithmetic is what counts
    "transformer": transformer(16, 32, 2),
    "widemlp": mlp(4096),  # these two are compiled alone: of them it is asked which batch fits
    "gptmedium": transformer(1024, 1024, 16),
}
LARGE = {"mlp": "widemlp", "broadmlp": "widemlp", "transformer": "gptmedium"}
LARGE_DEPTH = 24


def forward(stack: Stack, params: Tree, images: Float[Array, "batch pixels"]) -> Carry:
    """What the last block gives."""
    return stack(params["blocks"], embedded(params["embedding"], images))


def embedded(params: Tree, images: Float[Array, "batch pixels"]) -> Carry:
    """The carry of the first block: of a transformer a token a pixel, its brightness and its place."""
    if "position" in params:
        return images[..., None] * params["brightness"] + params["position"]
    return images @ params["kernel"]


def loss(stack: Stack, params: Tree, images: Array, labels: Float[Array, "batch classes"]) -> Float[Array, ""]:
    """Mean cross-entropy of a linear classifier on the last carry, of tokens on their mean."""
    h = forward(stack, params, images)
    logits = (h if h.ndim == 2 else jnp.mean(h, axis=1)) @ params["head"]
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=1))


# Methods: each takes a block and a case and returns the stack f(weights of all blocks, h) -> h.


def scanned(block: Block, case: Case | None = None) -> Stack:
    """A loop over the blocks."""
    return lambda weights, h: lax.scan(lambda h, params: (block(params, h), None), h, weights)[0]


def unrolled(block: Block, case: Case) -> Stack:
    """Block after block, without a loop."""

    def stack(weights: Tree, h: Carry) -> Carry:
        for i in range(case["depth"]):
            h = block(jax.tree.map(itemgetter(i), weights), h)
        return h

    return stack


def checkpointed(policy: Any, stack: Callable[[Block, Case], Stack] = scanned) -> Callable[[Block, Case], Stack]:
    """``jax.checkpoint`` with a policy around every block."""
    return lambda block, case: stack(jax.checkpoint(block, policy=policy), case)


def segmented(block: Block, case: Case) -> Stack:
    """``jax.checkpoint`` around each of the case's segments, whose number must divide the depth."""
    segment = jax.checkpoint(scanned(block))

    def stack(weights: Tree, h: Carry) -> Carry:
        return scanned(segment)(jax.tree.map(lambda a: a.reshape(case["segments"], -1, *a.shape[1:]), weights), h)

    return stack


def scheduled(schedule: Callable[[int], Schedule], label: str, where: Callable[[Case], bool]) -> Method:
    """The executor with ``jax.vjp`` of the block."""
    return Method(
        lambda block, case: checkpointed_chain(block, schedule(case["depth"])),
        label=label,
        schedule=schedule,
        where=where,
    )


def _whole(case: Case) -> bool:
    """Any case but those of a number of segments and of programs without a loop."""
    return case["segments"] == 0 and case["depth"] != UNROLLED


def _compared(case: Case) -> bool:
    """Where all policies are compared."""
    return _whole(case) and main_size(case)


def _trained(case: Case) -> bool:
    """Where policies that differ are compared: there, and over many steps."""
    return _compared(case) or case["steps"] > 1


def _sought(method: Method) -> bool:
    """Is it asked of a method which batch fits?"""
    return method.differentiates and not method.flags


def _unrolled(case: Case) -> bool:
    """Where there are programs without a loop."""
    return case["depth"] == UNROLLED


policies = jax.checkpoint_policies
offload = policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=list(NAMES),
    offload_src="device",
    offload_dst="pinned_host",
)
dots, names = policies.dots_saveable, policies.save_only_these_names(*NAMES)
METHODS = {
    "plain": Method(scanned, label="no checkpointing", where=_whole),
    "everything": Method(
        checkpointed(policies.everything_saveable), label="jax.checkpoint that keeps everything", where=_compared
    ),
    "dots": Method(checkpointed(dots), label="jax.checkpoint that keeps products of matrices", where=_whole),
    "dots_no_batch": Method(
        checkpointed(policies.dots_with_no_batch_dims_saveable),
        label="jax.checkpoint that keeps products with weights",
        where=_compared,
    ),
    "names": Method(checkpointed(names), label="jax.checkpoint that keeps named values", where=_trained),
    "offload": Method(
        checkpointed(offload), label="jax.checkpoint that moves named values to the host", where=_compared
    ),
    "nothing": Method(checkpointed(policies.nothing_saveable), label="jax.checkpoint around every block", where=_whole),
    "sqrt": scheduled(sqrt, "checkpointed_chain, checkpoints every sqrt(n) blocks", _whole),
    "binomial": scheduled(binomial_two_passes, "checkpointed_chain, binomial with about sqrt(2n) slots", _trained),
    "segments": Method(
        segmented, label="jax.checkpoint around segments of blocks", where=lambda case: case["segments"] > 0
    ),
    "unrolled": Method(unrolled, label="no checkpointing, no loop", form="unrolled", where=_unrolled, followed=True),
    "unrolled_nothing": Method(
        checkpointed(policies.nothing_saveable, unrolled),
        label="jax.checkpoint around every block, no loop",
        form="unrolled",
        where=_unrolled,
        followed=True,
    ),
    "forward": Method(scanned, label="the forward pass alone", where=_compared, differentiates=False),
}
# What changes when JAX's new implementation of jax.checkpoint becomes the default.
METHODS |= {
    f"{name}_remat3": replace(
        METHODS[name],
        label=f"{METHODS[name].label}, jax_remat3",
        flags={"jax_remat3": True},
        variant_of=name,
        where=_compared,
    )
    for name in ("dots", "names", "offload", "nothing")
}


# Programs.

optimizer = optax.adam(RATE, b1=DECAY)


def program(case: Case) -> Program:
    """One training step, or the loss over many; of the yardstick ``forward`` the loss alone."""
    network, method = NETWORKS[case.word("network")], METHODS[case.method]
    stack = method.build(network.block, case)
    carry = case["batch"] * network.tokens * network.width * np.dtype(case.dtype).itemsize
    facts = {"activation": (float(carry), "B")}

    def step(params: Tree, state: Tree, images: Array, labels: Array) -> tuple[Tree, Tree, Array]:
        value, gradients = jax.value_and_grad(partial(loss, stack))(params, images, labels)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, value

    def losses(params: Tree, state: Tree, images: Array, labels: Array) -> Float[Array, " steps"]:
        def over(trained: Tree, batch: Tree) -> tuple[Tree, Array]:
            params, state, value = step(*trained, *batch)
            return (params, state), value

        return lax.scan(over, (params, state), (images, labels))[1]

    def value_alone(params: Tree, state: Tree, images: Array, labels: Array) -> Array:
        return loss(stack, params, images, labels)

    def last_carry(params: Tree, state: Tree, images: Array, labels: Array) -> Carry:
        return forward(stack, params, images)

    given = Program(value_alone, partial(inputs, case), facts=facts, shapes=partial(shapes, case))
    if method.schedule is not None:
        schedule = method.schedule(case["depth"])
        given = replace(given, facts={**facts, "slots": (schedule.slots, "carries")})
    if not method.differentiates:
        return given
    if case["steps"] > 1:
        return replace(given, run=losses, says=said_of_losses)
    return replace(given, run=step, loss=last_carry, checked=first_moment)


def said_of_losses(losses: Array) -> Iterator[Figure]:
    """The loss at the beginning of each step."""
    for i, value in enumerate(losses):
        yield Figure("loss", "nats", float(value), at=(("step", i),))


def first_moment(stepped: Tree) -> Tree:
    """Adam's after one step: the gradient times 1 - DECAY."""
    return optax.tree_utils.tree_get(stepped[1], "mu")


def weights_of(case: Case, make: Callable[[tuple[int, ...], float], Any]) -> Tree:
    """All weights, each made from its shape and the standard deviation with which it begins.

    What is added to a carry is scaled so that the sum over all blocks keeps its size (Radford et al. 2019, 2.3).
    """
    network, depth = NETWORKS[case.word("network")], case["depth"]
    added = {"kernel": depth**-0.5, "bias": 0.0, "out": (2 * depth) ** -0.5, "down": (2 * depth) ** -0.5}
    blocks = {
        name: make((depth, *shape), added.get(name, 1.0) * shape[0] ** -0.5) for name, shape in network.weights.items()
    }
    width = network.width
    if network.tokens == 1:
        embedding = {"kernel": make((network.pixels, width), network.pixels**-0.5)}
    else:
        embedding = {"brightness": make((width,), 1.0), "position": make((network.tokens, width), 1.0)}
    return {"blocks": blocks, "embedding": embedding, "head": make((width, CLASSES), width**-0.5)}


@once_a_size
def inputs(case: Case) -> tuple[Tree, ...]:
    """Weights, Adam's state, images and labels; with many steps a batch for each."""
    rng = np.random.default_rng(0)
    params = weights_of(case, lambda shape, deviation: (deviation * rng.normal(size=shape)).astype(case.dtype))
    state = jax.tree.map(np.asarray, optimizer.init(params))
    side, count = round(NETWORKS[case.word("network")].pixels ** 0.5), case["steps"] * case["batch"]
    batches = [a.astype(case.dtype) for a in digits(side, count)]
    if case["steps"] > 1:
        batches = [a.reshape(case["steps"], case["batch"], -1) for a in batches]
    return params, state, *batches


def shapes(case: Case) -> tuple[Tree, ...]:
    """Shapes and dtypes of the inputs."""
    of = partial(jax.ShapeDtypeStruct, dtype=case.dtype)
    params = weights_of(case, lambda shape, deviation: of(shape))
    lead = (case["steps"],) if case["steps"] > 1 else ()
    batch = (*lead, case["batch"])
    pixels = NETWORKS[case.word("network")].pixels
    return params, jax.eval_shape(optimizer.init, params), of((*batch, pixels)), of((*batch, CLASSES))


def reference(case: Case) -> Any:
    """The plain program's result in float64, inputs included: the first moment after a step, or the losses."""
    sized = (("segments", 0), *(param for param in case.params if param[0] != "segments"))
    return _plain(Case(case.study, "plain", sized, "float64"))


@lru_cache(maxsize=4)
def _plain(case: Case) -> Any:
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        exact = program(case)
        return jax.tree.map(np.asarray, exact.checked(jax.jit(exact.run)(*exact.inputs())))
    finally:
        jax.config.update("jax_enable_x64", before)


def size(network: str, depth: int, batch: int, steps: int = 1, segments: int = 0) -> Params:
    return {"network": network, "depth": depth, "batch": batch, "steps": steps, "segments": segments}


COMPARED = {"mlp": (48, 512), "transformer": (48, 32), "broadmlp": (12, 512)}  # depth and batch: all policies
DIVIDED = {"mlp": (48, 512), "transformer": (144, 16)}  # depth and batch: deep enough for segments of many blocks
CURVE = {"mlp": (12, 64), "transformer": (8, 16)}  # depth and batch of the loss over many steps
STEPS = 20


def main_size(case: Case) -> bool:
    """Is it the size at which policies are compared?"""
    return case["steps"] == 1 and (case["depth"], case["batch"]) == COMPARED.get(case.word("network"))


def sizes(
    networks: tuple[str, ...], depths: tuple[int, ...], shares: tuple[int, ...], lengths: tuple[int, ...]
) -> list[Params]:
    """Of each network: depths, parts of the batch, blocks to a segment, and the loss over many steps."""
    found = []
    for network in networks:
        depth, batch = COMPARED[network]
        found.append(size(network, depth, batch))
        if network in DIVIDED:
            found += [size(network, n, batch) for n in (UNROLLED, *depths)]
            found += [size(network, depth, batch // share) for share in shares]
            deep, few = DIVIDED[network]
            found += [size(network, deep, few, segments=deep // length) for length in lengths if deep % length == 0]
            found.append(size(network, *CURVE[network], steps=STEPS))
    return found


STUDY = Study(
    name="networks",
    question="What does gradient checkpointing save in a real network, what does it cost, and what fits?",
    methods=METHODS,
    sizes={
        "quick": sizes(("mlp", "transformer"), (), (), (1, 2, 3, 6, 12)),
        "full": sizes(tuple(COMPARED), (4, 8, 16, 32), (8, 4, 2), (1, 2, 3, 4, 6, 8, 9, 12, 16, 24, 36, 48)),
    },
    program=program,
    reference=reference,
    tolerance=lambda case: 2e-3,
    baselines=("plain", "forward"),
    together=("network", "depth", "batch", "steps", "segments"),
    in_turn=("network", "depth", "batch", "steps"),
    compared={"depth": tuple({depth for depth, _ in COMPARED.values()}), "segments": (0,), "steps": (1,)},
    unvaried=("quick",),  # there the study ``remat`` has the variants of jax.checkpoint
    fit=Fit(
        "batch",
        lambda case: {"network": LARGE[case.word("network")], "depth": LARGE_DEPTH, "steps": 1, "segments": 0},
        most=lambda case: 2**11 if case.word("network") == "gptmedium" else 2**20,
        where=lambda case: _compared(case) and _sought(METHODS[case.method]) and case.method != "everything",
        precision=0.01,
    ),
)
