"""Claims of the study ``trace``: Hutchinson's estimator against the exact trace, and what it costs."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from adcost.rulers.estimate import NEARLY_NORMAL, RUN_LENGTH, RUNS
from analysis import theory
from analysis.advice import Advice, least
from analysis.verdict import Claim, Verdict, exponent_of, falling_exponent_of, measured, unmeasured, within
from analysis.view import View
from benchmarks.studies.trace import CHUNK, KINDS, ORDERS_AT, dimension

UNBIASED = 0.02  # the mean's interval must be this narrow, relative to the trace
VARIANCE_BAND = 0.1
COVERAGE = (0.925, 0.975)  # of intervals that are to cover in 95 of 100 cases
FARTHEST = 3.0  # standard errors that the farthest of six runs may be off
BATCHINGS = {"fwd_rev": 1.0, "fwd_rev_chunked": 0.0, "fwd_rev_sequential": 0.0}  # exponent of memory in V
WORTH_IT = 0.25  # of the products that the exact trace takes: estimators are compared up to there
RESOLVED = 4 * 2**10  # bytes: growth of less than this is none


def costs(view: View, network: str) -> View:
    """The costs over the number of probes."""
    return view.along("probes", question="costs", network=network, kind="rademacher", draws=1)


def estimates(view: View, kind: str) -> View:
    """The large sample of one kind of probe."""
    return view.along("probes", question="estimates", network="small", kind=kind, draws=1)


def budgets(view: View) -> View:
    """The estimators over the number of products."""
    return view.along("probes", question="budgets", network="small", kind="gaussian")


def said(view: View, kind: str, quantity: str, at: str = "") -> tuple[float, float, float] | None:
    """A figure of the sample with its interval; None if there is none."""
    rows = estimates(view, kind).rows("estimates", "estimate", quantity, at)
    if len(rows) == 0:
        return None
    value, low, high = (float(rows[column].iloc[-1]) for column in ("value", "low", "high"))
    return value, low, high


def errors(view: View, kind: str) -> "pd.Series[float]":
    """The relative error of the mean of V probes, by V."""
    return estimates(view, kind).indexed("estimates", "estimate", "error", "probes")


def predicted_variance(view: View, kind: str) -> float | None:
    """The variance of one estimate by theory, from the exact Hessian."""
    found = [said(view, kind, name) for name in ("exact trace", "squared Frobenius norm", "squared diagonal")]
    if any(figure is None for figure in found):
        return None
    trace, square, diagonal = (figure[0] for figure in found if figure is not None)
    return theory.probe_variance(kind, trace, square, diagonal, dimension("small"))


def unbiased(view: View) -> Iterator[Verdict]:
    claim = "hutchinson-unbiased"
    if not view.attached:
        return  # a compiler estimates nothing
    for kind in KINDS:
        blank = unmeasured(view, claim, "estimates", "estimate", f"mean / exact trace, {kind}", 1.0)
        mean, exact = said(view, kind, "mean"), said(view, kind, "exact trace")
        if mean is None or exact is None:
            yield blank
            continue
        interval = mean[0] / exact[0], mean[1] / exact[0], mean[2] / exact[0]
        count = int(estimates(view, kind).rows("estimates", "estimate", "mean")["repeats"].iloc[-1])
        found = measured(
            blank, within(1.0, UNBIASED), interval, count, f"Of {count} estimates; the trace is {exact[0]:.4g}."
        )
        yield found if interval[1] <= 1 <= interval[2] else replace(found, verdict="refuted")
        size = 4 * NEARLY_NORMAL
        blank = unmeasured(view, claim, "estimates", "estimate", f"coverage of 95% intervals of {size}, {kind}", 0.95)
        share = said(view, kind, "coverage", f"probes={size}")
        why = f"Intervals by the standard error of {size} estimates that hold the exact trace."
        yield measured(blank, COVERAGE, share, count // size, why) if share else blank


def error_rate(view: View) -> Iterator[Verdict]:
    if not view.attached:
        return
    for kind in KINDS:
        blank = unmeasured(
            view, "hutchinson-error-rate", "estimates", "estimate", f"exponent of the error in V, {kind}", -0.5
        )
        found = errors(view, kind)
        yield falling_exponent_of(blank, found, "1 / relative error", "V") if len(found) else blank


def variance(view: View) -> Iterator[Verdict]:
    if not view.attached:
        return
    for kind in KINDS:
        blank = unmeasured(view, "hutchinson-variance", "estimates", "estimate", f"variance / theory, {kind}", 1.0)
        found, predicted = said(view, kind, "variance"), predicted_variance(view, kind)
        if found is None or predicted is None:
            yield blank
            continue
        value, low, high = (figure / predicted for figure in found)
        count = int(estimates(view, kind).rows("estimates", "estimate", "variance")["repeats"].iloc[-1])
        why = f"Chi-square interval of {count} means of {NEARLY_NORMAL}; theory: {predicted:.4g} a probe."
        yield measured(blank, within(1.0, VARIANCE_BAND), (value, low, high), count, why)


def runs(view: View) -> Iterator[Verdict]:
    if not view.attached:
        return
    kind = "rademacher"
    quantity = f"standard errors that the farthest of {RUNS} runs is off after {RUN_LENGTH}"
    blank = unmeasured(view, "hutchinson-runs", "estimates", "estimate", quantity, 0.0)
    exact, predicted = said(view, kind, "exact trace"), predicted_variance(view, kind)
    ends = [said(view, kind, "running mean", f"run={run}; probes={RUN_LENGTH}") for run in range(RUNS)]
    if exact is None or predicted is None or any(end is None for end in ends):
        yield blank
        return
    standard = (predicted / RUN_LENGTH) ** 0.5
    farthest = max(abs(end[0] - exact[0]) / standard for end in ends if end is not None)
    why = f"One standard error by theory is {standard:.3g}; the trace is {exact[0]:.4g}."
    yield measured(blank, (0.0, FARTHEST), (farthest,) * 3, RUNS, why)


def cost(view: View) -> Iterator[Verdict]:
    claim = "hutchinson-cost"
    small = costs(view, "small")
    for method, predicted in BATCHINGS.items():
        blank = unmeasured(view, claim, method, "compiler", f"exponent of {view.plan} in V", predicted)
        planned = small.series(method, "compiler", view.plan)
        if method == "fwd_rev_chunked":
            planned = planned[planned.index % CHUNK == 0]  # what is left over is a program of its own
        yield exponent_of(blank, planned, RESOLVED, "bytes", "V")
    if not view.attached:
        return
    blank = unmeasured(view, claim, "fwd_rev_sequential", "clock", "exponent of time in V", 1.0)
    timed = small.series("fwd_rev_sequential", "clock", "time")
    yield exponent_of(blank, timed, 0.0, "s", "V")
    d = dimension("small")
    blank = unmeasured(view, claim, "fwd_rev_chunked", "clock", f"time of V = d = {d} probes / d exact products", 1.0)
    found = small.widened("fwd_rev_chunked", "time / exact", d)
    why = "As many products; the exact ones leave no error."
    yield measured(blank, within(1.0, theory.ABOUT), found, 1, why) if found else blank
    yield from _budgets(view, claim)


def _budgets(view: View, claim: str) -> Iterator[Verdict]:
    line = budgets(view)
    plain = line.rows("hutchinson", "estimate", "error")
    for method in ("hutchpp", "xtrace"):
        rows = line.rows(method, "estimate", "error")
        counts = rows.index.intersection(plain.index)
        counts = counts[counts <= WORTH_IT * dimension("small")]
        m = int(counts.max()) if len(counts) else 0
        quantity = f"error / Hutchinson's at {m} products" if m else "error / Hutchinson's"
        blank = unmeasured(view, claim, method, "estimate", quantity, 1.0)
        if not m:
            yield blank
            continue
        mine, other = (table.loc[m, ["value", "low", "high"]].to_numpy(float) for table in (rows, plain))
        interval = float(mine[0] / other[0]), float(mine[1] / other[2]), float(mine[2] / other[1])
        why = "Said: smaller with as many products, as far as the spectrum falls. The interval is that of both errors."
        yield measured(blank, (0.0, 1.0), interval, len(counts), why)
        yield _in_equal_time(
            line, replace(blank, quantity=f"error / Hutchinson's in the time of {m} products"), interval, m
        )


def _in_equal_time(line: View, blank: Verdict, shares: tuple[float, float, float], m: int) -> Verdict:
    """As long as the method takes, Hutchinson's estimator makes more products, and its error falls with their root."""
    mine, plain = (line.rows(method, "clock", "time") for method in (blank.method, "hutchinson"))
    if m not in mine.index or m not in plain.index:
        return replace(blank, ruler="clock", why=line.reasons("clock", blank.method, "hutchinson"))
    (time, low, high), (other, least, most) = (
        rows.loc[m, ["value", "low", "high"]].to_numpy(float) for rows in (mine, plain)
    )
    more = (time / other, low / most, high / least)
    interval = [float(share * ratio**0.5) for share, ratio in zip(shares, more, strict=True)]
    why = (
        f"It takes {more[0]:.2f} times as long; Hutchinson's error is taken to fall as V^-1/2 meanwhile, as theory has "
        "it. The interval is that of both errors and both times."
    )
    return measured(replace(blank, ruler="clock"), (0.0, 1.0), (interval[0], interval[1], interval[2]), 1, why)


