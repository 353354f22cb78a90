"""Claims of the study ``linear_solve``: the backward pass of a linear solve against the forward pass."""

from collections.abc import Iterator
from dataclasses import replace
from math import inf, isfinite, isnan

import pandas as pd

from adcost.suite.vocabulary import Case, Params
from analysis import fit, theory
from analysis.advice import Advice, least
from analysis.rounding import scaled_errors
from analysis.verdict import Claim, Verdict, falling_exponent_of, measured, unmeasured, within
from analysis.view import View
from benchmarks.studies.linear_solve import ANCHORS, METHODS, SINGULAR, STUDY

ROUNDINGS = 10  # times cond(A) eps sqrt(n)
KEEPING = ["kept_lu", "jax_solve"]
BAND = {  # of backward / forward, fixed before the run
    "factorised_again": within(1.0, theory.ABOUT),
    "cholesky_again": within(1.0, theory.ABOUT),
    "jax_inverse": within(1.5, theory.ABOUT),
    "jax_lu_factor": (1.0, inf),
    "jax_cholesky": (1.0, inf),
    "kept_inverse": (0.0, theory.NEGLIGIBLE),
}
SAID = {
    "jax_lu_factor": "at least 1: JAX differentiates the factorisation itself",
    "jax_cholesky": "at least 1: JAX differentiates the factorisation itself",
    "kept_inverse": "vanishes: at most a tenth is said to",
}


def part(view: View, name: str) -> View:
    """One part of single systems of condition 10, over the order."""
    return view.along("n", part=name, rhs=1, batch=1, decades=1)


def flops_ratio(view: View, method: str) -> "pd.Series[float]":
    """Counted flops of the backward over those of the forward pass, by order."""
    backward, forward = (part(view, name).series(method, "count", "flops") for name in ("backward", "forward"))
    return (backward / forward).dropna()


def gradients(view: View) -> Iterator[Verdict]:
    claim = "solve-gradients"
    if not view.attached:
        return  # a compiler computes no gradient
    for method in METHODS:
        rows = scaled_errors(view, method)
        blank = unmeasured(view, claim, method, "check", "largest error / (cond(A) eps sqrt(n))", 1.0)
        if rows:
            n, decades, error, share = max(rows, key=lambda row: row[3])
            why = (
                f"The worst is {error:.1e} at n = {n}, cond(A) = 1e{decades}; the largest error of all is "
                f"{max(row[2] for row in rows):.1e}. Up to {ROUNDINGS} are allowed."
            )
            yield measured(blank, (0.0, ROUNDINGS), (share,) * 3, len(rows), why)
        elif view.dtype == "float32":
            yield blank
    for method in METHODS:
        found = singular_outcome(view, method)
        if found is not None:
            blank = unmeasured(view, claim, method, "check", "a singular A shows in the gradient (1: yes)", 1.0)
            shows = float(found != FINITE)
            why = f"With a column of zeros in A the gradient is {found}; no error is raised."
            yield measured(blank, (1.0, 1.0), (shows,) * 3, 1, why)


FINITE = "finite and wrong"


def singular_outcome(view: View, method: str) -> str | None:
    """What became of the gradient at a singular matrix, in words; None if it was not tried."""
    errors = view.along("decades", part="both", rhs=1, batch=1).series(method, "check", "gradient error")
    if SINGULAR not in errors.index:
        return None
    error = float(errors[SINGULAR])
    return "NaN" if isnan(error) else FINITE if isfinite(error) else "infinite"


def ratio_at(view: View, claim: str, method: str, n: int, predicted: float, band: tuple[float, float]) -> Verdict:
    """Backward over forward in time at one order, widened by the noise floor."""
    blank = unmeasured(view, claim, method, "clock", f"backward / forward at n = {n}", predicted)
    found = part(view, "backward").widened(method, "time / forward", n)
    if found is None:
        return blank
    flops = flops_ratio(view, method)
    why = f"Counted flops: {flops[n]:.3g}." if n in flops.index else ""
    why += f" Said: {SAID[method]}." if method in SAID else ""
    return measured(blank, band, found, 1, why.strip())


def anchors(view: View) -> list[int]:
    """The orders at which all methods are held against each other, as far as there are results."""
    measured_at = part(view, "backward").series("kept_lu", "clock", "time / forward").index
    return [n for n in ANCHORS if n in measured_at]


def orders(view: View, method: str) -> list[int]:
    """The orders of ``anchors`` at which a method is asked for."""

    def case(n: int) -> Case:
        size: Params = {"part": "backward", "n": n, "rhs": 1, "batch": 1, "decades": 1}
        return Case(STUDY.name, method, tuple(size.items()))

    return [n for n in anchors(view) or ANCHORS[:1] if STUDY.affords(case(n))]


