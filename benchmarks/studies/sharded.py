"""What does each device take, compute and send when a network's blocks are sharded over many, by what is kept of them?

A stack of blocks, as it is trained on clusters: the batch divided over the devices (``data``), the weights divided as
well and gathered by each block that needs them (``full``: Rajbhandari et al. 2020, stage 3), the products of each block
divided by features (``tensor``: Shoeybi et al. 2019), or all of that, and the carry between blocks too (``both``:
Korthikanti et al. 2022 divide it by tokens, here it is by features). XLA's partitioner makes the program of one device.
Its compilers say what that takes and which collectives are in it; eight devices of the host's processor run it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

import adcost
from adcost.checkpointing import Schedule, binomial, checkpointed_chain, sqrt
from adcost.suite.vocabulary import Case, Figure, Fit, Method, NotMeasured, Params, Program, Study, once_a_size
from adcost.targets import TARGETS, Target
from adcost.targets.compiling import mesh_on
from benchmarks.studies.networks import normalised

Tree = Any  # a pytree of arrays
Carry = Float[Array, "batch width"] | Float[Array, "batch tokens width"]
Constrained = Callable[[Any], Any]  # a value that is to lie on the devices in one way
Block = Callable[[Tree, Carry], Carry]
Stack = Callable[[Tree, Carry], Carry]

PACK = 256  # sequences: what can be divided over as many devices
MODEL = 4  # devices among which a block is divided
SLOTS = 4  # of the binomial schedule
STEPS, RATE = 20, 0.1  # of plain gradient descent, for the loss curves
BLOCKS, ROWS = 8, PACK  # of the network that is trained for them: its first blocks, on the first sequences


# Where things lie. A block's weights are of two kinds: those that lead into its inside, and those that lead back.


@dataclass(frozen=True)
class Layout:
    """How a stack lies on a mesh: the axes by which its weights are divided (rows, columns), its carry, its inside.

    ``model``: does the mesh have that axis beside ``data``?
    """

    model: bool
    into: tuple[str | None, str | None]
    back: tuple[str | None, str | None]
    carry: tuple[str | None, str | None]
    inside: str | None

    def mesh(self, target: Target) -> AbstractMesh:
        model = min(MODEL, target.devices) if self.model else 1
        axes = {"data": target.devices // model, **({"model": model} if self.model else {})}
        return adcost.mesh(target, **axes)

    def weights(self, mesh: AbstractMesh | Mesh, block: Mapping[str, Any]) -> dict[str, NamedSharding]:
        """Those of all blocks, which lie one after the other."""
        return {
            name: NamedSharding(mesh, P(None, *(self.back if name in ("out", "down") else self.into))) for name in block
        }

    def inputs(self, mesh: AbstractMesh | Mesh, tokens: int) -> NamedSharding:
        rows, features = self.carry
        return NamedSharding(mesh, P(rows, *([None] if tokens > 1 else []), features))


LAYOUTS = {
    "data": Layout(False, (None, None), (None, None), ("data", None), None),
    "full": Layout(False, ("data", None), ("data", None), ("data", None), None),
    "tensor": Layout(True, (None, "model"), ("model", None), ("data", None), "model"),
    "both": Layout(True, ("data", "model"), ("model", "data"), ("data", "model"), "model"),
}


# Blocks: ``inside`` and ``carry`` say where what a block computes is to lie.


def mlp_block(inside: Constrained, carry: Constrained, params: Tree, h: Float[Array, "batch width"]) -> Carry:
    """A layer with one hidden layer of four times the width, added to the carry."""
    hidden = inside(jax.nn.gelu(h @ params["up"]))
    return carry(h + hidden @ params["down"])


def transformer_block(
    inside: Constrained, carry: Constrained, params: Tree, h: Float[Array, "batch tokens width"]
) -> Carry:
    """Attention with heads of 32, then a layer with one hidden layer, each on the normalised carry and added to it."""
    of_h = normalised(h)
    q, k, v = (inside(of_h @ params[name]).reshape(*h.shape[:2], -1, HEAD) for name in ("query", "key", "value"))
    scores = jnp.einsum("bqhc,bkhc->bhqk", q, k) / HEAD**0.5
    attended = inside(jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(scores), v).reshape(h.shape))
    h = carry(h + attended @ params["out"])
    hidden = inside(jax.nn.gelu(normalised(h) @ params["up"]))
    return carry(h + hidden @ params["down"])


HEAD = 32  # features of a head
MLP = {"up": (1, 4), "down": (4, 1)}  # weights: rows and columns, in widths


@dataclass(frozen=True)
class Network:
    """A block, the shapes of its weights in widths, and the tokens of a sequence: 1 where there are none."""

    block: Callable[[Constrained, Constrained, Tree, Any], Any]
    weights: Mapping[str, tuple[int, int]]
    tokens: int


SQUARE = dict.fromkeys(("query", "key", "value", "out"), (1, 1))
NETWORKS = {
    "mlp": Network(mlp_block, MLP, 1),
    "transformer": Network(transformer_block, SQUARE | MLP, 16),
    "long": Network(transformer_block, SQUARE | MLP, 1024),  # compiled alone: of it is asked which batch fits
}


def bound_block(case: Case, mesh: AbstractMesh | Mesh | None) -> Block:
    """The block of a case, what it computes bound to its place on a mesh; without one to none."""
    network, layout = NETWORKS[case.word("network")], LAYOUTS[case.word("layout")]
    if mesh is None:
        return partial(network.block, lambda value: value, lambda value: value)
    rows, features = layout.carry

    def on(last: str | None) -> Constrained:
        between = [None] if network.tokens > 1 else []
        return lambda value: lax.with_sharding_constraint(value, NamedSharding(mesh, P(rows, *between, last)))

    return partial(network.block, on(layout.inside), on(features))


# Methods: each takes a block and the depth and returns the stack f(weights of all blocks, h) -> h.


def scanned(block: Block, depth: int) -> Stack:
    """A loop over the blocks."""
    return lambda weights, h: lax.scan(lambda h, params: (block(params, h), None), h, weights)[0]


def keeping(policy: Any, block: Block, depth: int) -> Stack:
    """``jax.checkpoint`` with a policy around every block."""
    return scanned(jax.checkpoint(block, policy=policy), depth)


def scheduled(schedule: Callable[[int], Schedule], label: str) -> Method:
    """The executor with ``jax.vjp`` of the block."""
    return Method(
        lambda block, depth: checkpointed_chain(block, schedule(depth)), label=label, schedule=schedule, followed=True
    )


policies = jax.checkpoint_policies
METHODS = {
    "plain": Method(scanned, label="no checkpointing", followed=True),
    "keep_products": Method(
        partial(keeping, policies.dots_saveable), label="jax.checkpoint that keeps products", followed=True
    ),
    "keep_nothing": Method(
        partial(keeping, policies.nothing_saveable), label="jax.checkpoint around every block", followed=True
    ),
    "sqrt": scheduled(sqrt, "checkpointed_chain, checkpoints every sqrt(n) blocks"),
    "binomial": scheduled(partial(binomial, slots=SLOTS), f"checkpointed_chain, binomial with {SLOTS} slots"),
}


# Programs.


def program(case: Case, target: Target = TARGETS["cpu"]) -> Program:
    """The gradient of a loss by all weights, sharded as these are; on attached clusters also two loss curves."""
    layout, network = LAYOUTS[case.word("layout")], NETWORKS[case.word("network")]
    mesh, method = layout.mesh(target), METHODS[case.method]
    require_divisible(case, layout, mesh)
    stack = method.build(bound_block(case, mesh), case["depth"])
    shardings = layout.weights(mesh, network.weights)

    def run(weights: Tree, x: Carry, y: Carry) -> Tree:
        gradient = jax.grad(partial(loss, stack))(weights, x, y)
        return lax.with_sharding_constraint(gradient, shardings)

    def shapes() -> tuple[Any, ...]:
        of_weights, carry = shapes_of(case)
        given = {
            name: jax.ShapeDtypeStruct(shape, case.dtype, sharding=shardings[name])
            for name, shape in of_weights.items()
        }
        one = jax.ShapeDtypeStruct(carry, case.dtype, sharding=layout.inputs(mesh, network.tokens))
        return given, one, one

    made = Program(run, partial(inputs, case), facts=facts_of(case), shapes=shapes)
    if target.attached and target.devices > 1:
        made = replace(made, says=lambda _: curves_apart(case, target))
    return made


def require_divisible(case: Case, layout: Layout, mesh: AbstractMesh) -> None:
    """Weights and carries are divided evenly, or not at all.

    Raises
    ------
    NotMeasured
        If an axis of one cannot be divided over those devices; in one line.
    """
    weights, carry = shapes_of(case)
    lies = {name: (weights[name], on.spec) for name, on in layout.weights(mesh, weights).items()}
    lies["carry"] = carry, layout.inputs(mesh, NETWORKS[case.word("network")].tokens).spec
    for name, (shape, spec) in lies.items():
        for size, axis in zip(shape, tuple(spec), strict=True):
            if axis is not None and size % mesh.shape[axis]:
                raise NotMeasured(f"{name}: {size} cannot be divided over {mesh.shape[axis]} devices")


def facts_of(case: Case) -> dict[str, tuple[float, str]]:
    """Bytes of a carry and of all weights, on all devices together; the slots of a schedule, without the input's."""
    weights, carry = shapes_of(case)
    size = float(np.dtype(case.dtype).itemsize)
    facts = {"activation": (size * prod(carry), "B"), "weights": (size * sum(map(prod, weights.values())), "B")}
    if (schedule := METHODS[case.method].schedule) is not None:
        made = schedule(case["depth"])
        facts["slots besides the input"] = float(made.slots - made.input_slots), "carries"
    return facts


