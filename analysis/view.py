"""What claims and figures look at: the results of one study on one target, quantity by quantity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import exp, hypot, inf, log
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from adcost.rulers import clock
from adcost.targets import ANY, Target, named
from analysis.frame import Results, parameters


@dataclass(frozen=True)
class Traits:
    """What a study says of a method: see ``adcost.suite.vocabulary.Method``."""

    label: str
    form: str
    needs: Sequence[str]
    flags: Sequence[str]
    variant_of: str
    differentiates: bool = True


class Found(NamedTuple):
    """A measured value with the ends of its 95% interval, how many numbers it is of, and over how many processes.

    ``degrees`` are those of the Student's t that made the interval; without them, the processes less one.
    """

    value: float
    low: float
    high: float
    points: int = 1
    processes: int = 1
    degrees: int | None = None

    @property
    def inverted(self) -> "Found":
        """One over it."""
        low, high = (1 / end if end > 0 else inf for end in (self.high, self.low))
        return self._replace(value=1 / self.value, low=low, high=high)


def at(values: "pd.Series[float]", n: int) -> float | None:
    """The value of a series at a size; None if it has none there."""
    return float(values[n]) if n in values.index else None


def widened(found: Found, least: float, most: float) -> Found:
    """A ratio with an interval that has the error of what it is held against in it, given as factors of that."""
    below = log(found.value / found.low) if found.low > 0 else inf
    low = found.value * exp(-hypot(below, log(most)))
    return found._replace(low=low, high=found.value * exp(hypot(log(found.high / found.value), log(least))))


@dataclass(frozen=True)
class View:
    """The results of one study on one target, workload and origin, with short ways to ask for a quantity by size.

    Numbers of different machines, commits, versions of JAX or dtypes are never mixed. A study whose sizes span a grid
    has one view of all of them, without a sweep: ``along`` takes a slice.
    """

    results: Results
    study: str
    target: str
    workload: tuple[tuple[str, Any], ...] = ()  # the parameters that do not vary, as (width, 32), (batch, 1024)
    origin: tuple[tuple[str, str], ...] = ()  # as (machine, ...), (commit, ...), (jax, ...), (dtype, ...)
    sweep: str = "depth"  # the parameter that varies
    read: list[int] = field(default_factory=list, compare=False)  # ids of the rows that were asked for

    @cached_property
    def frame(self) -> pd.DataFrame:
        return self._mine(self.results.frame)

    @cached_property
    def missing(self) -> pd.DataFrame:
        return self._mine(self.results.missing)

    @cached_property
    def _quantities(self) -> Mapping[Any, Any]:
        return self.frame.groupby(["method", "ruler", "quantity", "at"]).indices

    def _mine(self, frame: pd.DataFrame) -> pd.DataFrame:
        if len(frame) == 0:
            return frame
        chosen = frame["target"].isin((self.target, ANY))
        for name, value in (("study", self.study), *self.workload, *self.origin):
            if name in frame:
                chosen &= frame[name] == value
        return frame[chosen]

    @property
    def grid(self) -> bool:
        """Do the study's sizes span a grid, of which ``along`` takes slices?"""
        return not self.workload and bool(self.told.get("grid"))

    @property
    def families(self) -> list[str]:
        """The families of functions in the results."""
        return [str(name) for name in self.frame["family"].dropna().unique()]

    @property
    def methods(self) -> list[str]:
        """The study's methods, as far as there are results or reasons why not, in the order in which they ran."""
        tables = [table["method"] for table in (self.frame, self.missing) if len(table)]
        return [str(name) for name in pd.concat(tables).unique()] if tables else []

    def along(self, sweep: str, **fixed: Any) -> "View":
        """The slice in which one parameter varies and these others are fixed."""
        asked = sweep, *sorted(fixed.items())
        if asked not in self._slices:
            self._slices[asked] = self._slice(sweep, fixed)
        return self._slices[asked]

    @cached_property
    def _slices(self) -> dict[Any, "View"]:
        return {}  # they are asked for again and again, and so is what is in them

    def _slice(self, sweep: str, fixed: Mapping[str, Any]) -> "View":
        narrowed = replace(self.results, frame=self.frame, missing=self.missing, timings=self.timings)
        return replace(self, results=narrowed, sweep=sweep, workload=(*self.workload, *fixed.items()))

    @cached_property
    def timings(self) -> pd.DataFrame:
        return self._mine(self.results.timings)

    @property
    def told(self) -> Mapping[str, Any]:
        """What the results say of the study besides numbers."""
        return self.results.studies.get(self.study, {})

    def traits(self, method: str) -> Traits | None:
        """What the study says of a method; None of one that it does not have."""
        found = self.told.get("methods", {}).get(method)
        return None if found is None else Traits(**found)

    def rows(self, method: str, ruler: str, quantity: str, at: str = "") -> pd.DataFrame:
        """A quantity by size, one row a size (the last source wins); ``at`` says which, of one that has an index."""
        asked = method, ruler, quantity, at
        if asked not in self._rows:
            self._rows[asked] = self._by_size(*asked)
        return self.noted(self._rows[asked])

    def asked(self, method: str, n: int) -> bool:
        """Was anything measured of a method at a size, or is there a reason why not?"""
        return n in self.asked_sizes(method)

    def asked_sizes(self, method: str) -> list[int]:
        """The sizes at which anything was asked of a method, measured or not."""
        tables = [table for table in (self.frame, self.missing) if len(table) and self.sweep in table]
        found = [table[self.sweep][table["method"] == method].dropna() for table in tables]
        return sorted({int(n) for sizes in found for n in sizes})

    def noted(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows, which count as read from now on."""
        if "id" in rows:
            self.read.extend(rows["id"])
        return rows

    def sizes(self, method: str, ruler: str, quantity: str) -> list[int]:
        """The sizes at which there is a quantity; none of its numbers counts as read."""
        before = len(self.read)
        found = list(self.rows(method, ruler, quantity).index)
        del self.read[before:]
        return found

    @cached_property
    def _rows(self) -> dict[tuple[str, str, str, str], pd.DataFrame]:
        return {}

    def _by_size(self, *asked: str) -> pd.DataFrame:
        chosen = self.frame.iloc[self._quantities.get(asked, [])]
        if asked[1] == "count":  # a bound is no number
            chosen = chosen.loc[[not _is_bound(flags) for flags in chosen["flags"]]]
        return self._last_of_a_size(chosen)

    def _last_of_a_size(self, chosen: pd.DataFrame) -> pd.DataFrame:
        if self.sweep not in chosen:  # no result has this parameter
            chosen = chosen.assign(**{self.sweep: np.nan})
        rows = chosen.dropna(subset=[self.sweep]).drop_duplicates(self.sweep, keep="last").sort_values(self.sweep)
        return rows.set_index(rows[self.sweep].astype(int))  # beside studies without this parameter it is of floats

    def series(self, method: str, ruler: str, quantity: str) -> "pd.Series[float]":
        return self.rows(method, ruler, quantity)["value"]

    def bounds(self, method: str, quantity: str) -> "pd.Series[float]":
        """A count by size, also where it is but a bound."""
        rows = self.frame.iloc[self._quantities.get((method, "count", quantity, ""), [])]
        return self.noted(self._last_of_a_size(rows))["value"]

    def indexed(self, method: str, ruler: str, quantity: str, index: str, **fixed: int) -> "pd.Series[float]":
        """A quantity by its index, as the error by ``probes``, other indices fixed (the last source wins)."""
        begin = "; ".join([*(f"{name}={value}" for name, value in fixed.items()), f"{index}="])
        frame = self.frame
        mine = frame[(frame["method"] == method) & (frame["ruler"] == ruler) & (frame["quantity"] == quantity)]
        mine = self.noted(mine[mine["at"].str.startswith(begin)])
        found = pd.Series(mine["value"].to_numpy(float), index=mine["at"].str.removeprefix(begin).astype(int))
        return found[~found.index.duplicated(keep="last")].sort_index()

    def activations(self, method: str, ruler: str, quantity: str) -> "pd.Series[float]":
        """A quantity in bytes, in activations. Peaks are without what any method must hold beside its temporaries."""
        values = self.series(method, ruler, quantity)
        if quantity == "peak":
            values = values - self.series(method, "compiler", "outputs")
            if ruler == "compiler":  # a TPU's compiler counts the arguments too
                values = values - self.series(method, "compiler", "arguments")
        return (values / self.series(method, "count", "activation")).dropna()

    @property
    def attached(self) -> bool:
        """Did programs run on this target, or was it a compiler alone?"""
        return self._known is None or self._known.attached

    @property
    def devices(self) -> int:
        """Of how many devices is the target?"""
        return 1 if self._known is None else self._known.devices

    @cached_property
    def _known(self) -> Target | None:
        try:
            return named(self.target)
        except ValueError:  # of results of another version
            return None

    @property
    def platform(self) -> str:
        """What kind of device the target is: ``cpu``, ``cuda`` or ``tpu``."""
        return "cpu" if self._known is None else self._known.platform

    @property
    def eps(self) -> float:
        """The rounding unit of the view's numbers."""
        return float(np.finfo(self.dtype).eps)

    @property
    def dtype(self) -> str:
        return dict(self.origin).get("dtype", "float32")

    @property
    def peak_ruler(self) -> str:
        """The ruler that takes a program's peak where it runs."""
        return "device" if self.platform == "cuda" else "process"

    @property
    def plan(self) -> str:
        """The compiler's quantity that tells what a program takes besides its arguments and its result."""
        return "peak" if self.platform == "tpu" else "temp"

    def flops(self, *methods: str) -> list["pd.Series[float]"]:
        """Flops of methods by size, in the compiled programs if all of them tell, otherwise as they are written."""
        compiled = [self.series(method, "compiler", "flops") for method in methods]
        return compiled if all(map(len, compiled)) else [self.series(method, "count", "flops") for method in methods]

    def planned(self, method: str) -> "pd.Series[float]":
        """What the compiler plans by depth, in activations."""
        return self.activations(method, "compiler", self.plan)

    def planned_bytes(self, method: str) -> "pd.Series[float]":
        """What the compiler plans besides arguments and outputs, in bytes by size."""
        values = self.series(method, "compiler", self.plan)
        if self.platform == "tpu":  # its peak has both in it
            values = values - self.series(method, "compiler", "arguments") - self.series(method, "compiler", "outputs")
        return values.dropna()

    def reasons(self, ruler: str, *methods: str) -> str:
        """Why methods have no number by a ruler, in one sentence: this ruler's gap, or one that takes all numbers."""
        missing = self.missing
        if ruler in ("clock", "process", "device") and not self.attached:
            return f"{self.target} is a compiler here: programs do not run on it, and it gives no such number."
        for method in methods:
            for gap in (ruler, "extra", "compiler", "check"):
                mine = missing[(missing["method"] == method) & (missing["ruler"] == gap)] if len(missing) else missing
                if len(mine):
                    return f"{method}: {mine.iloc[0]['reason']}."
            counted = self.frame[(self.frame["method"] == method) & (self.frame["ruler"] == "count")]["flags"]
            bounds = [flags for flags in counted if _is_bound(flags)]
            if ruler == "count" and bounds:
                return f"{method}: its count is a bound ({bounds[0]})."
        return "No result that was read holds this number."

    def logs(self, method: str, other: str, n: int) -> list[np.ndarray]:
        """Logarithms of the ratios of two methods' times at one size, by process and round."""
        timings = self.timings
        mine = timings[timings[self.sweep] == n] if len(timings) else timings
        pair = [mine[mine["method"] == name] for name in (method, other)] if len(mine) else []
        if not pair or any(len(rows) == 0 for rows in pair):
            return []
        first, second = (rows.iloc[-1] for rows in pair)
        return clock.log_ratios(first["samples"], second["samples"]) if first["seeds"] == second["seeds"] else []

    def compared(self, method: str, other: str, n: int) -> Found | None:
        """The ratio of two methods' times at one size, paired directly; None if they were not timed together."""
        if method == other:
            return Found(1.0, 1.0, 1.0)
        logs = self.logs(method, other, n)
        if not logs:
            return None
        return _timed(*clock.exponentiated(clock.over_processes(logs).interval), len(logs))

    def slower(self, method: str, other: str, n: int) -> bool:
        """Was a method slower than another in every round?"""
        logs = self.logs(method, other, n)
        return bool(logs) and all(bool((found > 0).all()) for found in logs)

    def timed(self, method: str, quantity: str, n: int) -> Found | None:
        """A time or a ratio of times at one size with its interval; None if it was not measured."""
        rows = self.rows(method, "clock", quantity)
        if n not in rows.index:
            return None
        value, low, high = (float(rows[column][n]) for column in ("value", "low", "high"))
        return _timed(value, low, high, int(rows["processes"][n]))


def _is_bound(flags: str) -> bool:
    """Does a count's flag say that it is one?"""
    return "at least:" in flags or "at most:" in flags


def _timed(value: float, low: float, high: float, processes: int) -> Found:
    """What was timed: the rounds of one process alone bound nothing that another process would say."""
    return Found(value, low, high, processes=processes) if processes > 1 else Found(value, 0.0, inf)


def views(results: Results) -> list[View]:
    """A view for each study, target, workload and origin in the results.

    Of a study's parameters the one with the most values is swept; the others, fixed, are its workload. Where sizes span
    a grid (``Study.together``) nothing is fixed.
    """
    everything = pd.concat([table for table in (results.frame, results.missing) if len(table)])
    everything = everything[(everything["target"] != ANY) & (everything["ruler"] != "fit")]
    origin = [name for name in ("dtype", "machine", "commit", "jax") if name in everything]
    found = []
    for study, mine in everything.groupby("study", sort=False):
        params = [name for name in parameters(mine) if mine[name].notna().any()]
        sweep = max(params, key=lambda name: mine[name].nunique(), default="depth")
        grid = bool(results.studies.get(str(study), {}).get("grid"))
        fixed = [name for name in params if name != sweep and not grid]
        for target, *values in mine[["target", *fixed, *origin]].drop_duplicates().to_numpy():
            workload = tuple(zip(fixed, values[: len(fixed)], strict=True))
            came_from = tuple(zip(origin, values[len(fixed) :], strict=True))
            found.append(View(results, str(study), target, workload, came_from, sweep))
    return found


def differences(view: View, among: Sequence[View]) -> str:
    """What tells a view from others of its study besides the target, in words; empty if nothing does."""
    facts = [dict((*other.workload, *other.origin)) for other in among if other.study == view.study]
    mine = dict((*view.workload, *view.origin))
    apart = [name for name in mine if any(other.get(name) != mine[name] for other in facts)]
    return ", ".join(f"{name} {mine[name]}" for name in apart)


def plainly(value: Any) -> str:
    """A parameter's value for people: numbers whole."""
    return value if isinstance(value, str) else f"{value:.0f}"
