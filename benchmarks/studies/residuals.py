"""What does each way to differentiate a chain hold at the peak of its memory, line by line?

The lecture says that vanilla backprop stores all activations f, and checkpointing some. What a compiler really keeps is
told by the compiler itself: rows by what they are and by the line of the layer that made them. The chain is that of the
study ``backprop``, its layer written in two lines, so that the product and the activation are told apart.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from adcost.checkpointing import binomial, memory_poor, sqrt, store_all
from adcost.suite.vocabulary import Case, Method, Params, Program, Study
from benchmarks.studies import backprop
from benchmarks.studies.backprop import Activation, Chain, Layer, Weight


def layer(weight: Weight, h: Activation) -> Activation:
    """One layer, a line for its product and a line for its activation."""
    product = h @ weight
    return checkpoint_name(jnp.tanh(product), "f")


def keeping(policy: Any, layer: Layer, depth: int) -> Chain:
    """``jax.checkpoint`` around every layer with a policy."""
    return backprop.vanilla(jax.checkpoint(layer, policy=policy), depth)


policies = jax.checkpoint_policies
METHODS = {
    "vanilla": Method(backprop.vanilla, label="plain jax.grad of a scan"),
    "vanilla_unrolled": Method(backprop.vanilla_unrolled, label="plain jax.grad without a loop", form="unrolled"),
    "remat_whole": Method(
        lambda layer, depth: jax.checkpoint(backprop.vanilla(layer, depth)),
        label="jax.checkpoint around the whole scan",
    ),
    "keep_nothing": Method(backprop.jax_remat_layer, label="jax.checkpoint around every layer"),
    "keep_products": Method(partial(keeping, policies.dots_saveable), label="... that keeps products"),
    "keep_activations": Method(
        partial(keeping, policies.save_only_these_names("f")), label="... that keeps what is named f, the activations"
    ),
    "keep_misnamed": Method(
        partial(keeping, policies.save_only_these_names("g")), label="... that keeps what is named g, which nothing is"
    ),
    "remat_segments": Method(backprop.jax_remat_sqrt, label="jax.checkpoint around segments of sqrt(n) layers"),
    "remat_unrolled": Method(
        backprop.jax_remat_unrolled, label="jax.checkpoint around segments, without a loop", form="unrolled"
    ),
    "store_all": backprop.scheduled(store_all, "checkpointed_chain that stores everything"),
    "memory_poor": backprop.scheduled(memory_poor, "memory-poor: every activation computed from the input"),
    "sqrt": backprop.scheduled(sqrt, "checkpoints every sqrt(n) layers"),
    "binomial_10": backprop.scheduled(partial(binomial, slots=10), "the binomial schedule with 10 slots"),
    "sqrt_tape": Method(
        backprop.by_schedule_taped(sqrt),
        label="checkpoints every sqrt(n) layers, jax.vjp of each layer",
        schedule=sqrt,
        form="taped",
    ),
}


def program(case: Case) -> Program:
    """The gradient of the chain's loss with respect to its weights, by the case's method."""
    method = METHODS[case.method]
    made = backprop.gradient(case, method.build(layer, case["depth"]))
    return backprop.with_slots(made, method, case["depth"])


def size(depth: int, width: int) -> Params:
    return {"depth": depth, "width": width, "batch": 1024}


STUDY = Study(
    name="residuals",
    question="What holds the memory at the peak, and which line made it?",
    methods=METHODS,
    sizes={"quick": [size(64, 32)], "full": [size(64, 64), size(144, 64)]},
    program=program,
    reference=backprop.reference,
    tolerance=backprop.STUDY.tolerance,
    baselines=("vanilla",),
    lines=True,
)
