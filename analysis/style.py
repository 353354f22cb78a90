"""One look for all figures: Okabe-Ito colours, a marker and a label besides the colour, units on every axis."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

# Okabe and Ito, "Color universal design" (2008): told apart by the colour-blind, and in grey by their markers.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D3B"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
GREY = "#9a9a9a"

SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # each text of a figure names them
    "axes.axisbelow": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.markersize": 5,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",  # text stays text: to be searched, and a third of the bytes
    "svg.hashsalt": "autodiff-benchmarks",  # the same picture gives the same file
}


@contextmanager
def styled() -> Iterator[None]:
    with mpl.rc_context(cast(Any, SETTINGS)):
        yield


@dataclass(frozen=True)
class Drawn:
    """A figure with what a reader needs to read it."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Table:
    """A table of the report: its head and its rows, in words; cells that start with a digit or sign stand right."""

    title: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def filled(table: Table) -> Table:
    """The table without the columns in which nothing stands."""
    kept = [i for i in range(len(table.head)) if any(row[i] for row in table.rows)]
    rows = [[row[i] for i in kept] for row in table.rows]
    return replace(table, head=[table.head[i] for i in kept], rows=rows)


def cell(values: "pd.Series[float]", n: int, form: str) -> str:
    """One value of a series in a table's words; empty where there is none."""
    return form.format(float(values[n])) if n in values.index else ""


def look(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th series; beyond the colours the markers move on."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + 3 * (i // len(COLOURS))) % len(MARKERS)]}


PLACES = re.compile(r' (?:d|x|y|width|height|points|transform)="[^"]*"')
UNTURNED = re.compile(r' transform="rotate\(-0 [^"]*\)"')
FAMILY = "DejaVu Sans, Verdana, sans-serif"  # said once a picture, not once a word
FONT = "font-family: 'DejaVu Sans', 'Verdana', sans-serif; "
GROUP = re.compile(r'<g id="[^"]*">')  # names that nothing refers to
NOBODYS = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
DIGITS = re.compile(r"(\d\.\d)\d+")  # beyond a tenth of a point nothing is seen


def svg(figure: Figure) -> str:
    """The figure as an SVG element, to stand in a page."""
    out = StringIO()
    with styled():
        figure.savefig(out, format="svg", metadata={"Date": None}, bbox_inches="tight")
    text = PLACES.sub(lambda place: DIGITS.sub(r"\1", place[0]), out.getvalue())
    text = (
        NOBODYS.sub("", GROUP.sub("<g>", UNTURNED.sub("", text)))
        .replace(FONT, "")
        .replace("<svg ", f'<svg font-family="{FAMILY}" ', 1)
    )
    return " ".join(text[text.index("<svg") :].split())


def panels(count: int, height: float = 4.2, across: int | None = None) -> tuple[Figure, list[Axes]]:
    """So many panels in a row, or in rows of at most ``across``."""
    columns = min(count, across or count)
    rows = -(-count // columns)
    figure = Figure(figsize=(5.4 * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def logs(ax: Axes, x: str, y: str, title: str = "") -> None:
    """Logarithmic axes with plain numbers: at the decades, and between them where there is but one decade."""
    ax.set(xlabel=x, ylabel=y, title=title)
    if not any(np.size(line.get_xdata()) for line in ax.lines):
        return  # nothing was measured: an empty axis cannot be logarithmic
    ax.set(xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        _write_plainly(axis)


def _write_plainly(axis: Axis) -> None:
    axis.set_major_formatter("{x:g}")
    low, high = axis.get_view_interval()
    axis.set_minor_formatter("{x:g}" if high / low < 8 else NullFormatter())


def log_x(ax: Axes, x: str, y: str, title: str = "") -> None:
    """A logarithmic axis of sizes, and one of values that starts at 0."""
    ax.set(xscale="log", xlabel=x, ylabel=y, title=title, ylim=(0, None))
    _write_plainly(ax.xaxis)


def legend(ax: Axes) -> None:
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)


def with_intervals(ax: Axes, x: Any, rows: pd.DataFrame, label: str, scale: Any = 1.0, **style: Any) -> None:
    """A series with its 95% intervals: the rows' ``value``, ``low`` and ``high``, times a scale; no rows, no series."""
    if len(rows):
        value, low, high = (scale * rows[column].to_numpy(float) for column in ("value", "low", "high"))
        ax.errorbar(x, value, error_bars(value, low, high), capsize=2, label=label, **style)


def error_bars(value: Any, low: Any, high: Any) -> Sequence[Any]:
    middle = np.asarray(value, float)
    return [np.maximum(middle - np.asarray(low, float), 0), np.maximum(np.asarray(high, float) - middle, 0)]
