"""Claims of the study ``linear_solve``: the backward pass of a linear solve against the forward pass."""

from collections.abc import Iterator
from dataclasses import replace
from math import inf, isfinite, isnan

import pandas as pd

from analysis import fit, theory
from analysis.advice import Advice, least
from analysis.rounding import largest_error
from analysis.rules import exact, exponent
from analysis.verdict import Band, Cause, Claim, Noise, Test, at_least, at_most, exactly, within
from analysis.view import Found, View

ANCHORS = (256, 768, 1024, 1536, 2048)  # orders at which all methods are held against each other
AT = 64  # the order at which the condition is swept
PARTS = ("forward", "backward", "both")
PUBLISHED_AT = 500
SINGULAR = 400  # decades of a matrix that is singular in float64
KEEPING = ["kept_lu", "jax_solve", "kept_columns"]
ABOUT = "about as much: leading terms alone, and products run at another rate than factorisations"
ITSELF = "JAX differentiates the factorisation itself"
BANDS = {  # of backward / forward, fixed before the run; with what theory says
    "factorised_again": within(1.0, theory.ABOUT, ABOUT),
    "cholesky_again": within(1.0, theory.ABOUT, ABOUT),
    "jax_inverse": within(1.5, theory.ABOUT, ABOUT),
    "jax_lu_factor": at_least(1.0, ITSELF),
    "jax_cholesky": at_least(1.0, ITSELF),
    "kept_inverse": at_most(theory.NEGLIGIBLE, "it is said to vanish"),
}
COPIES = Cause(
    "likely",
    "The backward program copies the factors into LAPACK's column order before it solves with them, and writes n^2 "
    "numbers: at the memory's rate, not at that of a factorisation's products.",
    "above",
)


OUTER = Cause(
    "likely",
    "The outer product writes n^2 numbers to fresh memory, and the triangular solves read as many: both run at the "
    "memory's rate, not at that of a factorisation's products.",
    "above",
)


def part(view: View, name: str) -> View:
    """One part of single systems of condition 10, over the order."""
    return view.along("n", part=name, rhs=1, batch=1, decades=1)


def flops_ratio(view: View, method: str) -> "pd.Series[float]":
    """Counted flops of the backward over those of the forward pass, by order."""
    backward, forward = (part(view, name).series(method, "count", "flops") for name in ("backward", "forward"))
    return (backward / forward).dropna()


def gradients(view: View) -> Iterator[Test]:
    if not view.attached:
        return  # a compiler computes no gradient
    for method in view.methods:
        test = largest_error(view, method, "cond(A)")
        if test.found is not None or view.dtype == "float32":
            yield test
    for method in view.methods:
        found = singular_outcome(view, method)
        if found is not None:
            why = f"With a column of zeros in A the gradient is {found}; no error is raised."
            band = exactly(1.0, "a wrong gradient that looks right is the worst outcome")
            shows = exact(float(found != FINITE))
            yield Test(method, "check", "a singular A shows in the gradient (1: yes)", band, shows, "", 1.0, why=why)


FINITE = "finite and wrong"


def singular_outcome(view: View, method: str) -> str | None:
    """What became of the gradient at a singular matrix, in words; None if it was not tried."""
    errors = view.along("decades", part="both", rhs=1, batch=1).series(method, "check", "gradient error")
    if SINGULAR not in errors.index:
        return None
    error = float(errors[SINGULAR])
    return "NaN" if isnan(error) else FINITE if isfinite(error) else "infinite"


def ratio_at(view: View, method: str, n: int, band: Band, predicted: float | None, cause: Cause | None = None) -> Test:
    """Backward over forward in time at one order; counted flops stand beside it."""
    found = part(view, "backward").timed(method, "time / forward", n)
    flops = flops_ratio(view, method)
    beside = float(flops[n]) if n in flops.index else None
    why = f"Counted flops: {beside:.3g}." if beside is not None and found else ""
    test = Test(method, "clock", "backward / forward", band, found, f"n={n}", predicted, beside, why)
    return replace(test, cause=cause)


def anchors(view: View) -> list[int]:
    """The orders at which all methods are held against each other, as far as there are results."""
    measured_at = part(view, "backward").sizes("kept_lu", "clock", "time / forward")
    return [n for n in ANCHORS if n in measured_at]


def orders(view: View, method: str) -> list[int]:
    """The orders of ``anchors`` at which a method was asked for."""
    return [n for n in anchors(view) or ANCHORS[:1] if part(view, "backward").asked(method, n)]


def backward_costs_forward(view: View) -> Iterator[Test]:
    if view.dtype == "float64":
        return  # there conditions alone are swept
    for method, band in BANDS.items():
        for n in orders(view, method):
            yield ratio_at(view, method, n, band, theory.SOLVE_RATIOS.get(method))


