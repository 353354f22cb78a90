"""Claims of the study ``svd``: the lecture's gradient, its cost against both forward passes, and where it fails."""

from collections.abc import Iterator
from dataclasses import replace
from math import inf, isfinite, isnan

import numpy as np
import pandas as pd

from analysis import theory
from analysis.advice import Advice, least
from analysis.verdict import RATIO_BAND, Claim, Verdict, exponent_of, measured, unmeasured
from analysis.view import View
from benchmarks.studies.svd import EXACT, METHODS

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


def gradient(view: View) -> Iterator[Verdict]:
    claim = "svd-gradient"
    if not view.attached:
        return  # a compiler computes no gradient
    mine = view.frame[(view.frame["quantity"] == "gradient error") & (view.frame["spectrum"] == "spread")]
    for loss in mine["loss"].unique() if len(mine) else []:
        for method in METHODS:
            rows = mine[(mine["method"] == method) & (mine["loss"] == loss)]
            if len(rows) == 0:
                continue
            least = rows[["rows", "cols"]].min(axis=1).astype(float)
            expected = view.eps * least**0.5 * (least if loss in BY_GAP else 1.0)
            shares = rows["value"] / expected
            worst = rows.loc[shares.idxmax()]
            words = "eps sqrt(n) / gap" if loss in BY_GAP else "eps sqrt(n)"
            blank = unmeasured(view, claim, method, "check", f"largest error / ({words}), {loss}", 1.0)
            why = (
                f"The worst is {worst['value']:.1e} at {worst['rows']:.0f} x {worst['cols']:.0f}. Up to {ROUNDINGS} "
                f"are allowed."
            )
            yield measured(blank, (0.0, ROUNDINGS), (float(shares.max()),) * 3, len(rows), why)


def backward_against_forward(view: View) -> Iterator[Verdict]:
    claim = "svd-backward-against-forward"
    if view.dtype == "float64":
        return  # in float64 gaps alone are swept
    backward, both = square(view, "backward"), square(view, "both")
    timed = backward.series("lecture", "clock", "time / thin").index
    orders = [n for n in SHOWN if n in timed] or [SHOWN[0]]
    for n in orders:
        yield from _of_flops(view, claim, backward, n)
        for method, flops in (("lecture", 2), ("jax_values", 4)):
            for against, forward in theory.SVD_FORWARD.items():
                predicted = flops / forward
                blank = unmeasured(
                    view, claim, method, "clock", f"backward / forward ({against}) at n = {n}", predicted
                )
                found = backward.widened(method, f"time / {against}", n)
                why = "At most what the flops say: a product of matrices runs at a higher rate than an SVD."
                yield measured(blank, (0.0, predicted * (1 + RATIO_BAND)), found, 1, why) if found else blank
        blank = unmeasured(view, claim, "lecture", "clock", f"backward / that of jax_values at n = {n}", 0.5)
        found = backward.widened("lecture", "time / jax_values", n)
        yield measured(blank, (0.0, 1.0), found, 1, "Said: the lecture's rule beats JAX's.") if found else blank
    stepped = both.series("lecture", "clock", "time / values").index
    for n in [n for n in orders if n in stepped] or orders[:1]:
        for method in RULES:
            blank = unmeasured(
                view, claim, method, "clock", f"both passes / forward (values) at n = {n}", theory.SVD_STEP
            )
            found = both.widened(method, "time / values", n)
            why = "Said: several times, that is at least 2; predicted by flops: 9."
            yield measured(blank, (2.0, inf), found, 1, why) if found else blank


def _of_flops(view: View, claim: str, backward: View, n: int) -> Iterator[Verdict]:
    """Exact: the lecture's rule takes half the products of JAX's."""
    lecture, by_jax = (backward.series(method, "count", "flops") for method in ("lecture", "jax_values"))
    blank = unmeasured(view, claim, "lecture", "count", f"flops of the backward pass / JAX's at n = {n}", 0.5)
    if n in lecture.index and n in by_jax.index:
        share = float(lecture[n] / by_jax[n])
        why = f"{lecture[n] / n**3:.2f} n^3 against {by_jax[n] / n**3:.2f} n^3."
        yield measured(blank, (0.45, 0.55), (share,) * 3, 1, why)
    else:
        yield blank


def degenerate(view: View) -> Iterator[Verdict]:
    claim = "svd-degenerate"
    if not view.attached:
        return
    if view.dtype == "float64":
        blank = unmeasured(view, claim, "jax_thin", "check", "exponent of the error in 1 / gap, vectors", 1.0)
        errors = gaps(view, "jax_thin", "vectors")
        errors = errors[errors < 0.1]  # beyond, no digit is right and the error cannot grow
        yield exponent_of(blank, errors, 0.0, "relative", "1 / gap")
        for method in ("jax_values", "jax_thin", "lecture"):
            blank = unmeasured(view, claim, method, "check", "largest error at any gap / (eps sqrt(n)), nuclear", 1.0)
            found = list(gaps(view, method, "nuclear"))
            equal = outcome(view, method, "nuclear", "equal")
            found += [equal] if equal is not None else []
            if found:
                most = float(np.max(found)) / view.eps / EXACT**0.5
                why = "Two equal singular values included: the gradient through the values is safe."
                yield measured(blank, (0.0, ROUNDINGS), (inf if isnan(most) else most,) * 3, len(found), why)
            else:
                yield blank
    for method, said in (("jax_thin", 1.0), ("safe", 0.0)):
        blank = unmeasured(
            view, claim, method, "check", "not finite at two equal singular values, vectors (1: yes)", said
        )
        error = outcome(view, method, "vectors", "equal")
        if error is None:
            yield blank
            continue
        words = "NaN" if isnan(error) else f"finite, up to {error:.1e}" if isfinite(error) else "infinite"
        why = f"The gradient is {words}. There is none: rounding parts equal values, or does not."
        yield measured(blank, (said, said), (float(not isfinite(error)),) * 3, 1, why)
    blank = unmeasured(view, claim, "safe", "check", "distance to the least subgradient at s = 0, nuclear", 0.0)
    error = outcome(view, "safe", "nuclear", "deficient")
    if error is None:
        yield blank
        return
    why = (
        "At s = 0 the nuclear norm has a subgradient only; the least one is U V^T over the other values. The plain "
        "rules return another, by whatever vectors the SVD found."
    )
    band = (0.0, ROUNDINGS * view.eps * EXACT**0.5)
    yield measured(blank, band, (inf if isnan(error) else error,) * 3, 1, why)


def advice(view: View) -> Iterator[Advice]:
    line = square(view, "backward")
    timed = line.series("jax_values", "clock", "time")
    if len(timed) == 0:
        return
    n = int(timed.index[-1])
    found = {"lecture": line.widened("lecture", "time / jax_values", n), "jax_values": (1.0, 1.0, 1.0)}
    question = f"Which rule for the gradient of singular values? (backward pass, n = {n})"
    yield from least(view, question, found, "of the time of JAX's rule")


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
        "from U and V 2 n^3, an eleventh of a thin SVD; JAX's rule 4 n^3; forward and backward are several times a "
        "forward pass of the values alone",
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
