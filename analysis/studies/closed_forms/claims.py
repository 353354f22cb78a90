"""Claims of the study ``closed_forms``: a gradient by hand against automatic differentiation."""

from collections.abc import Iterator

from analysis.rounding import largest_error
from analysis.verdict import RATIO_MARGIN, Claim, Test, within
from analysis.view import View

AT = 64  # the order at which the condition is swept
GRADIENTS = ["closed_form", "ad_solve", "ad_solve_einsum", "ad_inverse", "ad_inverse_einsum"]


def trace_inverse_gradient(view: View) -> Iterator[Test]:
    if not view.attached:
        return  # a compiler computes no gradient
    for method in GRADIENTS:
        yield largest_error(view, method, "cond(X)")
    line = view.along("n", decades=1)
    for method in GRADIENTS[1:]:
        orders = line.sizes(method, "clock", "time / closed_form")
        if len(orders) < 2:  # conditions were swept, and no orders
            continue
        n = orders[-1]
        flops, closed = line.flops(method, "closed_form")
        predicted = float(flops[n] / closed[n])
        yield Test(
            method,
            "clock",
            "time / closed_form",
            within(predicted, RATIO_MARGIN, "the ratio of flops, where factorisations and products run at one rate"),
            line.timed(method, "time / closed_form", n),
            f"n={n}",
            predicted,
            why="Predicted: the ratio of their flops, factorisations and solves counted as the textbook has them.",
        )


CHAPTER = 2  # of the lecture
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
