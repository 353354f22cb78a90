"""What a compiler tells of the peak, read off the results: rows by what they are, by line and by shape."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from analysis import theory
from analysis.view import View

# What of the memory is there to be read again in the backward pass, or on its way there.
STORED = ("residual of a loop", "slots of a schedule", "value", "carry of a loop")


class Row(NamedTuple):
    """Bytes at the peak: what they are, the line that made them, of which shape, by which operations."""

    size: float
    what: str
    where: str
    shape: str
    operation: str


def rows(view: View, method: str, n: int) -> list[Row]:
    """The rows of a method at one size, largest first; nothing where no compiler told."""
    found = _of(view, method, n, "held")
    return [Row(float(size), *flags.split("; ")) for size, flags in zip(found["value"], found["flags"], strict=True)]


def over_time(view: View, method: str, n: int) -> Sequence[float]:
    """Temporary bytes over the program's time; nothing of a program with loops."""
    return [float(value) for value in _of(view, method, n, "alive")["value"]]


def _of(view: View, method: str, n: int, quantity: str) -> pd.DataFrame:
    frame = view.frame
    mine = frame[(frame["method"] == method) & (frame["ruler"] == "lines") & (frame["quantity"] == quantity)]
    mine = mine[mine[view.sweep] == n]
    order = mine["at"].str.replace(r"^.*=", "", regex=True).astype(int)
    return view.noted(mine.loc[order.sort_values().index].drop_duplicates("at", keep="last"))


def predicted(view: View, n: int) -> Mapping[str, float]:
    """Activations that each method is to store, by the lecture's account or by the policy's own."""
    segments = theory.sqrt_segments(n)
    found = {
        "vanilla": n,
        "vanilla_unrolled": n,
        "remat_whole": n,  # all are computed again, and then all are there
        "keep_nothing": n,  # what goes into each layer
        "keep_products": 2 * n,
        "keep_activations": n,  # what is kept of a layer goes into the next
        "keep_misnamed": n,
        "remat_segments": segments + -(-n // segments),  # what goes into each segment, and one segment's activations
        "remat_unrolled": segments + -(-n // segments),
    }
    slots = {name: view.series(name, "count", "slots").get(n) for name in view.methods}
    return {**found, **{name: float(count) for name, count in slots.items() if count is not None}}
