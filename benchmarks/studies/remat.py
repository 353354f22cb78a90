"""Does the recomputation of ``jax.checkpoint`` survive compilation, and does it save memory?

A program that recomputes is one that a compiler would like to simplify: the recomputed products equal the stored ones.
``jax.checkpoint`` puts barriers against that (``prevent_cse``). Whether they hold depends on how the program is
written, on the compiler, and on the implementation of ``jax.checkpoint``: JAX has a new one, ``jax_remat3``, that is on
its way to being the default. The backprop study's chain, in segments of about sqrt(n) layers, as a loop and unrolled,
with and without the barriers, by both implementations, compiled for each target. Matrix products are counted in the
program as written and as compiled. At the larger depth stand the other ways to nest ``jax.checkpoint``.
"""

from dataclasses import replace
from functools import partial

import jax

from adcost.suite.vocabulary import Case, Method, Params, Program, Study
from benchmarks.studies import backprop

LARGE = 144  # layers at which the other ways stand beside the main ones
open_checkpoint = partial(jax.checkpoint, prevent_cse=False)


def _beside(case: Case) -> bool:
    return case["depth"] == LARGE


FORMS = {  # of jax.checkpoint
    "scan_remat": Method(backprop.jax_remat_sqrt, label="segments, a scan"),
    "scan_remat_open": Method(
        partial(backprop.jax_remat_sqrt, checkpoint=open_checkpoint), label="segments, a scan, barriers off"
    ),
    "unrolled_remat": Method(backprop.jax_remat_unrolled, label="segments, unrolled", form="unrolled"),
    "unrolled_remat_open": Method(
        partial(backprop.jax_remat_unrolled, checkpoint=open_checkpoint),
        label="segments, unrolled, barriers off",
        form="unrolled",
    ),
    "layer_remat": Method(backprop.jax_remat_layer, label="every layer, a scan", where=_beside),
    "inner_remat": Method(backprop.jax_remat_sqrt_inner, label="segments and their layers, a scan", where=_beside),
    "nested_remat": Method(backprop.jax_remat_nested, label="halves of halves", where=_beside),
}
METHODS = {
    "scan": Method(backprop.vanilla, label="no checkpointing, a scan"),
    "unrolled": Method(backprop.vanilla_unrolled, label="no checkpointing, unrolled", form="unrolled"),
    **FORMS,
    **{
        f"{name}3": replace(method, label=f"{method.label}, jax_remat3", flags={"jax_remat3": True}, variant_of=name)
        for name, method in FORMS.items()
    },
}


def program(case: Case) -> Program:
    """The gradient of the chain's loss with respect to its weights, by the case's method."""
    return backprop.program(case, METHODS[case.method])


def size(depth: int) -> Params:
    return {"depth": depth, "width": 64, "batch": 1024}


STUDY = Study(
    name="remat",
    question="Does recomputation survive compilation, and does it save memory?",
    methods=METHODS,
    sizes={"quick": [size(36)], "full": [size(64), size(LARGE)]},
    program=program,
    reference=backprop.reference,
    tolerance=backprop.STUDY.tolerance,
    baselines=("scan", "unrolled"),
    evaluates="tanh",
    matrix_products=True,
)
