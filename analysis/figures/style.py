"""One look for all figures: Okabe-Ito colours, a marker and a label besides the colour, units on every axis."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any, cast

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe and Ito, "Color universal design" (2008): told apart by the colour-blind, and in grey by their markers.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D3B"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
GREY = "#9a9a9a"

SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
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
    "svg.fonttype": "path",
    "svg.hashsalt": "autodiff-benchmarks",  # the same picture gives the same file
}


@contextmanager
def styled() -> Iterator[None]:
    with mpl.rc_context(cast(Any, SETTINGS)):
        yield


def look(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th series."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}


def svg(figure: Figure) -> str:
    """The figure as an SVG element, to stand in a page."""
    out = StringIO()
    with styled():
        figure.savefig(out, format="svg", metadata={"Date": None}, bbox_inches="tight")
    text = out.getvalue()
    return text[text.index("<svg") :]
