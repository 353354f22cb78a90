"""Claims of the study ``svd``: the lecture's gradient, its cost against both forward passes, and where it fails."""

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite, isnan

import numpy as np
import pandas as pd

from analysis import theory
from analysis.advice import Advice, least
from analysis.rules import exact, exponent
from analysis.verdict import RATIO_MARGIN, Claim, Test, at_least, at_most, exactly, within
from analysis.view import Found, View

EXACT = 16  # the order of the matrices whose truth is exact
LOSSES_AT = 128  # the order at which all losses are asked for
SEVERAL = 2.0  # "several times" is at least that
ROUNDINGS = 10  # times eps sqrt(n), over the relative gap where unequal weights tell the vectors apart
BY_GAP = ("vectors", "spectral")  # losses whose gradient depends on which vector belongs to which value
RULES = ["lecture", "jax_values", "jax_thin"]
SHOWN = (256, 512, 1024)  # orders at which ratios are held against the prediction
OBLONG = ((256, 64), (64, 256), (1024, 256), (256, 1024))


def square(view: View, part: str, loss: str = "nuclear") -> View:
    """One part of square matrices with singular values evenly spread, over the order."""
    frame = view.frame[view.frame["rows"] == view.frame["cols"]]
    alike = replace(view.results, frame=frame, missing=view.missing, timings=_square(view.timings))
    return replace(view, results=alike).along("rows", part=part, loss=loss, spectrum="spread")


def _square(timings: pd.DataFrame) -> pd.DataFrame:
    return timings[timings["rows"] == timings["cols"]] if len(timings) else timings


def gaps(view: View, method: str, loss: str) -> "pd.Series[float]":
    """Errors by 1 / gap, where the truth is exact: 2 to the power of the halvings."""
    line = view.along("halvings", part="both", loss=loss, spectrum="pair", rows=EXACT)
    errors = line.series(method, "check", "gradient error")
    return pd.Series(errors.to_numpy(), index=2.0**errors.index, dtype=float)


def outcome(view: View, method: str, loss: str, spectrum: str) -> float | None:
    """The error at a matrix with two equal singular values, or two that are 0; None if it was not tried."""
    line = view.along("halvings", part="both", loss=loss, spectrum=spectrum, rows=EXACT)
    errors = line.series(method, "check", "gradient error")
    return float(errors.iloc[0]) if len(errors) else None


def gradient(view: View) -> Iterator[Test]:
    if not view.attached:
        return  # a compiler computes no gradient
    mine = view.frame[(view.frame["quantity"] == "gradient error") & (view.frame["spectrum"] == "spread")]
    for (loss, method), _ in mine.groupby(["loss", "method"], sort=False) if len(mine) else ():
        yield _largest_error(view, str(method), str(loss), mine)


def _largest_error(view: View, method: str, loss: str, errors: pd.DataFrame) -> Test:
    rows = view.noted(errors[(errors["method"] == method) & (errors["loss"] == loss)])
    least = rows[["rows", "cols"]].min(axis=1).astype(float)
    shares = rows["value"] / (view.eps * least**0.5 * (least if loss in BY_GAP else 1.0))
    worst = rows.iloc[int(shares.fillna(np.inf).to_numpy().argmax())]
    words = "eps sqrt(n) / gap" if loss in BY_GAP else "eps sqrt(n)"
    band = at_most(ROUNDINGS, "errors of several operations add up")
    why = f"The worst is {worst['value']:.1e} at {worst['rows']:.0f} x {worst['cols']:.0f}."
    found = exact(float(shares.max(skipna=False)), len(rows))
    return Test(method, "check", f"largest error / ({words})", band, found, f"loss={loss}", why=why)


def backward_against_forward(view: View) -> Iterator[Test]:
    if view.dtype == "float64":
        return  # in float64 gaps alone are swept
    backward, both = square(view, "backward"), square(view, "both")
    timed = backward.sizes("lecture", "clock", "time / thin")
    orders = [n for n in SHOWN if n in timed] or [SHOWN[0]]
    higher = "what the flops say: a product of matrices runs at a higher rate than an SVD"
    for n in orders:
        yield _of_flops(square(view, "backward"), n)
        for method, flops in (("lecture", 2), ("jax_values", 4)):
            for against, forward in theory.SVD_FORWARD.items():
                most, found = flops / forward, backward.timed(method, f"time / {against}", n)
                band = at_most(most * (1 + RATIO_MARGIN), higher)
                yield Test(method, "clock", f"backward / forward ({against})", band, found, f"n={n}", beside=most)
        band, found = at_most(1.0, "the lecture's rule beats JAX's"), backward.timed("lecture", "time / jax_values", n)
        yield Test("lecture", "clock", "backward / that of jax_values", band, found, f"n={n}", beside=0.5)
    stepped = both.sizes("lecture", "clock", "time / values")
    band = at_least(SEVERAL, "several times, that is at least twice")
    for n in [n for n in orders if n in stepped] or orders[:1]:
        for method in RULES:
            found = both.timed(method, "time / values", n)
            step = theory.SVD_STEP
            yield Test(method, "clock", "both passes / forward (values)", band, found, f"n={n}", beside=step)


