"""What programs take on devices, attached or not: memory by method and target, and how large a program fits."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.frame import Results
from analysis.view import View

DEPTHS = (144, 1024)  # those at which targets are compared


@dataclass(frozen=True)
class Planned:
    """What the compilers plan for a method at one depth, in activations, by target; None where it was not compiled."""

    method: str
    depth: int
    slots: float | None
    planned: tuple[float | None, ...]


def by_target(views: Sequence[View]) -> list[Planned]:
    """Planned memory by method and depth, a column for each of the views, which differ by target alone."""
    rows = []
    for depth in DEPTHS:
        for method in dict.fromkeys(name for view in views for name in view.frame["method"].unique()):
            planned = tuple(_at(view.planned(method), depth) for view in views)
            if any(value is not None for value in planned):
                rows.append(Planned(method, depth, _at(views[0].series(method, "count", "slots"), depth), planned))
    return rows


def _at(values: "pd.Series[float]", depth: int) -> float | None:
    return float(values[depth]) if depth in values.index else None


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
    """The largest size of a method's program that fits each target; ``beyond`` where larger ones were not tried."""

    method: str
    largest: tuple[tuple[int, bool] | None, ...]


def largest_fits(results: Results, study: str) -> tuple[list[str], str, list[Fits]]:
    """Targets, workload in words, and a row a method: the largest size that fits, by bisection on the compiler."""
    frame = results.frame
    found = frame[(frame["study"] == study) & (frame["ruler"] == "fit") & frame["quantity"].str.startswith("largest")]
    if len(found) == 0:
        return [], "", []
    targets = list(found["target"].unique())
    first = found.iloc[0]
    words = ", ".join(f"{name} {first[name]:.0f}" for name in ("width", "batch") if name in found)
    rows = []
    for method in found["method"].unique():
        mine = found[found["method"] == method].drop_duplicates("target", keep="last").set_index("target")
        largest = tuple(
            (int(mine["value"][target]), bool(mine["flags"][target])) if target in mine.index else None
            for target in targets
        )
        rows.append(Fits(str(method), largest))
    return targets, words, rows
