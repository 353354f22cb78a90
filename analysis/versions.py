"""What changed between versions of JAX: the same case in two versions, its memory, evaluations and times.

Memory and evaluations are exact, so any difference is a change. A time has changed if the intervals do not touch.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import pandas as pd
from packaging.version import InvalidVersion, Version

from analysis.frame import Results, parameters

EXACT = (("compiler", "temp"), ("count", "evaluations"))
NOISY = (("clock", "time"), ("compile", "compile time"))


@dataclass(frozen=True)
class Row:
    """A quantity of one case by version; ``changes`` names the steps in which it changed beyond noise."""

    study: str
    method: str
    size: str
    quantity: str
    unit: str
    values: tuple[float | None, ...]
    changes: str


def compared(results: Results) -> tuple[list[str], list[Row]]:
    """The versions, the oldest first, and a row for each quantity that at least two of them have."""
    frame = results.frame[results.frame["flags"].str.contains("asv")]
    versions = sorted(filter(_is_version, frame["jax"].unique()), key=Version)
    if len(versions) < 2:
        return [], []
    sizes = parameters(frame)
    identity = ["study", "method", *sizes, "dtype", "machine"]
    rows = []
    for ruler, quantity in (*EXACT, *NOISY):
        chosen = frame[(frame["ruler"] == ruler) & (frame["quantity"] == quantity) & frame["jax"].isin(versions)]
        for key, group in chosen.groupby(identity, dropna=False, sort=False):
            mine = group.drop_duplicates("jax", keep="last").set_index("jax")
            if len(mine) < 2:
                continue
            case = dict(zip(identity, cast(tuple[Any, ...], key), strict=True))
            values = tuple(float(mine["value"][v]) if v in mine.index else None for v in versions)
            changes = "; ".join(_changes(mine, [v for v in versions if v in mine.index], (ruler, quantity) in EXACT))
            size = ", ".join(f"{name} {case[name]:.0f}" for name in sizes if pd.notna(case[name]))
            rows.append(Row(case["study"], case["method"], size, quantity, mine["unit"].iloc[0], values, changes))
    return versions, rows


def _changes(mine: pd.DataFrame, versions: list[str], exact: bool) -> list[str]:
    found = []
    for old, new in pairwise(versions):
        before, after = mine.loc[old], mine.loc[new]
        apart = before["high"] < after["low"] or after["high"] < before["low"]
        if (exact and before["value"] != after["value"]) or (not exact and apart):
            found.append(f"{old} to {new}: {100 * (after['value'] / before['value'] - 1):+.0f}%")
    return found


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True
