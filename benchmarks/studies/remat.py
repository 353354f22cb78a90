"""Does the recomputation of ``jax.checkpoint`` survive compilation, and does it save memory?

A program that recomputes is one that a compiler would like to simplify: the recomputed products equal the stored ones.
``jax.checkpoint`` puts barriers against that (``prevent_cse``). Whether they hold depends on how the program is written
and on the compiler: the backprop study's chain, in segments of about sqrt(n) layers, as a loop and unrolled, with and
without the barriers, compiled for each target. Matrix products are counted in the program as written and as compiled.
"""

from functools import partial

import jax

from adcost.suite.vocabulary import Case, Method, Program, Study
from benchmarks.studies import backprop

open_checkpoint = partial(jax.checkpoint, prevent_cse=False)

METHODS = {
    "scan": Method(backprop.vanilla),
    "scan_remat": Method(backprop.jax_remat_sqrt),
    "scan_remat_open": Method(partial(backprop.jax_remat_sqrt, checkpoint=open_checkpoint)),
    "unrolled": Method(backprop.vanilla_unrolled),
    "unrolled_remat": Method(backprop.jax_remat_unrolled),
    "unrolled_remat_open": Method(partial(backprop.jax_remat_unrolled, checkpoint=open_checkpoint)),
}


def program(case: Case) -> Program:
    """The gradient of the chain's loss by its weights, by the case's method."""
    return backprop.gradient(case, METHODS[case.method].build(backprop.layer, case["depth"]))


STUDY = Study(
    name="remat",
    question="Does recomputation survive compilation, and does it save memory?",
    methods=METHODS,
    sizes={profile: [{"depth": 64, "width": 64, "batch": 1024}] for profile in ("quick", "full")},
    program=program,
    reference=backprop.reference,
    tolerance=backprop.STUDY.tolerance,
    baselines=("scan", "unrolled"),
    evaluates="tanh",
    matrix_products=True,
)