def loss(stack: Stack, weights: Tree, x: Carry, y: Carry) -> Float[Array, ""]:
    """Half the mean square of what is left of the target."""
    return jnp.mean((stack(weights, x) - y) ** 2) / 2


def curves_apart(case: Case, target: Target) -> Iterator[Figure]:
    """Of steps of gradient descent on the devices and on one of them: how far their losses are apart at most."""
    layout, network = LAYOUTS[case.word("layout")], NETWORKS[case.word("network")]
    mesh = mesh_on(layout.mesh(target), target)
    carry = layout.inputs(mesh, network.tokens)
    given = jax.device_put(first_of(case), (layout.weights(mesh, network.weights), carry, carry))
    spread = np.asarray(curve(METHODS[case.method].build(bound_block(case, mesh), BLOCKS), *given), np.float64)
    yield Figure("loss apart", "1", float(np.max(np.abs(spread / alone(case) - 1))), repeats=STEPS)


@once_a_size
def alone(case: Case) -> np.ndarray:
    """The losses on one device, without checkpointing."""
    return np.asarray(curve(scanned(bound_block(case, None), BLOCKS), *first_of(case)), np.float64)


def first_of(case: Case) -> tuple[Tree, ...]:
    """The part of the inputs on which the curves are made."""
    weights, x, y = inputs(case)
    return jax.tree.map(lambda w: w[:BLOCKS], weights), x[:ROWS], y[:ROWS]


