"""Where forward mode stops winning: the map of costs over inputs and outputs, its boundary, advice held against it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize

from adcost.modes import Mode, advised
from analysis import theory
from analysis.fit import Array
from analysis.view import View

RESAMPLES = 200


@dataclass(frozen=True)
class Cell:
    """jacfwd over jacrev at one number of inputs d and outputs m; with the interval of the clock."""

    d: int
    m: int
    ratio: float
    low: float
    high: float

    @property
    def faster(self) -> Mode:
        """The mode that won, or ``either`` if none did beyond the interval."""
        return "forward" if self.high < 1 else "reverse" if self.low > 1 else "either"


def families(view: View) -> list[str]:
    """The families of which there is a map over inputs and outputs."""
    return [name for name in view.families if name in theory.CROSSOVER]


def cells(view: View, family: str, depth: int, ruler: str) -> list[Cell]:
    """The map of one family by one ruler: ``count`` (flops), ``compiler`` (planned temp) or ``clock`` (time)."""
    mine = view.along("inputs", family=family, depth=depth)
    found = []
    for m in sorted(mine.frame["outputs"].dropna().unique()):
        line = mine.along("inputs", outputs=m)
        found += [Cell(int(d), int(m), *values) for d, values in _ratios(line, ruler)]
    return found


def _ratios(line: View, ruler: str) -> Iterator[tuple[int, tuple[float, float, float]]]:
    if ruler == "clock":
        for d in line.rows("jacfwd", "clock", "time / jacrev").index:
            found = line.timed("jacfwd", "time / jacrev", int(d))
            assert found is not None
            yield int(d), found[:3]
        return
    quantity = "flops" if ruler == "count" else line.plan
    forward, reverse = (line.series(method, ruler, quantity) for method in ("jacfwd", "jacrev"))
    ratios = (forward / reverse.where(reverse > 0)).dropna()
    for d, ratio in zip(ratios.index, ratios, strict=True):
        yield int(d), (float(ratio),) * 3


@dataclass(frozen=True)
class Boundary:
    """ratio = (a + d) / (a' + c m): forward mode wins below d = c m + a' - a. The interval is one of c."""

    c: float
    low: float
    high: float
    a: float
    b: float
    cells: int

    def at(self, m: float) -> float:
        """The number of inputs at which both cost the same."""
        return self.c * m + self.b - self.a

    def ratio(self, d: Array, m: Array) -> Array:
        """jacfwd over jacrev."""
        return (self.a + d) / (self.b + self.c * m)


def boundary(found: list[Cell]) -> Boundary:
    """Fit the cells' ratios in relative error; bootstrap over the cells.

    Forward mode costs a pass for the values and one for each input, reverse mode a pass for the values and c for each
    output; a and a' hold the first and what a call costs besides.

    Raises
    ------
    ValueError
        With fewer than eight cells.
    """
    if len(found) < 8:
        raise ValueError(f"a boundary needs 8 cells, there are {len(found)}")
    return _boundary(tuple((cell.d, cell.m, cell.ratio) for cell in found))


@cache
def _boundary(found: tuple[tuple[float, ...], ...]) -> Boundary:
    return resampled(np.array(found), RESAMPLES)


def resampled(table: Array, resamples: int) -> Boundary:
    """The boundary of a table of d, m and ratio."""
    c, a, b = _fitted(table)
    rng = np.random.default_rng(0)
    picks = (table[rng.integers(len(table), size=len(table))] for _ in range(resamples))
    low, high = np.quantile([_fitted(pick)[0] for pick in picks], [0.025, 0.975])
    return Boundary(c, min(c, float(low)), max(c, float(high)), a, b, len(table))


def _fitted(table: Array) -> tuple[float, float, float]:
    d, m, ratio = table.T

    def error(logs: Array) -> Array:
        c, a, b = np.exp(logs)
        return np.log(a + d) - np.log(b + c * m) - np.log(ratio)

    bounds = (np.log([1e-2, 1e-6, 1e-6]), np.log([1e2, 1e6, 1e6]))
    c, a, b = np.exp(optimize.least_squares(error, np.log([1.0, 1.0, 1.0]), bounds=bounds, loss="soft_l1").x)
    return float(c), float(a), float(b)


@dataclass(frozen=True)
class Held:
    """Advice from the program's text held against the clock, a cell each."""

    family: str
    d: int
    m: int
    advice: Mode
    measured: Mode

    @property
    def outcome(self) -> str:
        """``right``, ``wrong``, or who could not tell."""
        if "either" in (self.advice, self.measured):
            return "too close to call"
        return "right" if self.advice == self.measured else "wrong"


def advice_held(view: View, depth: int) -> list[Held]:
    """The advice of ``which_mode`` for every cell of the maps that was timed."""
    rows = []
    for family in families(view):
        counted = {(cell.d, cell.m): cell.ratio for cell in cells(view, family, depth, "count")}
        for cell in cells(view, family, depth, "clock"):
            if (cell.d, cell.m) in counted:
                advice = advised(counted[cell.d, cell.m], 1.0)
                rows.append(Held(family, cell.d, cell.m, advice, cell.faster))
    return rows
