"""What a setting of JAX changes: methods beside the same ones under other flags, in bytes, flops, seconds and time."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.frame import parameters
from analysis.style import Table, filled
from analysis.view import View, plainly

CHANGED = 0.01  # planned memory that differs by less is taken for the same in the caption


def table(view: View) -> Table | None:
    """A row for each method that is a variant of another, at each size that both have; None where there is none."""
    pairs = {name: traits.variant_of for name in _names(view) if (traits := view.traits(name)) and traits.variant_of}
    sizes = [name for name in parameters(view.frame) if view.frame[name].notna().any()]
    rows, changed = [], []
    for variant, base in pairs.items():
        mine, other = (dict(list(_of(view.frame, name).groupby(sizes))) if sizes else {} for name in (variant, base))
        for size in mine:
            if size in other:
                row = _row(view, base, mine[size], other[size])
                words = ", ".join(f"{name} {plainly(value)}" for name, value in zip(sizes, size, strict=True))
                rows.append([variant, words, *row.values()])
                changed += [f"{variant} ({words})"] if _planned_apart(view, mine[size], other[size]) else []
    rows += [[variant, "", f"not measured: {reason}"] for variant, reason in _refused(view, list(pairs)).items()]
    if not rows:
        return None
    width = max(len(row) for row in rows)
    head = (
        "method", "size", f"{view.plan} (MiB)", "the same by default", "flops / default", "compile (s)",
        "compile by default (s)", "time / default",
    )  # fmt: skip
    said = f"Planned memory differs by more than {CHANGED:.0%}: " + (", ".join(changed) or "nowhere") + "."
    return filled(Table(_title(view, pairs), said, head, [row + [""] * (width - len(row)) for row in rows]))


def _names(view: View) -> list[str]:
    found = [view.frame["method"]] + ([view.missing["method"]] if len(view.missing) else [])
    return [str(name) for name in pd.concat(found).unique()]


def _title(view: View, pairs: Mapping[str, str]) -> str:
    flags = dict.fromkeys(flag for name in pairs if (traits := view.traits(name)) for flag in traits.flags)
    return f"What {' and '.join(flags)} changes"


def _of(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    return frame[frame["method"] == method]


def _value(rows: pd.DataFrame, ruler: str, quantity: str) -> Any:
    found = rows[(rows["ruler"] == ruler) & (rows["quantity"] == quantity)]
    return None if len(found) == 0 else found.iloc[-1]


def _row(view: View, base: str, mine: pd.DataFrame, other: pd.DataFrame) -> dict[str, str]:
    planned, before = (_value(rows, "compiler", view.plan) for rows in (mine, other))
    flops, by_default = (_value(rows, "count", "flops") for rows in (mine, other))
    seconds, earlier = (_value(rows, "compile", "compile time") for rows in (mine, other))
    ratio = _value(mine, "clock", f"time / {base}")
    return {
        "planned": _words(planned, 2**-20, "{:.2f}"),
        "before": _words(before, 2**-20, "{:.2f}"),
        "flops": "" if flops is None or by_default is None else f"{flops['value'] / by_default['value']:.3f}",
        "seconds": _words(seconds, 1, "{:.2f}"),
        "earlier": _words(earlier, 1, "{:.2f}"),
        "time": "" if ratio is None else "{:.2f} [{:.2f}, {:.2f}]".format(*ratio[["value", "low", "high"]]),
    }


def _words(row: Any, scale: float, form: str) -> str:
    return "" if row is None else form.format(row["value"] * scale)


def _planned_apart(view: View, mine: pd.DataFrame, other: pd.DataFrame) -> bool:
    planned, before = (_value(rows, "compiler", view.plan) for rows in (mine, other))
    if planned is None or before is None or not before["value"]:
        return False
    return bool(abs(planned["value"] / before["value"] - 1) > CHANGED)


def _refused(view: View, variants: list[str]) -> dict[str, str]:
    """Why variants have no numbers, a reason each."""
    missing = view.missing
    if len(missing) == 0:
        return {}
    mine = missing[missing["method"].isin(variants)].drop_duplicates("method")
    return dict(zip(mine["method"], mine["reason"], strict=True))