def backward_costs_forward(view: View) -> Iterator[Verdict]:
    claim = "solve-backward-costs-forward"
    if view.dtype == "float64":
        return  # there conditions alone are swept
    for method, band in BAND.items():
        for n in orders(view, method):
            predicted = theory.SOLVE_RATIOS.get(method)
            if predicted is None:
                counted = flops_ratio(view, method)
                predicted = float(counted[n]) if n in counted.index else None
            yield (
                ratio_at(view, claim, method, n, predicted, band)
                if predicted is not None
                else unmeasured(view, claim, method, "clock", f"backward / forward at n = {n}")
            )


def reuse_is_cheaper(view: View) -> Iterator[Verdict]:
    claim = "solve-reuse-is-cheaper"
    if view.dtype == "float64":
        return  # there conditions alone are swept
    for method in KEEPING:
        blank = unmeasured(view, claim, method, "count", "exponent of backward / forward in n, flops", -1.0)
        flops = flops_ratio(view, method)
        yield falling_exponent_of(blank, flops, "forward / backward") if len(flops) else blank
        timed = part(view, "backward").series(method, "clock", "time / forward")
        blank = unmeasured(view, claim, method, "clock", "exponent of backward / forward in n, time", -1.0)
        yield falling_exponent_of(blank, timed, "forward / backward") if len(timed) else blank
    yield _constant(view, claim)
    for method in [*KEEPING, "kept_cholesky"]:
        for n in orders(view, method):
            predicted = theory.kept_factors_ratio(n) * (2 if method == "kept_cholesky" else 1)
            yield ratio_at(view, claim, method, n, predicted, within(predicted, theory.ABOUT))
    for n in orders(view, "kept_lu"):
        yield _cheaper(view, claim, n)


def _constant(view: View, claim: str) -> Verdict:
    """c of the asymptote c / n in time, and from which n on the curve is within a tenth of it."""
    predicted = theory.SOLVE_RATIO_TIMES_N
    blank = unmeasured(view, claim, "kept_lu", "clock", "c in backward / forward = c / n", predicted)
    timed = part(view, "backward").series("kept_lu", "clock", "time / forward")
    if len(timed) < fit.LEAST_SIZES:
        return blank
    fitted = fit.slope(list(timed.index), list(1 / timed))
    c, low, high = (1 / slope if slope > 0 else inf for slope in (fitted.b, fitted.high, fitted.low))
    visible = 9 * fitted.a * c
    why = (
        f"Forward / backward = {fitted.a:.2f} + n / {c:.1f}: the asymptote is within a tenth from n = {visible:.0f} on "
        f"(by flops from {9 * 3:d} on). The backward program copies the factors into LAPACK's column order before it "
        "solves with them, and writes n^2 numbers: at the memory's rate, not at that of a factorisation's products."
    )
    return measured(blank, within(predicted, theory.ABOUT), (c, low, high), len(timed), why)


def _cheaper(view: View, claim: str, n: int) -> Verdict:
    line = part(view, "backward")
    blank = unmeasured(view, claim, "kept_lu", "clock", f"backward / that of factorised_again at n = {n}")
    found = line.widened("kept_lu", "time / factorised_again", n)
    if found is None:
        return blank
    flops = line.series("kept_lu", "count", "flops")[n] / line.series("factorised_again", "count", "flops")[n]
    why = f"Said: cheaper, that is less than 1; predicted by flops: {flops:.3g}."
    return measured(replace(blank, predicted=float(flops)), (0.0, 1.0), found, 1, why)


def advice(view: View) -> Iterator[Advice]:
    if view.dtype == "float64":
        return  # there conditions alone are swept
    line = part(view, "both")
    timed = line.series("jax_solve", "clock", "time")
    if len(timed) == 0:
        return
    n = int(timed.index[-1])
    methods = line.frame["method"].unique()
    # Of methods for any A, not those for a positive definite one.
    others = [m for m in methods if m != "jax_solve" and (traits := view.traits(m)) and not traits.needs]
    found = {method: line.widened(method, "time / jax_solve", n) for method in others}
    question = f"How to differentiate a linear solve? (both passes, n = {n})"
    yield from least(view, question, {"jax_solve": (1.0, 1.0, 1.0), **found}, "of the time of jnp.linalg.solve")


CLAIMS = [
    Claim(
        "solve-gradients",
        "linear_solve",
        "dL/dA = -A^-T (dL/dx) x^T and dL/db = A^-T (dL/dx).",
        "equal to the rule with an inverse of more digits, to rounding, scaled by cond(A)",
        gradients,
        ("error",),
    ),
    Claim(
        "solve-backward-costs-forward",
        "linear_solve",
        "The backward pass costs about as much as the forward pass.",
        "backward / forward: factorised again 1, through the inverse 1.5, through a differentiated factorisation at "
        "least 1, with the inverse kept nothing; about: within a quarter",
        backward_costs_forward,
        ("ratio", "costs"),
    ),
    Claim(
        "solve-reuse-is-cheaper",
        "linear_solve",
        "The factorisation can be kept, which makes the backward pass cheaper still.",
        "backward / forward = 3 n^2 / (2/3 n^3 + 2 n^2), about 4.5 / n: exponent -1",
        reuse_is_cheaper,
        ("ratio",),
    ),
]
