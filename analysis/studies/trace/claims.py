"""Claims of the study ``trace``: Hutchinson's estimator against the exact trace, and what it costs."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from adcost.rulers.estimate import NEARLY_NORMAL, RUN_LENGTH, RUNS
from analysis import theory
from analysis.advice import Advice, least
from analysis.rules import MARGIN, exact, exponent
from analysis.verdict import EXPONENT_MARGIN, Band, Claim, Test, around, at_most, within
from analysis.view import Found, View

# What the study puts its questions to.
KINDS = ("rademacher", "gaussian", "sphere")  # of probes
DIMENSION = {"small": 388, "large": 112810}  # weights of the networks
ORDERS_AT = 32  # probes at which all orders are compared
CHUNK = 16  # probes that go together

UNBIASED = 0.02  # the mean's interval must be this narrow, relative to the trace
VARIANCE_MARGIN = 0.1
COVERAGE = (0.925, 0.975)  # of intervals that are to cover in 95 of 100 cases
FARTHEST = 4.0  # standard errors that the farthest of six runs may be off
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


def said(view: View, kind: str, quantity: str, at: str = "") -> Found | None:
    """A figure of the sample with its interval; None if there is none."""
    rows = estimates(view, kind).rows("estimates", "estimate", quantity, at)
    if len(rows) == 0:
        return None
    value, low, high = (float(rows[column].iloc[-1]) for column in ("value", "low", "high"))
    return Found(value, low, high, int(rows["repeats"].iloc[-1]))


def errors(view: View, kind: str) -> "pd.Series[float]":
    """The relative error of the mean of V probes, by V."""
    return estimates(view, kind).indexed("estimates", "estimate", "error", "probes")


def predicted_variance(view: View, kind: str) -> float | None:
    """The variance of one estimate by theory, from the exact Hessian."""
    found = [said(view, kind, name) for name in ("exact trace", "squared Frobenius norm", "squared diagonal")]
    if any(figure is None for figure in found):
        return None
    trace, square, diagonal = (figure.value for figure in found if figure is not None)
    return theory.probe_variance(kind, trace, square, diagonal, DIMENSION["small"])


def over(found: Found, value: float) -> Found:
    """A measured value over one that is known."""
    return found._replace(value=found.value / value, low=found.low / value, high=found.high / value)


def unbiased(view: View) -> Iterator[Test]:
    if not view.attached:
        return  # a compiler estimates nothing
    for kind in KINDS:
        mean, exact_trace = said(view, kind, "mean"), said(view, kind, "exact trace")
        band = within(1.0, UNBIASED, "a bias below that would be lost in the error of any affordable estimate")
        test = Test("estimates", "estimate", "mean / exact trace", band, at=f"kind={kind}", predicted=1.0)
        if mean is not None and exact_trace is not None:
            why = f"Of {mean.points} estimates; the trace is {exact_trace.value:.4g}."
            test = replace(test, found=over(mean, exact_trace.value), why=why)
        yield test
        yield _coverage(view, kind)


def _coverage(view: View, kind: str) -> Test:
    size = 4 * NEARLY_NORMAL
    share = said(view, kind, "coverage", f"probes={size}")
    band = Band(*COVERAGE, "95% is what they say; half of what they may miss, to either side")
    at = f"probes={size}; kind={kind}"
    test = Test("estimates", "estimate", "coverage of 95% intervals", band, at=at, predicted=0.95, linear=True)
    if share is None:
        return test
    why = f"Intervals by the standard error of {size} estimates that hold the exact trace."
    return replace(test, found=share, why=why)


def error_rate(view: View) -> Iterator[Test]:
    if not view.attached:
        return
    for kind in KINDS:
        at = f"kind={kind}"
        band = around(-0.5, EXPONENT_MARGIN, MARGIN)
        test = Test("estimates", "estimate", "exponent of the error in V", band, at=at, predicted=-0.5, linear=True)
        found = said(view, kind, "error exponent")
        if found is not None:
            sizes = len(errors(view, kind))
            why = f"The slope over {sizes} numbers of probes; its interval is by resampling the estimates."
            test = replace(test, found=found, why=why)
        yield test


def variance(view: View) -> Iterator[Test]:
    if not view.attached:
        return
    for kind in KINDS:
        band = within(1.0, VARIANCE_MARGIN, "the error of a variance of as many estimates, twice")
        test = Test("estimates", "estimate", "variance / theory", band, at=f"kind={kind}", predicted=1.0)
        found, predicted = said(view, kind, "variance"), predicted_variance(view, kind)
        if found is not None and predicted is not None:
            why = f"Chi-square interval of {found.points} means of {NEARLY_NORMAL}; theory: {predicted:.4g} a probe."
            test = replace(test, found=over(found, predicted), why=why)
        yield test


def runs(view: View) -> Iterator[Test]:
    if not view.attached:
        return
    kind = "rademacher"
    band = at_most(FARTHEST, "the farthest of six normal runs lies beyond in 0.04% of cases")
    quantity = f"standard errors that the farthest of {RUNS} runs is off"
    test = Test("estimates", "estimate", quantity, band, at=f"probes={RUN_LENGTH}; kind={kind}")
    trace, predicted = said(view, kind, "exact trace"), predicted_variance(view, kind)
    ends = [said(view, kind, "running mean", f"run={run}; probes={RUN_LENGTH}") for run in range(RUNS)]
    if trace is None or predicted is None or any(end is None for end in ends):
        yield test
        return
    standard = (predicted / RUN_LENGTH) ** 0.5
    farthest = max(abs(end.value - trace.value) / standard for end in ends if end is not None)
    why = f"One standard error by theory is {standard:.3g}; the trace is {trace.value:.4g}."
    yield replace(test, found=exact(farthest, RUNS), why=why)


def cost(view: View) -> Iterator[Test]:
    for method, predicted in BATCHINGS.items():
        test = Test(method, "compiler", f"exponent of {view.plan} in V", predicted=predicted)
        planned = costs(view, "small").series(method, "compiler", view.plan)
        if method == "fwd_rev_chunked":
            planned = planned[planned.index % CHUNK == 0]  # what is left over is a program of its own
        yield exponent(test, planned, "bytes", "V", resolution=RESOLVED)
    if not view.attached:
        return
    small, d = costs(view, "small"), DIMENSION["small"]
    test = Test("fwd_rev_sequential", "clock", "exponent of time in V", predicted=1.0)
    yield exponent(test, small.series("fwd_rev_sequential", "clock", "time"), "s", "V")
    found = small.timed("fwd_rev_chunked", "time / exact", d)
    band = within(1.0, theory.ABOUT, "as many products")
    why = "As many products; the exact ones leave no error."
    yield Test(
        "fwd_rev_chunked", "clock", "time of V = d probes / d exact products", band, found, f"V={d}", 1.0, why=why
    )
    for method in ("hutchpp", "xtrace"):
        yield _error_over_plain(view, method)
        yield _in_equal_time(view, method)


def products_compared(view: View, method: str) -> int | None:
    """The largest number of products at which a method and Hutchinson's mean are compared."""
    most = WORTH_IT * DIMENSION["small"]
    plain = budgets(view).sizes("hutchinson", "estimate", "error")
    shared = [m for m in budgets(view).sizes(method, "estimate", "error") if m in plain and m <= most]
    return max(shared, default=None)