def reuse_is_cheaper(view: View) -> Iterator[Test]:
    if view.dtype == "float64":
        return  # there conditions alone are swept
    for method in KEEPING:
        test = Test(method, "count", "exponent of backward / forward in n, flops", predicted=-1.0)
        yield exponent(test, flops_ratio(view, method), "of the forward pass")
        test = Test(method, "clock", "exponent of backward / forward in n, time", predicted=-1.0, cause=COPIES)
        timed = part(view, "backward").series(method, "clock", "time / forward")
        yield exponent(test, ordinary(timed), "of the forward pass")
    for method in ("kept_lu", "kept_columns"):
        yield _constant(view, method)
    for method in [*KEEPING, "kept_cholesky"]:
        for n in orders(view, method):
            predicted = theory.kept_factors_ratio(n) * (2 if method == "kept_cholesky" else 1)
            cause = OUTER if method == "kept_columns" else COPIES
            yield ratio_at(view, method, n, within(predicted, theory.ABOUT, ABOUT), predicted, cause)
    for n in orders(view, "kept_lu"):
        yield _cheaper(view, n)


def ordinary(values: "pd.Series[float]") -> "pd.Series[float]":
    """Without orders that are powers of two, to which caches are unkind; with them where too few others are there."""
    found = values[[n.bit_count() > 1 for n in values.index]]
    return found if len(found) >= fit.LEAST_SIZES else values


def _constant(view: View, method: str) -> Test:
    """c of the asymptote c / n in time, and from which n on the curve is within a tenth of it."""
    predicted = theory.SOLVE_RATIO_TIMES_N
    band = within(predicted, theory.ABOUT, ABOUT)
    cause = COPIES if method == "kept_lu" else OUTER
    test = Test(method, "clock", "c in backward / forward = c / n", band, predicted=predicted, cause=cause)
    timed = ordinary(part(view, "backward").series(method, "clock", "time / forward"))
    if len(timed) < fit.LEAST_SIZES:
        return replace(
            test, gap=f"a slope needs {fit.LEAST_SIZES} sizes, there are {len(timed)}." if len(timed) else ""
        )
    fitted, found = _of_the_slope(timed)
    c = found.value
    visible = 9 * fitted.a * c
    why = (
        f"Forward / backward = {fitted.a:.2f} + n / {c:.1f}: the asymptote is within a tenth from n = {visible:.0f} on "
        f"(by flops from {9 * 3:d} on)."
    )

    def again(truth: float, noise: Noise) -> Found:
        return _of_the_slope(1 / (fitted.a + timed.index / truth) * pd.Series(noise.factors(len(timed)), timed.index))[
            1
        ]

    return replace(test, found=found, why=why, again=again)


def _of_the_slope(ratios: "pd.Series[float]") -> tuple[fit.Exponent, Found]:
    """The line of forward / backward in n, and c, one over its slope."""
    fitted = fit.slope(list(ratios.index), list(1 / ratios))
    c, low, high = (1 / slope if slope > 0 else inf for slope in (fitted.b, fitted.high, fitted.low))
    return fitted, Found(c, low, high, len(ratios), degrees=fitted.degrees)


def _cheaper(view: View, n: int) -> Test:
    line, quantity = part(view, "backward"), "backward / that of factorised_again"
    found = line.timed("kept_lu", "time / factorised_again", n)
    kept, again = line.flops("kept_lu", "factorised_again")
    flops = float(kept[n] / again[n]) if n in kept.index and n in again.index else None
    return Test("kept_lu", "clock", quantity, at_most(1.0, "it is said to be cheaper"), found, f"n={n}", beside=flops)


def published_reuse(view: View) -> Iterator[Test]:
    line = part(view, "backward")
    if view.dtype == "float64" or not line.asked("kept_lu", PUBLISHED_AT):
        return
    band = Band(3.0, 4.0, "what was measured there, as they say it")
    found = line.timed("kept_lu", "time / factorised_again", PUBLISHED_AT)
    quantity = "backward pass, factorised again / with the LU kept"
    yield Test("kept_lu", "clock", quantity, band, found and found.inverted, f"n={PUBLISHED_AT}", 3.5)


def advice(view: View) -> Iterator[Advice]:
    if view.dtype == "float64":
        return  # there conditions alone are swept
    line = part(view, "both")
    timed = line.series("jax_solve", "clock", "time")
    if len(timed) == 0:
        return
    n = int(timed.index[-1])
    # Of methods for any A, not those for a positive definite one.
    others = [m for m in line.methods if m != "jax_solve" and (traits := view.traits(m)) and not traits.needs]

    def ratio(name: str, other: str) -> Found | None:
        return line.compared(name, other, n)

    question = f"How to differentiate a linear solve? (both passes, n = {n})"
    yield from least(view, question, ["jax_solve", *others], ratio, "of the time of jnp.linalg.solve")


CHAPTER = 4  # of the lecture
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
        "published-solve-reuse",
        "linear_solve",
        "jax #1747 and #2220: the gradient of a solve is 3 to 4 times faster where the LU is kept.",
        "3 to 4 times, n = 500, on a CPU",
        published_reuse,
        ("ratio",),
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
