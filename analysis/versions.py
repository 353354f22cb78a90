"""What changed between versions of JAX: the same case in two versions, its memory, evaluations and times.

Memory and evaluations are exact, so any difference is a change. A time has changed if the intervals do not touch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from typing import Any, NamedTuple, cast

import pandas as pd
from packaging.version import InvalidVersion, Version

from analysis.frame import Results, parameters
from analysis.view import plainly

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

    @property
    def exact(self) -> bool:
        return any(self.quantity == quantity for _, quantity in EXACT)

    @property
    def factor(self) -> float:
        """The largest over the smallest of its values."""
        known = [value for value in self.values if value]
        return max(known) / min(known) if known else 1.0


def compared(results: Results) -> tuple[list[str], list[Row]]:
    """The versions, the oldest first, and a row for each quantity that at least two of them have.

    What changed comes first, exact quantities before noisy ones, the largest change before smaller ones. Planned memory
    is in activations where the size of one is known.
    """
    frame = results.frame[results.frame["flags"].str.contains("asv")]
    versions = sorted(filter(_is_version, frame["jax"].unique()), key=Version)
    if len(versions) < 2:
        return [], []
    sizes = parameters(frame)
    identity = ["study", "method", *sizes, "dtype", "machine"]
    facts = results.frame[results.frame["quantity"] == "activation"]
    activations = {_known(key): rows["value"].iloc[-1] for key, rows in facts.groupby(identity, dropna=False)}
    rows = []
    for ruler, quantity in (*EXACT, *NOISY):
        chosen = frame[(frame["ruler"] == ruler) & (frame["quantity"] == quantity) & frame["jax"].isin(versions)]
        for key, group in chosen.groupby(identity, dropna=False, sort=False):
            mine = group.drop_duplicates("jax", keep="last").set_index("jax")
            if len(mine) < 2:
                continue
            case = dict(zip(identity, cast(tuple[Any, ...], key), strict=True))
            activation = float(activations.get(_known(key), 0.0)) if quantity == "temp" else 0.0
            scale, unit = (activation, "activations") if activation else (1.0, str(mine["unit"].iloc[0]))
            values = tuple(float(mine["value"][v]) / scale if v in mine.index else None for v in versions)
            changes = "; ".join(_changes(mine, [v for v in versions if v in mine.index], (ruler, quantity) in EXACT))
            size = ", ".join(f"{name} {plainly(case[name])}" for name in sizes if pd.notna(case[name]))
            rows.append(Row(case["study"], case["method"], size, quantity, unit, values, changes))
    return versions, sorted(rows, key=lambda row: (not row.changes, not row.exact, -log(row.factor)))


def _known(key: Any) -> tuple[Any, ...]:
    """The parameters that a case has, of a group's key."""
    return tuple(value for value in key if pd.notna(value))


def in_brief(versions: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """A sentence a step between versions: how many planned memories changed, and the largest changes."""
    found = []
    planned = [row for row in rows if row.quantity == "temp"]
    for k, (old, new) in enumerate(pairwise(versions)):
        steps = [Step(row, *row.values[k : k + 2]) for row in planned]
        both = [step for step in steps if step.before and step.after]
        changed = sorted((step for step in both if step.before != step.after), key=lambda step: -step.size)
        largest = "; ".join(f"{s.row.study} {s.row.method} {s.before:.1f} to {s.after:.1f}" for s in changed[:6])
        said = f"JAX {old} to {new}: {len(changed)} of {len(both)} planned memories changed"
        units = ", ".join(dict.fromkeys(step.row.unit for step in changed))
        found.append(f"{said} ({units}): {largest}." if changed else f"{said}.")
    return found


class Step(NamedTuple):
    """A quantity before and after a step between versions; None where it is not known."""

    row: Row
    before: float | None
    after: float | None

    @property
    def size(self) -> float:
        """How large the change is, as a logarithm."""
        return abs(log(self.after / self.before)) if self.before and self.after else 0.0


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