def _of_flops(backward: View, n: int) -> Test:
    """The lecture's rule takes half the products of JAX's."""
    lecture, by_jax = (backward.series(method, "count", "flops") for method in ("lecture", "jax_values"))
    band = within(0.5, RATIO_MARGIN, "leading terms; what is of order n^2 is to stay below that")
    test = Test("lecture", "count", "flops of the backward pass / JAX's", band, at=f"n={n}", predicted=0.5)
    if n not in lecture.index or n not in by_jax.index:
        return test
    why = f"{lecture[n] / n**3:.2f} n^3 against {by_jax[n] / n**3:.2f} n^3."
    return replace(test, found=exact(float(lecture[n] / by_jax[n])), why=why)


def degenerate(view: View) -> Iterator[Test]:
    if not view.attached:
        return
    if view.dtype == "float64":
        yield _by_gap(view)
        for method in ("jax_values", "jax_thin", "lecture"):
            yield _through_values(view, method)
    for method, due in (("jax_thin", 1.0), ("safe", 0.0)):
        yield _at_equal_values(view, method, due)
    yield _at_zero(view)


def _by_gap(view: View) -> Test:
    errors = gaps(view, "jax_thin", "vectors")
    right = errors[errors < 0.1]
    test = Test("jax_thin", "check", "exponent of the error in 1 / gap", at="loss=vectors", predicted=1.0)
    test = exponent(test, right, "relative", "1 / gap")
    dropped = f" {len(errors) - len(right)} narrower gaps are left out: no digit is right there."
    return replace(test, why=test.why + dropped) if len(right) < len(errors) else test


def _through_values(view: View, method: str) -> Test:
    band = at_most(ROUNDINGS, "errors of several operations add up")
    test = Test(method, "check", "largest error at any gap / (eps sqrt(n))", band, at="loss=nuclear")
    equal = outcome(view, method, "nuclear", "equal")
    found = [*gaps(view, method, "nuclear"), *([equal] if equal is not None else [])]
    if not found:
        return test
    why = "Two equal singular values included: the gradient through the values is safe."
    return replace(test, found=exact(float(np.max(found)) / view.eps / EXACT**0.5, len(found)), why=why)


def _at_equal_values(view: View, method: str, due: float) -> Test:
    band = exactly(due, "it is divided by a gap of 0, unless the rule takes care")
    quantity = "not finite at two equal singular values (1: yes)"
    test = Test(method, "check", quantity, band, at="loss=vectors", predicted=due)
    error = outcome(view, method, "vectors", "equal")
    if error is None:
        return test
    words = "NaN" if isnan(error) else f"finite, up to {error:.1e}" if isfinite(error) else "infinite"
    why = f"The gradient is {words}. There is none: rounding parts equal values, or does not."
    return replace(test, found=exact(float(not isfinite(error))), why=why)


def _at_zero(view: View) -> Test:
    band = at_most(ROUNDINGS * view.eps * EXACT**0.5, "rounding")
    test = Test("safe", "check", "distance to the least subgradient at s = 0", band, at="loss=nuclear")
    error = outcome(view, "safe", "nuclear", "deficient")
    if error is None:
        return test
    why = (
        "At s = 0 the nuclear norm has a subgradient only; the least one is U V^T over the other values. The plain "
        "rules return another, by whatever vectors the SVD found."
    )
    return replace(test, found=exact(error), why=why)


def advice(view: View) -> Iterator[Advice]:
    line = square(view, "backward")
    timed = line.series("jax_values", "clock", "time")
    if len(timed) == 0:
        return
    n = int(timed.index[-1])

    def ratio(name: str, other: str) -> Found | None:
        return line.compared(name, other, n)

    question = f"Which rule for the gradient of singular values? (backward pass, n = {n})"
    yield from least(view, question, ["jax_values", "lecture"], ratio, "of the time of JAX's rule")


CHAPTER = 5  # of the lecture
CLAIMS = [
    Claim(
        "svd-gradient",
        "svd",
        "R(W) = tr(Sigma): dL/dW = U (dL/dSigma) V^T.",
        "equal to the rule with the factors that W was made of, to rounding; square, tall and wide",
        gradient,
        ("gaps",),
    ),
    Claim(
        "svd-backward-against-forward",
        "svd",
        "The backward pass through the SVD against the forward pass.",
        "from U and V 2 n^3, a fifth of a thin SVD (9.3 n^3, by LAPACK's gesdd); JAX's rule 4 n^3; both passes are "
        "several times a forward pass of the values alone",
        backward_against_forward,
        ("ratio", "costs"),
    ),
    Claim(
        "svd-degenerate",
        "svd",
        "(Where the gradient of an SVD ends.)",
        "through U and V the error grows as 1 / gap, to NaN at equal singular values; through the values it is safe; "
        "at s = 0 there is a subgradient only",
        degenerate,
        ("gaps",),
    ),
]