def advice(view: View) -> Iterator[Advice]:
    shares, at = {"hutchinson": (1.0, 1.0, 1.0)}, ""
    for v in _budgets(view, "hutchinson-cost"):
        if v.ruler == "estimate" and v.measured is not None and v.low is not None and v.high is not None:
            shares[v.method], at = (v.measured, v.low, v.high), v.quantity.partition(" at ")[2]
    question = f"Which estimator of a trace? ({at})"
    yield from least(view, question, shares, "of Hutchinson's error")
    for network in ("small", "large"):
        line = costs(view, network)
        ratios = {
            method: line.widened(method, "time / fwd_rev", ORDERS_AT) for method in BATCHINGS if method != "fwd_rev"
        }
        question = f"How to multiply by {ORDERS_AT} probes? ({dimension(network)} weights)"
        yield from least(view, question, {"fwd_rev": (1.0, 1.0, 1.0), **ratios}, "of the time of all at once")


CLAIMS = [
    Claim(
        "hutchinson-unbiased",
        "trace",
        "Tr X = E[v^T X v] for E[v v^T] = I.",
        "the mean of many estimates covers the exact trace, and intervals by the standard error cover at their rate",
        unbiased,
        ("error",),
    ),
    Claim(
        "hutchinson-error-rate",
        "trace",
        "The mean of V probes estimates the trace.",
        "error exponent -1/2 in V",
        error_rate,
        ("error",),
    ),
    Claim(
        "hutchinson-variance",
        "trace",
        "(The variance of one probe by theory.)",
        "signs 2 (|X|^2 - sum x_ii^2), normal 2 |X|^2, sphere 2 d / (d + 2) (|X|^2 - tr^2 / d), in the Frobenius norm",
        variance,
        ("error",),
    ),
    Claim(
        "hutchinson-runs",
        "trace",
        "(Figure 13) Several runs from different seeds converge to the exact trace.",
        "within three standard errors",
        runs,
        ("runs",),
    ),
    Claim(
        "hutchinson-cost",
        "trace",
        "Products of the matrix with vectors instead of the matrix.",
        "V products against d; memory grows with V where probes are batched, and does not one by one; Hutch++ and "
        "XTrace make less of an error with as many products",
        cost,
        ("costs", "budgets"),
    ),
]
