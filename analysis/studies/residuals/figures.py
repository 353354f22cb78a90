"""The figures of the study ``residuals``: a bar a method, cut by line, and memory over the program's time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from analysis.lines import Row, over_time, rows
from analysis.studies.residuals.readings import predicted
from analysis.style import COLOURS, GREY, Drawn, Table, legend, styled
from analysis.view import View

ACROSS_VERSIONS = True  # results of several versions of JAX stand beside each other
KINDS = (
    "residual of a loop",
    "slots of a schedule",
    "value",
    "carry of a loop",
    "gradient that a loop adds up",
    "output",
    "argument",
)
HATCHES = ("", "////", "....", "xxxx", "----", "\\\\\\\\")
STRAIGHT = ("vanilla_unrolled", "remat_unrolled")  # without loops: their memory over time can be drawn
SMALL = 3  # activations: what is less stands with the rest


class Bar(NamedTuple):
    """A method on a target under a version of JAX, at one size."""

    view: View
    method: str
    n: int
    unit: float

    @property
    def held(self) -> list[Row]:
        return rows(self.view, self.method, self.n)


def bars(views: Sequence[View]) -> list[Bar]:
    """The largest size of each method that has rows."""
    found = []
    for view in views:
        for method in view.methods:
            sizes = view.sizes(method, "lines", "told / plan")
            units = view.series(method, "count", "activation")
            if sizes and sizes[-1] in units.index:
                found.append(Bar(view, method, sizes[-1], float(units[sizes[-1]])))
    return found


def across(views: Sequence[View]) -> list[Table | Drawn]:
    """What each method holds, by target and version of JAX."""
    found = bars(views)
    if not found:
        return []
    with styled():
        straight = [bar for bar in found if len(over_time(bar.view, bar.method, bar.n))]
        drawn: list[Table | Drawn] = [
            Drawn(
                "held",
                f"What holds the memory at the peak, by line, n = {found[0].n}",
                "A bar a method, cut by what it is (colour) and by the line that made it (hatching), in activations of "
                "batch x width numbers. Black strokes: what the lecture, the schedule or the policy stores.",
                held(found),
            )
        ]
        if straight:
            drawn.append(
                Drawn(
                    "over_time",
                    "Temporary memory over the program's time",
                    "Of the methods without loops, over the compiled program's instructions in their order: the "
                    "triangle of vanilla backprop and the saw of checkpoints, where the compiler left them.",
                    in_time(straight),
                )
            )
    return [*drawn, _table(found)]


def _place(bar: Bar) -> str:
    version = dict(bar.view.origin).get("jax")
    return f"{bar.view.target}, JAX {version}" if version else bar.view.target


def _line(row: Row) -> str:
    return row.where if row.what != "argument" else "arguments"


def held(found: Sequence[Bar]) -> Figure:
    """Bars of methods, those of one place in a panel."""
    places = list(dict.fromkeys(map(_place, found)))
    methods = list(dict.fromkeys(bar.method for bar in found))
    largest: dict[str, float] = {}
    for bar in found:
        for row in bar.held:
            largest[_line(row)] = max(largest.get(_line(row), 0.0), row.size / bar.unit)
    lines = sorted((line for line in largest if line and largest[line] >= SMALL), key=lambda line: -largest[line])
    hatch = {line: HATCHES[min(i, len(HATCHES) - 1)] for i, line in enumerate(lines)}
    across = min(len(places), 2)
    down = -(-len(places) // across)
    figure = Figure(figsize=(6.2 * across, (1.2 + 0.34 * len(methods)) * down + 1.4), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat
    drawn: dict[str, Any] = {}
    for ax, place in zip(axes, places, strict=False):
        for bar in (bar for bar in found if _place(bar) == place):
            y, left = methods.index(bar.method), 0.0
            shown = [row for row in bar.held if row.what in KINDS and row.size >= SMALL * bar.unit]
            for row in shown:
                kind, width = row.what, row.size / bar.unit
                colour, cut = COLOURS[KINDS.index(kind)], hatch.get(_line(row), "")
                label = f"{kind}: {_line(row)}" if kind != "argument" else kind
                (patch,) = ax.barh(y, width, 0.72, left, color=colour, hatch=cut, edgecolor="white", lw=0.4)
                drawn.setdefault(label, patch)
                left += width
            rest = sum(row.size for row in bar.held if row not in shown) / bar.unit
            (patch,) = ax.barh(y, rest, 0.72, left, color=GREY, edgecolor="white", lw=0.4)
            drawn.setdefault("other", patch)
            many = predicted(bar.view, bar.n).get(bar.method)
            if many is not None:
                (stroke,) = ax.plot([many, many], [y - 0.45, y + 0.45], color="black", lw=2)
                drawn.setdefault("predicted", stroke)
        ax.set_yticks(range(len(methods)), methods)
        ax.set(title=place, xlabel="activations")
        ax.grid(axis="y", visible=False)
    for ax in list(axes)[len(places) :]:
        ax.remove()
    figure.axes[0].invert_yaxis()
    figure.legend([*drawn.values()], [*drawn], loc="outside lower center", ncols=2)
    return figure


def in_time(found: Sequence[Bar]) -> Figure:
    """Temporary bytes over the instructions of a program, a panel a place."""
    places = list(dict.fromkeys(map(_place, found)))
    figure = Figure(figsize=(5.4 * len(places), 3.8), layout="constrained")
    for ax, place in zip(figure.subplots(1, len(places), squeeze=False, sharey=True).flat, places, strict=True):
        for bar in (bar for bar in found if _place(bar) == place):
            told = np.array(over_time(bar.view, bar.method, bar.n)) / bar.unit
            colour = COLOURS[STRAIGHT.index(bar.method) % len(COLOURS)] if bar.method in STRAIGHT else GREY
            ax.plot(np.linspace(0, 1, len(told)), told, label=bar.method, color=colour)
        ax.set(title=place, xlabel="share of the program's instructions", ylabel="activations", ylim=(0, None))
        legend(ax)
    return figure


def _table(found: Sequence[Bar]) -> Table:
    head = ("where", "method", "activations held, largest first", "rows / plan", "bytes with a line")
    body = []
    for bar in found:
        told, lined = (bar.view.series(bar.method, "lines", name).get(bar.n) for name in ("told / plan", "with a line"))
        largest = [f"{row.size / bar.unit:.0f} {row.what}, {row.where or row.operation}" for row in bar.held[:3]]
        shares = [f"{share:.1%}" if share is not None else "" for share in (told, lined)]
        body.append([_place(bar), bar.method, "; ".join(largest), *shares])
    return Table("What is held at the peak", "Of a TPU's programs the compiler tells a part of the plan.", head, body)
