"""What programs take on devices, attached or not: memory by method and target, and how large a program fits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.frame import Results, parameters
from analysis.view import View, plainly


@dataclass(frozen=True)
class Planned:
    """What the compilers plan for a method at one size, in activations, by target; None where it was not compiled."""

    method: str
    depth: int
    slots: float | None
    planned: tuple[float | None, ...]


def by_target(views: Sequence[View]) -> list[Planned]:
    """Planned memory by method, a column for each of the views, which differ by target alone.

    At the largest size at which most methods were compiled, and at the largest of all.
    """
    methods = list(dict.fromkeys(name for view in views for name in view.methods))
    planned = {method: [view.planned(method) for view in views] for method in methods}
    compiled = Counter(n for found in planned.values() for n in {n for values in found for n in values.index})
    shown = sorted({max(compiled, key=lambda n: (compiled[n], n)), max(compiled)}) if compiled else []
    return [
        Planned(method, n, _at(views[0].series(method, "count", "slots"), n), tuple(_at(values, n) for values in found))
        for n in shown
        for method, found in planned.items()
        if any(n in values.index for values in found)
    ]


def _at(values: "pd.Series[float]", n: int) -> float | None:
    return float(values[n]) if n in values.index else None


@dataclass(frozen=True)
class Seconds:
    """Compile seconds a case on one target: the median, the largest, and of how many cases."""

    target: str
    median: float
    most: float
    cases: int


def compile_seconds(views: Sequence[View]) -> list[Seconds]:
    """How long the compilers take for a case."""
    rows = []
    for view in views:
        seconds = view.frame[view.frame["ruler"] == "compile"]["value"]
        if len(seconds):
            rows.append(Seconds(view.target, float(seconds.median()), float(seconds.max()), len(seconds)))
    return rows


@dataclass(frozen=True)
class Fits:
    """The largest value of a parameter that fits, of one workload; a row a method: by target the value, and whether
    larger ones were not tried.
    """

    parameter: str
    workload: str
    targets: list[str]
    rows: list[tuple[str, tuple[tuple[int, bool] | None, ...]]]


def largest_fits(results: Results, study: str) -> list[Fits]:
    """What was sought of a study, a table a workload."""
    frame = results.frame
    asked = frame["quantity"].str.extract(r"^largest (\w+)$")[0]
    mine = frame.assign(parameter=asked)[(frame["study"] == study) & (frame["ruler"] == "fit") & asked.notna()]
    names = [name for name in parameters(mine) if name != "parameter" and mine[name].notna().any()]
    found = []
    for (parameter, *values), rows in mine.groupby(["parameter", *names], sort=False):
        words = ", ".join(f"{name} {plainly(value)}" for name, value in zip(names, values, strict=True) if value != 0)
        targets = list(rows["target"].unique())
        found.append(
            Fits(str(parameter), words, targets, [_row(rows, method, targets) for method in rows["method"].unique()])
        )
    return found


def _row(rows: pd.DataFrame, method: str, targets: Sequence[str]) -> tuple[str, tuple[tuple[int, bool] | None, ...]]:
    mine = rows[rows["method"] == method].drop_duplicates("target", keep="last").set_index("target")
    return method, tuple(
        (int(mine["value"][target]), bool(mine["flags"][target])) if target in mine.index else None
        for target in targets
    )
