"""Claims can fail: numbers of committed runs, spoiled, refute the claim that they confirmed."""

from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache

import numpy as np
import pytest

from analysis import frame, studies
from benchmarks import ROOT

REFERENCE = ROOT / "results" / "reference"


@cache
def committed(name):
    return frame.read([REFERENCE / f"{name}.json.xz"])


SPOILED = [  # of what no theory allows: study, method, quantity, by how much, the claim that must fail
    ("modes", "jacfwd_loop", "flops", lambda row: row["inputs"] ** 0.5, "forward-cost-per-input"),
    ("modes", "jacrev_loop", "flops", lambda row: row["outputs"] ** 0.5, "reverse-cost-per-output"),
    ("modes", "vjp", "flops", lambda row: 3.0, "reverse-cost-per-output"),
    ("modes", "jvp", "temp", lambda row: row["depth"], "reverse-stores-the-forward-pass"),
    ("modes", "jacrev", "flops", lambda row: 3.0, "mode-crossover"),
    ("modes", "jacfwd", "time / jacrev", lambda row: 1 / (row["inputs"] / row["outputs"]) ** 2, "mode-crossover"),
    ("hessians", "fwd_rev", "flops", lambda row: row["inputs"], "hessian-composition"),
    ("hessians", "fwd_fwd", "time / fwd_rev", lambda row: 0.01, "hessian-composition"),
    ("hessians", "fwd_rev", "gradient error", lambda row: 100.0, "cubed-norm-hessian"),
    ("hessians", "fwd_rev_safe", "gradient error", lambda row: np.nan, "cubed-norm-hessian"),
    ("closed_forms", "ad_solve", "gradient error", lambda row: 100.0, "trace-inverse-gradient"),
    ("linear_solve", "kept_lu", "gradient error", lambda row: 100.0, "solve-gradients"),
    ("linear_solve", "cholesky_again", "time / forward", lambda row: 3.0, "solve-backward-costs-forward"),
    ("linear_solve", "jax_lu_factor", "time / forward", lambda row: 0.1, "solve-backward-costs-forward"),
    ("linear_solve", "kept_lu", "flops", lambda row: row["n"] ** (row["part"] == "backward"), "solve-reuse-is-cheaper"),
    ("linear_solve", "kept_lu", "time / factorised_again", lambda row: 10.0, "solve-reuse-is-cheaper"),
    ("svd", "lecture", "gradient error", lambda row: 100.0, "svd-gradient"),
    ("svd", "lecture", "flops", lambda row: 3.0, "svd-backward-against-forward"),
    ("svd", "lecture", "time / thin", lambda row: 8.0, "svd-backward-against-forward"),
    ("svd", "lecture", "time / jax_values", lambda row: 4.0, "svd-backward-against-forward"),
    ("svd", "jax_values", "time / values", lambda row: 0.1, "svd-backward-against-forward"),
    ("svd", "jax_thin", "gradient error", lambda row: 2.0 ** row["halvings"], "svd-degenerate"),
    ("svd", "safe", "gradient error", lambda row: np.nan, "svd-degenerate"),
    ("trace", "estimates", "mean", lambda row: 1.05, "hutchinson-unbiased"),
    ("trace", "estimates", "coverage probes=64", lambda row: 0.9, "hutchinson-unbiased"),
    ("trace", "estimates", "error exponent", lambda row: 0.5, "hutchinson-error-rate"),
    ("trace", "estimates", "variance", lambda row: 1.5, "hutchinson-variance"),
    ("trace", "estimates", "running mean run=0; probes=1024", lambda row: 1.3, "hutchinson-runs"),
    ("trace", "fwd_rev_sequential", "temp", lambda row: row["probes"], "hutchinson-cost"),
    ("trace", "hutchpp", "error", lambda row: 1000.0, "hutchinson-cost"),
    ("networks", "nothing", "residuals", lambda row: 2.0, "checkpoint-example"),
    ("networks", "names", "temp", lambda row: 3.0, "checkpoint-example"),
    ("networks", "sqrt", "peak", lambda row: 15.0, "checkpoint-example"),
    ("networks", "binomial", "loss step=19", lambda row: 1.01, "checkpoint-example"),
    ("networks", "segments", "temp", lambda row: row["segments"], "checkpoint-segments"),
    ("loops", "two_passes", "executed evaluations", lambda row: 1.01, "loop-schedules"),
    ("loops", "three_passes", "temp", lambda row: 2.0, "loop-schedules"),
    ("loops", "slots", "temp", lambda row: 3.0, "loop-peers"),
    ("loops", "tenth", "temp", lambda row: 2.0, "small-carries"),
    ("loops", "budget", "evaluations", lambda row: row["budget"] ** 2, "blocks-descend"),
    ("loops", "budget", "temp", lambda row: 0.5, "blocks-descend"),
    ("advice", "keep_nothing", "peak", lambda row: 1.1, "plan-is-the-peak"),
    ("advice", "advised_50", "total", lambda row: 5.0, "advice-fits"),
    ("advice", "advised_50", "lived", lambda row: 0.0, "advice-fits"),
    ("advice", "sqrt", "gradient error", lambda row: 100.0, "checkpointed-gradients"),
    ("advice", "four_parts", "flops", lambda row: 2.0, "work-predicts-time"),
]
ALL_TOGETHER = {"advice-fits": "advised"}  # claims whose verdicts are of several methods


@pytest.mark.parametrize(("study", "method", "quantity", "factor", "claim"), SPOILED)
def test_numbers_that_theory_does_not_allow_refute_the_claim(study, method, quantity, factor, claim):
    run = committed(study if (REFERENCE / f"{study}.json.xz").exists() else "latest")
    mine = replace(run, frame=run.frame[run.frame["study"] == study].copy())
    (tested,) = (known for known in studies.CLAIMS if known.id == claim)
    named = (mine.frame["quantity"] + " " + mine.frame["at"]).str.strip()
    spoiled = (mine.frame["method"] == method) & named.map(lambda name: fnmatchcase(name, quantity))
    by = mine.frame[spoiled].apply(factor, axis=1)

    def refuted(results):
        found = studies.verdicts(results, [tested])
        about = ALL_TOGETHER.get(claim, method)
        return {v.named for v in found if about in v.method.split(" / ") and v.verdict == "refuted"}

    before = refuted(mine)
    for column in ("value", "low", "high"):
        mine.frame.loc[spoiled, column] *= by
    assert refuted(mine) - before


def test_advice_is_refuted_where_much_else_that_fits_is_faster():
    run = committed("advice")
    (tested,) = (known for known in studies.CLAIMS if known.id == "advice-is-best")
    peers = run.timings["method"].isin(("nested", "equinox"))
    faster = run.timings.assign(
        samples=[
            tuple(tuple(0.3 * s for s in process) for process in samples) if peer else samples
            for samples, peer in zip(run.timings["samples"], peers, strict=True)
        ]
    )

    def verdict(results):
        return {v.method: v.verdict for v in studies.verdicts(results, [tested])}["advised, with the clock"]

    assert verdict(run) != "refuted"
    assert verdict(replace(run, timings=faster)) == "refuted"