def error_ratio(view: View, method: str, other: str, m: int) -> Found | None:
    """The error of one estimator over another's with as many products; the interval is that of both."""
    if method == other:
        return Found(1.0, 1.0, 1.0)
    tables = [budgets(view).rows(name, "estimate", "error") for name in (method, other)]
    if any(m not in table.index for table in tables):
        return None
    mine, plain = (table.loc[m, ["value", "low", "high"]].to_numpy(float) for table in tables)
    return Found(float(mine[0] / plain[0]), float(mine[1] / plain[2]), float(mine[2] / plain[1]))


SMALLER = "smaller with as many products, as far as the spectrum falls"


def _error_over_plain(view: View, method: str) -> Test:
    test = Test(method, "estimate", "error / Hutchinson's", at_most(1.0, SMALLER))
    m = products_compared(view, method)
    if m is None:
        return test
    why = "The interval is that of both errors."
    return replace(test, found=error_ratio(view, method, "hutchinson", m), at=f"products={m}", why=why)


def _in_equal_time(view: View, method: str) -> Test:
    """As long as the method takes, Hutchinson's estimator makes more products, and its error falls with their root."""
    test = Test(method, "clock", "error / Hutchinson's in equal time", at_most(1.0, SMALLER))
    line, m = budgets(view), products_compared(view, method)
    shares = None if m is None else error_ratio(view, method, "hutchinson", m)
    if m is None or shares is None:
        return replace(test, gap=line.reasons("estimate", method, "hutchinson"))
    apart = _apart(line, method, m)  # the rows that the comparison is of
    more = line.compared(method, "hutchinson", m) or apart
    if more is None:
        return replace(test, at=f"products={m}", gap=line.reasons("clock", method, "hutchinson"))
    value, low, high = (share * ratio**0.5 for share, ratio in zip(shares[:3], more[:3], strict=True))
    why = (
        f"It takes {more.value:.2f} times as long; Hutchinson's error is taken to fall as V^-1/2 meanwhile, as theory "
        "has it. The interval is that of both errors and of the times."
    )
    found = Found(value, low, high, processes=more.processes)
    return replace(test, found=found, at=f"products={m}", why=why)


def _apart(line: View, method: str, m: int) -> Found | None:
    """The ratio of times where results hold no rounds."""
    tables = [line.rows(name, "clock", "time") for name in (method, "hutchinson")]
    if any(m not in table.index for table in tables):
        return None
    mine, plain = (table.loc[m, ["value", "low", "high"]].to_numpy(float) for table in tables)
    return Found(float(mine[0] / plain[0]), float(mine[1] / plain[2]), float(mine[2] / plain[1]))


def advice(view: View) -> Iterator[Advice]:
    m = products_compared(view, "xtrace")
    if m is not None:

        def of_errors(name: str, other: str) -> Found | None:
            return error_ratio(view, name, other, m)

        question = f"Which estimator of a trace? ({m} products)"
        yield from least(view, question, ["hutchinson", "hutchpp", "xtrace"], of_errors, "of Hutchinson's error")
    for network in ("small", "large"):
        line = costs(view, network)

        def of_times(name: str, other: str, line: View = line) -> Found | None:
            return line.compared(name, other, ORDERS_AT)

        question = f"How to multiply by {ORDERS_AT} probes? ({DIMENSION[network]} weights)"
        yield from least(view, question, list(BATCHINGS), of_times, "of the time of all at once")


CHAPTER = 8  # of the lecture
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
        "within four standard errors",
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
