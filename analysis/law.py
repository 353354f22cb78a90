"""The law of time with traffic: what is computed again costs time, and what is not stored saves some.

T / T_plain = phi E / n + beta + omega S / S_plain: phi is the forward pass's share of plain backprop's time, E / n the
evaluations a layer, S the planned memory. Plain backprop itself has E = n and S = S_plain, so that beta = 1 - phi -
omega; omega is fixed beforehand by one method that takes little memory, and nothing is fitted to the methods that the
law is then held against.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from analysis.rules import share
from analysis.verdict import Cause, Test, at_least
from analysis.view import View

NEAR = 0.15  # of the predicted time
LITTLE = 0.8  # of plain backprop's memory: more does not fix what memory costs
SHARE = 0.95  # of the rows that are to be so near


@dataclass(frozen=True)
class Row:
    """One method at one size: its time over that of plain backprop, by the law and as it was measured."""

    method: str
    n: int
    predicted: float
    by_evaluations: float
    measured: float
    omega: float

    @property
    def off(self) -> float:
        """Measured over predicted, less 1."""
        return self.measured / self.predicted - 1


def rows(view: View, plain: str, fixed_by: str, evaluations: Mapping[str, "pd.Series[float]"], least: int) -> list[Row]:
    """The law held against every method for which evaluations are given, at each size from ``least`` on."""
    if fixed_by not in evaluations:
        return []
    forward = view.series(plain, "clock", "time / forward")
    stored = {method: view.planned_bytes(method) for method in (plain, fixed_by, *evaluations)}
    times = {method: view.series(method, "clock", f"time / {plain}") for method in (fixed_by, *evaluations)}
    found = []
    for method in evaluations:
        if method in (plain, fixed_by, "forward"):
            continue
        series = (
            forward,
            *(stored[name] for name in (plain, fixed_by, method)),
            *(times[name] for name in (fixed_by, method)),
        )
        known = set.intersection(
            *(set(values.index) for values in (*series, evaluations[method], evaluations[fixed_by]))
        )
        for n in sorted(n for n in known if n >= least):
            phi = 1 / float(forward[n])
            shares = {name: float(stored[name][n] / stored[plain][n]) for name in (fixed_by, method)}
            if shares[fixed_by] > LITTLE:
                continue  # it says nothing of what memory costs
            extra = phi * (float(evaluations[fixed_by][n]) - 1)
            omega = (1 + extra - float(times[fixed_by][n])) / (1 - shares[fixed_by])
            by_evaluations = 1 + phi * (float(evaluations[method][n]) - 1)
            predicted = by_evaluations - omega * (1 - shares[method])
            found.append(Row(method, int(n), predicted, by_evaluations, float(times[method][n]), omega))
    return found


def cause(found: list[Row], method: str) -> Cause:
    """Why a method is faster than its evaluations say: measured where the law with traffic is met at all its sizes."""
    mine = [row for row in found if row.method == method]
    if mine and all(abs(row.off) <= NEAR for row in mine):
        met = f"with a term for that the law is met within {NEAR:.0%}."
        return Cause("measured", f"What is not stored need not be written and read: {met}", "below")
    return Cause("likely", "What is not stored need not be written and read.", "below")


def put(view: View, found: list[Row], plain: str, fixed_by: str, at: str = "") -> Iterator[Test]:
    """How many rows are as near to the law as it says; beside it, how many to the law of evaluations alone."""
    quantity = f"share of methods and sizes within {NEAR:.0%} of the law with traffic"
    band = at_least(SHARE, "one in twenty may be off: what a call costs, and caches, are not in the law")
    gap = view.reasons("clock", plain, fixed_by, "forward")
    test = Test(f"against {plain}", "clock", quantity, band, at=at, beside=1.0, gap=gap)
    if not found:
        yield test
        return
    near = sum(abs(row.off) <= NEAR for row in found)
    alone = sum(abs(row.measured / row.by_evaluations - 1) <= NEAR for row in found) / len(found)
    worst = max(found, key=lambda row: abs(row.off))
    omegas = sorted(row.omega for row in found)
    why = (
        f"Of {len(found)} rows; omega, fixed by {fixed_by}, from {omegas[0]:.2f} to {omegas[-1]:.2f}; the farthest is "
        f"{worst.method} at {worst.n}: {worst.measured:.2f} where {worst.predicted:.2f} is predicted. By evaluations "
        f"alone {alone:.0%} are as near."
    )
    yield replace(share(test, near, len(found)), why=why)