@partial(jax.jit, static_argnums=0)
def curve(stack: Stack, weights: Tree, x: Carry, y: Carry) -> Float[Array, " steps"]:
    """The loss at the beginning of each step."""

    def step(weights: Tree, _: None) -> tuple[Tree, Array]:
        value, gradient = jax.value_and_grad(partial(loss, stack))(weights, x, y)
        return jax.tree.map(lambda w, g: w - RATE * g, weights, gradient), value

    return lax.scan(step, weights, None, length=STEPS)[1]


def shapes_of(case: Case) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...]]:
    """Of all weights, and of a carry."""
    network, width = NETWORKS[case.word("network")], case["width"]
    weights = {name: (case["depth"], *(widths * width for widths in shape)) for name, shape in network.weights.items()}
    return weights, (case["packs"] * PACK, *([network.tokens] if network.tokens > 1 else []), width)


@once_a_size
def inputs(case: Case) -> tuple[Tree, ...]:
    """Weights, what goes in, and what is to come out. The sum over all blocks keeps the carry's size."""
    rng = np.random.default_rng(0)
    weights, carry = shapes_of(case)
    back = dict.fromkeys(("out", "down"), (2 * case["depth"]) ** (-0.5))
    made = {
        name: (back.get(name, 1.0) * shape[1] ** -0.5 * rng.normal(size=shape)).astype(case.dtype)
        for name, shape in weights.items()
    }
    return made, *(rng.normal(size=carry).astype(case.dtype) for _ in range(2))


@once_a_size
def reference(case: Case) -> Tree:
    """The gradient in float64 on one device, by a loop over the blocks and no sharding."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        stack = scanned(bound_block(case, None), case["depth"])
        exact = jax.tree.map(lambda a: a.astype(np.float64), inputs(case))
        return jax.tree.map(np.asarray, jax.jit(jax.grad(partial(loss, stack)))(*exact))
    finally:
        jax.config.update("jax_enable_x64", before)


def size(network: str, layout: str, depth: int, width: int, packs: int) -> Params:
    return {"network": network, "layout": layout, "depth": depth, "width": width, "packs": packs}


MAIN = {"mlp": (256, 4), "transformer": (128, 1)}  # width, packs
DEPTHS = (8, 32)
STUDY = Study(
    name="sharded",
    question="What does each device of a cluster take, compute and send, by what is kept of a sharded network?",
    methods=METHODS,
    sizes={
        "quick": [size("mlp", "full", 16, 256, 4)],
        "full": [
            size(network, layout, depth, width, packs)
            for network, (width, packs) in MAIN.items()
            for layout in LAYOUTS
            for depth in DEPTHS
        ],
    },
    program=program,
    for_target=program,
    reference=reference,
    tolerance=lambda case: 1e-3,
    baselines=(),  # devices that share a processor's cores say nothing of a cluster's time
    together=("network", "layout", "depth", "width", "packs"),
    in_turn=("network", "layout", "depth", "width", "packs"),
    evaluates="tanh",
    lines=True,
    clusters={
        "quick": ("cpu:8", "nvidia-h100:8", "nvidia-h100:8x32", "tpu-v5e:16x16"),
        "full": (
            *("cpu:8", "nvidia-h100:8", "nvidia-h100:8x4", "nvidia-h100:8x32"),
            *("tpu-v5e:2x4", "tpu-v5e:16x16"),
        ),
    },
    fit=Fit(
        "packs",
        lambda case: {"network": "long", "layout": case.word("layout"), "depth": 24, "width": 1024},
        most=lambda case: 2**12,
        where=lambda case: case.word("network") == "transformer" and case.word("layout") in ("full", "both"),
        precision=0.01,
    ),
)
