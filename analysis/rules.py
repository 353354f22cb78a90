"""Tests of kinds that several studies put: exponents of a quantity by size, and counts that equal their formula."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf

import numpy as np
import pandas as pd
from scipy import stats

from adcost.rulers import process
from analysis import fit
from analysis.verdict import EXPONENT_MARGIN, Noise, Test, around, exactly
from analysis.view import Found, View

MARGIN = "a tenth tells exponents apart that differ by a half, under a fixed cost"


def exponent(
    test: Test,
    values: "pd.Series[float]",
    unit: str,
    n: str = "n",
    resolution: float = 0.0,
    censored: float = 0.0,
) -> Test:
    """The exponent of a quantity by size, with the test's prediction in the middle of its band.

    Growth or fall of less than ``resolution`` is none. Values below ``censored`` are what the ruler cannot tell from
    nothing: they are left out. A quantity that is to fall with size is fitted by its inverse.
    """
    assert test.predicted is not None
    banded = replace(test, band=around(test.predicted, EXPONENT_MARGIN, MARGIN), linear=True)
    values = values[values > 0]  # of nothing there is no power
    known = values[values >= censored]
    dropped = len(values) - len(known)
    left_out = f" Left out, below the ruler's resolution: {dropped}." if dropped else ""
    if len(values) == 0:
        return banded
    falling = test.predicted < 0
    try:
        fitted = _fitted(known, falling, resolution)
    except ValueError as error:
        return replace(banded, gap=f"{error}.{left_out}")
    first, last = known.index[0], known.index[-1]
    why = f"From {known.iloc[0]:.4g} {unit} at {n} = {first} to {known.iloc[-1]:.4g} at {n} = {last}"
    shape = f"{fitted.a:.3g} + {fitted.b:.3g} {n}^{fitted.value:.3f}"
    why += f"; it {fitted.note} {unit}." if fitted.note else f": {f'1 / ({shape})' if falling else shape}."

    def again(truth: float, noise: Noise) -> Found:
        powers = (known.index.to_numpy(float) / float(np.median(known.index))) ** truth
        drawn = known.median() * powers * noise.factors(len(known))
        return _of_the_exponent(_fitted(pd.Series(drawn, known.index), falling, resolution), falling)

    return replace(banded, found=_of_the_exponent(fitted, falling), why=why + left_out, again=again)


def _fitted(values: "pd.Series[float]", falling: bool, resolution: float) -> fit.Exponent:
    return fit.exponent(list(values.index), list(1 / values if falling else values), resolution)


def _of_the_exponent(fitted: fit.Exponent, falling: bool) -> Found:
    found = Found(fitted.value, fitted.low, fitted.high, fitted.points, degrees=fitted.degrees)
    return found._replace(value=-found.value, low=-found.high, high=-found.low) if falling else found


def share(test: Test, right: int, of: int) -> Test:
    """How many of so many are right, with Wilson's interval."""

    def found(right: int) -> Found:
        interval = stats.binomtest(right, of).proportion_ci(method="wilson")
        return Found(right / of, float(interval.low), float(interval.high), of)

    def again(truth: float, noise: Noise) -> Found:
        return found(int(noise.rng.binomial(of, truth)))

    return replace(test, found=found(right), linear=True, again=again)


def memory_exponents(view: View, method: str, predicted: float) -> Iterator[Test]:
    """The exponent of memory in n by the compiler's plan and, where programs run, by their peak."""
    planned = Test(method, "compiler", f"exponent of {view.plan} in n", predicted=predicted)
    yield exponent(planned, view.planned(method), "activations", resolution=0.5)
    if view.attached:
        activation = view.series(method, "count", "activation")
        unit = float(activation.iloc[0]) if len(activation) else 1.0
        resolution = process.RESOLUTION / unit if view.peak_ruler == "process" else 0.5
        peak = Test(method, view.peak_ruler, "exponent of peak in n", predicted=predicted)
        values = view.activations(method, view.peak_ruler, "peak")
        censored = resolution if view.peak_ruler == "process" else -inf
        yield exponent(peak, values, "activations", resolution=resolution, censored=censored)


def exact_count(view: View, method: str, quantity: str, formula: Callable[[int], int], words: str) -> Test:
    """A count that must equal its formula at every size; the row shows the first size that does not, or the largest.

    Where the walk of the jaxpr took its trip counts from the schedule, it would only repeat the schedule: then
    executions must have been counted too, and must equal the formula.
    """
    rows = view.rows(method, "count", quantity)
    counted = rows["value"]
    executed = view.series(method, "count", f"executed {quantity}")
    test = Test(method, "count", quantity)
    if len(counted) == 0:
        return test
    from_schedule = rows["flags"].str.contains("schedule").any()
    if from_schedule and len(executed) == 0:
        return replace(test, gap="The trip counts are the schedule's own, and no execution was counted.")
    wrong = [n for n in counted.index if {counted[n], executed.get(n, counted[n])} != {formula(n)}]
    n = wrong[0] if wrong else counted.index[-1]
    due = float(formula(n))
    value = next((float(v) for v in (counted[n], executed.get(n, counted[n])) if v != due), due)  # a wrong one shows
    shown = f"{len(wrong)} of {len(counted)} sizes differ from" if wrong else f"All {len(counted)} sizes equal"
    depths = ", ".join(map(str, executed.index))
    ran = f" Trip counts are the schedule's; executions were counted at n = {depths}." if from_schedule else ""
    found, why = exact(value, len(counted)), f"{shown} {words} exactly.{ran}"
    return replace(test, at=f"n={n}", predicted=due, band=exactly(due), found=found, why=why)


def exact(value: float, points: int = 1) -> Found:
    """A number without error."""
    return Found(value, value, value, points)
