"""Claims of the study ``hessians``: four compositions, with jit and without, and the lecture's closed form."""

from collections.abc import Iterator
from dataclasses import replace
from math import isnan

from analysis import theory
from analysis.advice import Advice, least
from analysis.rules import exact, exponent
from analysis.verdict import Band, Cause, Claim, Test, at_least, at_most, exactly
from analysis.view import Found, View

COMPOSITIONS = list(theory.HESSIAN_EXPONENT)
ROUNDINGS = 10  # times eps: what the Hessians may differ by, relative to their largest entry
PRODUCTS = ["hvp_fwd_rev", "hvp_rev_fwd", "hvp_rev_rev"]
LINEAR_FIRST_LAYER = Cause(
    "likely",
    "The order is a bound: the first layer is linear in x, its second derivatives are known to be zero, and so only "
    "the other layers, whose cost does not grow with d, are passed d^2 times.",
)
FUSED = Cause("likely", "What is planned is the compiler's program, which fuses and reorders.")


def families(view: View) -> list[str]:
    """The families that are swept over the number of inputs."""
    return [name for name in view.families if name != "origin"]


def hessian_composition(view: View) -> Iterator[Test]:
    for family in families(view) or [""]:
        line, at = view.along("inputs", family=family), f"family={family}" if family else ""
        for method, predicted in theory.HESSIAN_EXPONENT.items():
            cause = LINEAR_FIRST_LAYER if family == "network" else None
            test = Test(method, "count", "exponent of flops / f in d", at=at, predicted=predicted, cause=cause)
            flops, function = (line.series(name, "count", "flops") for name in (method, "function"))
            yield exponent(test, (flops / function).dropna(), "evaluations of f", "d")
            quantity = f"exponent of {view.plan} in d, with jit"
            test = Test(method, "compiler", quantity, at=at, predicted=predicted, cause=FUSED)
            yield exponent(test, line.planned_bytes(method), "bytes", "d")
        for method in COMPOSITIONS[1:]:
            yield _dearer(line, method, at)


def _dearer(line: View, method: str, at: str) -> Test:
    """Is forward over reverse the cheapest at the largest size?"""
    quantity = "time / fwd_rev"
    test = Test(method, "clock", quantity, at_least(1.0, "forward over reverse is said to be the cheapest"), at=at)
    sizes = line.sizes(method, "clock", quantity)
    if not sizes:
        return test
    return replace(test, found=line.timed(method, quantity, sizes[-1]), at=f"d={sizes[-1]}; {at}")


def cubed_norm(view: View) -> Iterator[Test]:
    if not view.attached:
        return  # a compiler computes no Hessian
    cubed, origin = view.along("inputs", family="cubed"), view.along("inputs", family="origin")
    band = at_most(ROUNDINGS, "errors of several operations add up")
    for method in [*COMPOSITIONS, *PRODUCTS, "closed_form", "fwd_rev_safe"]:
        errors = cubed.series(method, "check", "gradient error")
        found = exact(float(errors.max(skipna=False) / view.eps), len(errors)) if len(errors) else None
        why = "Against the closed form in float64, in eps of the largest entry." if found else ""
        yield Test(method, "check", "largest error / eps over d", band, found, why=why)
    for method in [*COMPOSITIONS, "fwd_rev_safe"]:
        yield _at_zero(view, origin, method)


def _at_zero(view: View, origin: View, method: str) -> Test:
    traits = view.traits(method)
    safe = traits is not None and traits.form == "safe"
    quantity, due = ("error at x = 0", 0.0) if safe else ("the Hessian at x = 0 is NaN (1: yes)", 1.0)
    test = Test(method, "check", quantity, exactly(due, "the Hessian is 0 there"), predicted=due)
    rows = origin.rows(method, "check", "gradient error")
    if len(rows) == 0:
        return test
    error = float(rows["value"].iloc[0])
    if safe:
        why = "The root is taken of 1 where the sum of squares is 0, and the result is thrown away there."
        return replace(test, found=exact(error), why=why)
    why = (
        "The Hessian is 0 there. The norm has no derivative at 0: 0/0 is NaN, and the factor 0 before it does not help."
    )
    return replace(test, found=exact(float(isnan(error))), why=why)


def published_hvp(view: View) -> Iterator[Test]:
    line = view.along("inputs", family="network")
    sizes = line.sizes("hvp_fwd_rev", "clock", "time / gradient")
    band = Band(2.0, 3.0, "what Dagreou et al. found, as they say it")
    for method in PRODUCTS:
        found = line.timed(method, "time / gradient", sizes[-1]) if sizes else None
        yield Test(method, "clock", "time / gradient", band, found, f"d={sizes[-1]}" if sizes else "", 2.5)


def advice(view: View) -> Iterator[Advice]:
    line = view.along("inputs", family="network")
    timed = line.series("fwd_rev", "clock", "time")
    if len(timed) == 0:
        return
    d = int(timed.index[-1])
    question = f"Which composition for a Hessian? (network, d = {d})"

    def ratio(name: str, other: str) -> Found | None:
        return line.compared(name, other, d)

    yield from least(view, question, COMPOSITIONS, ratio, "of the time of fwd_rev")


CHAPTER = 3  # of the lecture
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
        "published-hvp",
        "hessians",
        "Dagreou et al., bench_hvp (ICLR blog 2024): a product of a Hessian with a vector costs 2 to 3 gradients.",
        "2 to 3 times the time of the gradient",
        published_hvp,
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
