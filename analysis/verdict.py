"""A verdict: a prediction, a measurement with its interval, and the one rule that holds one against the other.

A prediction is a band; it is fixed beside the claim, before the run. The measured 95% interval inside the band:
``confirmed``. Outside it altogether: ``refuted``. Across its edge: ``inconclusive``. No number: ``not measured``. What
is exact is compared exactly: its band and its interval have no width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from adcost.rulers import process
from adcost.targets import ANY
from analysis import fit
from analysis.view import View

Kind = Literal["confirmed", "refuted", "inconclusive", "not measured"]
EXPONENT_BAND = 0.1  # how far a measured exponent may lie from the predicted one
RATIO_BAND = 0.1  # how far a measured ratio may lie from the predicted one, relative


@dataclass(frozen=True)
class Verdict:
    """One row of the verdict table; ``low`` and ``high`` bound the 95% interval of ``measured``."""

    claim: str
    study: str
    method: str
    ruler: str
    target: str
    quantity: str
    predicted: float | None
    measured: float | None
    low: float | None
    high: float | None
    verdict: Kind
    points: int
    why: str


@dataclass(frozen=True)
class Claim:
    """A statement of the lecture, with the rule that tests it."""

    id: str
    study: str
    says: str
    predicted: str
    rule: Callable[["View"], Iterator[Verdict]]
    figures: tuple[str, ...] = ()  # the names of those that show it


def judge(band: tuple[float, float], low: float, high: float) -> Kind:
    """The one rule: the interval against the band."""
    if band[0] <= low and high <= band[1]:
        return "confirmed"
    if high < band[0] or low > band[1]:
        return "refuted"
    return "inconclusive"


def around(value: float, by: float) -> tuple[float, float]:
    return value - by, value + by


def within(value: float, share: float) -> tuple[float, float]:
    return value / (1 + share), value * (1 + share)


def unmeasured(
    view: View, claim: str, method: str, ruler: str, quantity: str, predicted: float | None = None, why: str = ""
) -> Verdict:
    """A row of the verdict table without a measurement; the reason is looked up unless given."""
    target = ANY if ruler == "count" else view.target
    reason = why or view.reasons(ruler, *method.split(" / "))
    return Verdict(
        claim, view.study, method, ruler, target, quantity, predicted, None, None, None, "not measured", 0, reason
    )  # fmt: skip


def measured(
    blank: Verdict, band: tuple[float, float], interval: tuple[float, float, float], points: int, why: str
) -> Verdict:
    """The row with its measurement, as (value, low, high), judged against the band."""
    value, low, high = interval
    kind = judge(band, low, high)
    return replace(blank, measured=value, low=low, high=high, verdict=kind, points=points, why=why)


def exponent_of(blank: Verdict, values: "pd.Series[float]", resolution: float, unit: str, n: str = "n") -> Verdict:
    """The exponent of a quantity by size, held against the row's prediction; no values leave the row as it is."""
    if len(values) == 0:
        return blank
    try:
        fitted = fit.exponent(list(values.index), list(values), resolution)
    except ValueError as error:
        return replace(blank, verdict="inconclusive", points=len(values), why=f"{error}.")
    assert blank.predicted is not None
    first, last = values.index[0], values.index[-1]
    why = f"From {values.iloc[0]:.4g} {unit} at {n} = {first} to {values.iloc[-1]:.4g} at {n} = {last}"
    why += (
        f"; it {fitted.note} {unit}." if fitted.note else f": {fitted.a:.3g} + {fitted.b:.3g} {n}^{fitted.value:.3f}."
    )
    band = around(blank.predicted, EXPONENT_BAND)
    return measured(blank, band, (fitted.value, fitted.low, fitted.high), fitted.points, why)


def falling_exponent_of(blank: Verdict, values: "pd.Series[float]", unit: str, n: str = "n") -> Verdict:
    """The exponent of a quantity that falls with size, to a power: that of its inverse, with the other sign."""
    assert blank.predicted is not None
    found = exponent_of(replace(blank, predicted=-blank.predicted), 1 / values, 0.0, unit, n)
    found = replace(found, predicted=blank.predicted)
    if found.measured is None or found.low is None or found.high is None:
        return found
    return replace(
        found, measured=-found.measured, low=-found.high, high=-found.low, why=f"Of its inverse: {found.why}"
    )


def exponent_verdict(
    view: View, claim: str, method: str, ruler: str, quantity: str, predicted: float, resolution: float
) -> Verdict:
    """The exponent in n of a memory quantity, in activations."""
    blank = unmeasured(view, claim, method, ruler, f"exponent of {quantity} in n", predicted)
    return exponent_of(blank, view.activations(method, ruler, quantity), resolution, "activations")


def memory_exponents(view: View, claim: str, method: str, predicted: float) -> Iterator[Verdict]:
    """The exponent by the compiler's plan and, where programs run, by their peak."""
    activation = view.series(method, "count", "activation")
    unit = float(activation.iloc[0]) if len(activation) else 1.0
    yield exponent_verdict(view, claim, method, "compiler", view.plan, predicted, 0.5)
    if view.attached:
        resolution = process.RESOLUTION / unit if view.peak_ruler == "process" else 0.5
        yield exponent_verdict(view, claim, method, view.peak_ruler, "peak", predicted, resolution)


def exact_verdict(
    view: View, claim: str, method: str, quantity: str, formula: Callable[[int], int], words: str
) -> Verdict:
    """A count that must equal its formula at every size; the row shows the first size that does not, or the largest.

    Where the walk of the jaxpr took its trip counts from the schedule, it would only repeat the schedule: then
    executions must have been counted too, and must equal the formula.
    """
    rows = view.rows(method, "count", quantity)
    counted = rows["value"]
    executed = view.series(method, "count", f"executed {quantity}")
    blank = unmeasured(view, claim, method, "count", quantity)
    if len(counted) == 0:
        return blank
    from_schedule = rows["flags"].str.contains("schedule").any()
    if from_schedule and len(executed) == 0:
        return replace(blank, why="The trip counts are the schedule's own, and no execution was counted.")
    wrong = [n for n in counted.index if {counted[n], executed.get(n, counted[n])} != {formula(n)}]
    n = wrong[0] if wrong else counted.index[-1]
    value = float(executed.get(n, counted[n]))
    shown = f"{len(wrong)} of {len(counted)} sizes differ from" if wrong else f"All {len(counted)} sizes equal"
    depths = ", ".join(map(str, executed.index))
    ran = f" Trip counts are the schedule's; executions were counted at n = {depths}." if from_schedule else ""
    return replace(
        blank,
        quantity=f"{quantity} at n = {n}",
        predicted=float(formula(n)),
        measured=value,
        low=value,
        high=value,
        verdict="refuted" if wrong else "confirmed",
        points=len(counted),
        why=f"{shown} {words} exactly.{ran}",
    )
