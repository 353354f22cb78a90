"""Claims of the study ``closed_forms``: a gradient by hand against automatic differentiation."""

from collections.abc import Iterator
from dataclasses import replace

from analysis.rounding import scaled_errors
from analysis.verdict import RATIO_BAND, Claim, Verdict, measured, unmeasured, within
from analysis.view import View

GRADIENTS = ["closed_form", "ad_solve", "ad_solve_einsum", "ad_inverse", "ad_inverse_einsum"]
ROUNDINGS = 10  # times cond(X) eps sqrt(n)


def trace_inverse_gradient(view: View) -> Iterator[Verdict]:
    claim = "trace-inverse-gradient"
    if not view.attached:
        return  # a compiler computes no gradient
    for method in GRADIENTS:
        blank = unmeasured(view, claim, method, "check", "largest error / (cond(X) eps sqrt(n))", 1.0)
        rows = scaled_errors(view, method)
        if not rows:
            yield blank
            continue
        n, decades, error, share = max(rows, key=lambda row: row[3])
        why = (
            f"The worst is {error:.1e} at n = {n}, cond(X) = 1e{decades}; the largest error of all is "
            f"{max(row[2] for row in rows):.1e}. Up to {ROUNDINGS} are allowed."
        )
        yield measured(blank, (0.0, ROUNDINGS), (share,) * 3, len(rows), why)
    line = view.along("n", decades=1)
    closed = line.series("closed_form", "count", "flops")
    for method in GRADIENTS[1:]:
        blank = unmeasured(view, claim, method, "clock", "time / closed_form")
        timed = line.rows(method, "clock", "time / closed_form")
        flops = line.series(method, "count", "flops")
        if len(timed) < 2:  # conditions were swept, and no orders
            continue
        n = int(timed.index[-1])
        predicted, found = float(flops[n] / closed[n]), line.widened(method, "time / closed_form", n)
        assert found is not None
        blank = replace(blank, quantity=f"time / closed_form at n = {n}", predicted=predicted)
        why = "Predicted: the ratio of their flops, factorisations and solves counted as the textbook has them."
        yield measured(blank, within(predicted, RATIO_BAND), found, 1, why)


CLAIMS = [
    Claim(
        "trace-inverse-gradient",
        "closed_forms",
        "The gradient of f(X) = tr(A X^-1 B) is -X^-T A^T B^T X^-T.",
        "equal to automatic differentiation to rounding, scaled by cond(X); time as the flops",
        trace_inverse_gradient,
        ("error", "costs"),
    ),
]
