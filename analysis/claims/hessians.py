"""Claims of the study ``hessians``: four compositions, with jit and without, and the lecture's closed form."""

from collections.abc import Iterator
from dataclasses import replace
from math import inf, isnan

from analysis import theory
from analysis.advice import Advice, least
from analysis.verdict import Claim, Verdict, exponent_of, measured, unmeasured
from analysis.view import View

COMPOSITIONS = list(theory.HESSIAN_EXPONENT)
ROUNDINGS = 10  # times eps: what the Hessians may differ by, relative to their largest entry
PRODUCTS = ["hvp_fwd_rev", "hvp_rev_fwd", "hvp_rev_rev"]


def families(view: View) -> list[str]:
    """The families that are swept over the number of inputs."""
    return [name for name in view.families if name != "origin"]


def hessian_composition(view: View) -> Iterator[Verdict]:
    claim = "hessian-composition"
    for family in families(view) or [""]:
        line = view.along("inputs", family=family)
        function = line.series("function", "count", "flops")
        for method, predicted in theory.HESSIAN_EXPONENT.items():
            blank = unmeasured(view, claim, method, "count", f"exponent of flops / f in d, {family}", predicted)
            values = (line.series(method, "count", "flops") / function).dropna()
            verdict = exponent_of(blank, values, 0.0, "evaluations of f", "d")
            yield _explained(verdict, family)
            blank = unmeasured(
                view, claim, method, "compiler", f"exponent of {view.plan} in d, with jit, {family}", predicted
            )
            values = line.series(method, "compiler", view.plan)
            yield _explained(exponent_of(blank, values, 0.0, "bytes", "d"), family)
        for method in COMPOSITIONS[1:]:
            yield _dearer(line, claim, method, family)


def _explained(verdict: Verdict, family: str) -> Verdict:
    if verdict.verdict != "refuted":
        return verdict
    if verdict.ruler == "count" and family == "network":
        reason = (
            "The order is a bound: the first layer is linear in x, its second derivatives are known to be zero, and so "
            "only the other layers, whose cost does not grow with d, are passed d^2 times."
        )
    elif verdict.ruler == "compiler":
        reason = (
            "What is planned is the compiler's program, which fuses and reorders: a likely cause, not a measured one."
        )
    else:
        return verdict
    return replace(verdict, why=f"{verdict.why} {reason}")


def _dearer(line: View, claim: str, method: str, family: str) -> Verdict:
    """Is forward over reverse the cheapest at the largest size?"""
    rows = line.rows(method, "clock", "time / fwd_rev")
    blank = unmeasured(line, claim, method, "clock", f"time / fwd_rev, {family}", 1.0)
    if len(rows) == 0:
        return blank
    d = int(rows.index[-1])
    found = line.widened(method, "time / fwd_rev", d)
    assert found is not None
    blank = replace(blank, quantity=f"time / fwd_rev at d = {d}, {family} (at least)")
    why = "Forward over reverse is said to be the cheapest: no other takes less than its time."
    return measured(blank, (1.0, inf), found, 1, why)


def cubed_norm(view: View) -> Iterator[Verdict]:
    claim = "cubed-norm-hessian"
    if not view.attached:
        return  # a compiler computes no Hessian
    cubed, origin = view.along("inputs", family="cubed"), view.along("inputs", family="origin")
    for method in [*COMPOSITIONS, *PRODUCTS, "closed_form", "fwd_rev_safe"]:
        blank = unmeasured(view, claim, method, "check", "largest error / eps over d", 0.0)
        errors = cubed.series(method, "check", "gradient error")
        if len(errors):
            most = float(errors.max() / view.eps)
            why = f"Against the closed form in float64; at most {ROUNDINGS} eps of the largest entry are allowed."
            blank = measured(blank, (0.0, ROUNDINGS), (most, most, most), len(errors), why)
        yield blank
    for method in [*COMPOSITIONS, "fwd_rev_safe"]:
        yield _at_zero(view, origin, claim, method)


def _at_zero(view: View, origin: View, claim: str, method: str) -> Verdict:
    traits = view.traits(method)
    safe = traits is not None and traits.form == "safe"
    quantity = "error at x = 0" if safe else "the Hessian at x = 0 is NaN (1: yes)"
    blank = unmeasured(view, claim, method, "check", quantity, 0.0 if safe else 1.0)
    rows = origin.rows(method, "check", "gradient error")
    if len(rows) == 0:
        return blank
    error = float(rows["value"].iloc[0])
    if safe:
        why = "The root is taken of 1 where the sum of squares is 0, and the result is thrown away there."
        return measured(blank, (0.0, 0.0), (inf if isnan(error) else error,) * 3, 1, why)
    why = (
        "The Hessian is 0 there. The norm has no derivative at 0: 0/0 is NaN, and the factor 0 before it does not help."
    )
    return measured(blank, (1.0, 1.0), (float(isnan(error)),) * 3, 1, why)


def advice(view: View) -> Iterator[Advice]:
    line = view.along("inputs", family="network")
    timed = line.series("fwd_rev", "clock", "time")
    if len(timed) == 0:
        return
    d = int(timed.index[-1])
    found = {method: line.widened(method, "time / fwd_rev", d) for method in COMPOSITIONS if method != "fwd_rev"}
    question = f"Which composition for a Hessian? (network, d = {d})"
    yield from least(view, question, {"fwd_rev": (1.0, 1.0, 1.0), **found}, "of the time of fwd_rev")


CLAIMS = [
    Claim(
        "cubed-norm-hessian",
        "hessians",
        "The Hessian of g(x) = 1/3 ||x||^3 is ||x||^-1 x x^T + ||x|| I.",
        "equal to rounding; at x = 0 plain automatic differentiation gives NaN",
        cubed_norm,
        ("costs",),
    ),
    Claim(
        "hessian-composition",
        "hessians",
        "Hessians with JAX: forward and reverse mode compose in four ways.",
        "flops d x O(T) for fwd-over-rev and rev-over-rev, d^2 x O(T) otherwise, memory alike; fwd-over-rev cheapest",
        hessian_composition,
        ("costs", "memory", "compile"),
    ),
]
