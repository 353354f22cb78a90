"""What compilers tell of the peak, read off the results: rows by what they are, by line and by shape."""

import re
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import pandas as pd

from analysis.view import View

MANY = re.compile(r"(?:(\d+) x )?(?:(\d+) (?:steps|slots) (?:of|in) )?")


class Row(NamedTuple):
    """Bytes at the peak: what they are, the line that made them, of which shape, by which operations."""

    size: float
    what: str
    where: str
    shape: str
    operation: str

    @property
    def each(self) -> float:
        """Bytes of one of its values."""
        found = MANY.match(self.shape)
        return self.size / prod(int(number) for number in found.groups() if number) if found else self.size


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
