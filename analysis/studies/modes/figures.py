"""The figures and tables of the study ``modes``."""

from math import log2
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adcost.modes import CLOSE
from analysis import theory
from analysis.studies.modes import readings
from analysis.studies.modes.claims import (
    MAP_DEPTH,
    along_depth,
    along_inputs,
    along_outputs,
    families_in_depth,
    from_the_field,
    per_evaluation,
    swept,
)
from analysis.style import (
    COLOURS,
    GREY,
    Drawn,
    Table,
    legend,
    log_x,
    logs,
    look,
    panels,
    styled,
    with_intervals,
)
from analysis.view import View

RULERS = {"count": "flops", "clock": "time", "compiler": "planned memory"}
LABEL = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.6}
MOST = 6  # doublings at which the map's colours end


def figures(view: View) -> list[Drawn]:
    """All figures of the study for which the results hold numbers."""
    with styled():
        drawn = (crossover_map, costs, gradient, memory) if view.attached else (memory,)
        found = [draw(view) for draw in drawn if readings.families(view)]
        if view.attached and "field" in view.families:
            found.append(field(view))
        return found


def crossover_map(view: View) -> Drawn:
    families = readings.families(view)
    figure = Figure(figsize=(4.2 * len(families), 3.9 * len(RULERS)), layout="constrained")
    axes = figure.subplots(len(RULERS), len(families), squeeze=False)
    for row, (ruler, words) in zip(axes, RULERS.items(), strict=True):
        for ax, family in zip(row, families, strict=True):
            found = readings.cells(view, family, MAP_DEPTH, ruler)
            square = _square(found)
            ax.set(title=f"{family}: {words}", xlabel="outputs m", ylabel="inputs d")
            ax.grid(visible=False)
            if square:
                _colour(ax, square)
                _lines(ax, square, found if ruler != "compiler" else [], family)
    return Drawn(
        "map",
        "Forward or reverse? The cost of jacfwd over that of jacrev",
        "Blue: forward mode is cheaper; orange: reverse mode is. The number is jacfwd / jacrev; grey: the interval, "
        "holds 1. Dashed: the predicted line d = c m. Solid: where fitted costs are equal.",
        figure,
    )


def _square(found: list[readings.Cell]) -> dict[tuple[int, int], readings.Cell]:
    """The cells of the map without those of its finer edges."""
    inner = [cell for cell in found if cell.m != 1 and cell.d != 1]
    ds, ms = {cell.d for cell in inner} | {1}, {cell.m for cell in inner} | {1}
    return {(cell.d, cell.m): cell for cell in found if cell.d in ds and cell.m in ms}


def _colour(ax: Axes, square: dict[tuple[int, int], readings.Cell]) -> None:
    ds, ms = (sorted({key[i] for key in square}) for i in (0, 1))
    for (d, m), cell in square.items():
        x, y = ms.index(m), ds.index(d)
        strength = min(abs(log2(cell.ratio)) / MOST, 1) if cell.ratio > 0 else 1
        if cell.faster == "either":
            colour, alpha = GREY, 0.35
        else:
            colour, alpha = COLOURS[0 if cell.faster == "forward" else 1], 0.12 + 0.75 * strength
        ax.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=colour, alpha=alpha, lw=0)
        ax.annotate(f"{cell.ratio:.3g}", (x, y), ha="center", va="center", fontsize=8, bbox=LABEL, zorder=5)
    ax.set_xticks(range(len(ms)), [str(m) for m in ms])
    ax.set_yticks(range(len(ds)), [str(d) for d in ds])
    ax.set(xlim=(-0.5, len(ms) - 0.5), ylim=(-0.5, len(ds) - 0.5))


def _lines(ax: Axes, square: dict[tuple[int, int], readings.Cell], found: list[readings.Cell], family: str) -> None:
    ds, ms = (np.log(sorted({key[i] for key in square})) for i in (0, 1))
    m = np.exp(np.linspace(ms[0] - 0.6, ms[-1] + 0.6, 200))

    def place(d: "np.ndarray[tuple[int], np.dtype[np.float64]]", label: str, dashes: Any = "-") -> None:
        inside = d > 0
        x = np.interp(np.log(m[inside]), ms, np.arange(len(ms)), np.nan, np.nan)
        y = np.interp(np.log(d[inside]), ds, np.arange(len(ds)), np.nan, np.nan)
        ax.plot(x, y, color="black", lw=1.2, ls=dashes, label=label)

    c = theory.CROSSOVER[family]
    place(c * m, f"predicted: c = {c:.2f}", (0, (4, 3)))
    if len(found) >= 8:
        fitted = readings.boundary(found)
        place(fitted.at(1) + fitted.c * (m - 1), f"fitted: c = {fitted.c:.2f} [{fitted.low:.2f}, {fitted.high:.2f}]")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def field(view: View) -> Drawn:
    """A row a program: the time of the advised mode over that of the other."""
    rows = [test for test in from_the_field(view) if test.ruler == "clock" and test.found is not None]
    figure = Figure(figsize=(7.6, 0.9 + 0.36 * max(len(rows), 1)), layout="constrained")
    ax = figure.subplots()
    for i, row in enumerate(rows):
        assert row.found is not None
        colour = GREY if row.quantity.startswith("time, jacfwd") else COLOURS[0]
        ax.plot(row.found[1:3], [i, i], color=colour, lw=2)
        ax.plot(row.found.value, i, "o", color=colour, ms=5)
    ax.axvline(1, color="black", lw=1, ls=(0, (4, 3)))
    ax.set_yticks(range(len(rows)), [row.at.removeprefix("program=") for row in rows])
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_xlabel("time of the advised mode / time of the other")
    return Drawn(
        "field",
        "Programs that people asked about: is the advised mode the faster one?",
        "Left of the dashed line the advice was right; 95% intervals. Grey: the advice is "
        "that either will do, and the ratio is that of forward over reverse.",
        figure,
    )


def costs(view: View) -> Drawn:
    families = swept(view)
    figure = Figure(figsize=(10.8, 4.9 * max(len(families), 1)), layout="constrained")
    axes = figure.subplots(max(len(families), 1), 2, squeeze=False)
    for family, row in zip(families, axes, strict=False):
        lines = (
            (along_inputs(view, family), "jacfwd", "inputs d (one output)"),
            (along_outputs(view, family), "jacrev", "outputs m (one input)"),
        )
        for ax, (line, mode, x) in zip(row, lines, strict=True):
            other = "jacrev" if mode == "jacfwd" else "jacfwd"
            for i, method in enumerate((f"{mode}_loop", f"{mode}_chunked", mode, other)):
                flops = per_evaluation(line, method, "count")
                ax.plot(flops.index, flops, ls=(0, (1, 2)), color=look(i)["color"])
                rows = line.rows(method, "clock", "time / function")
                with_intervals(ax, rows.index, rows, method, **look(i))
            ax.plot([], [], ls=(0, (1, 2)), color="black", label="counted flops / f")
            logs(ax, x, "cost / one evaluation of f", family)
            legend(ax)
    return Drawn(
        "costs",
        "A Jacobian against inputs and outputs",
        "Symbols: time over that of f, 95% intervals. Dotted, in the same colours: flops over those of f, which is "
        "what the lecture counts. A loop takes one product after the other; a batch takes all at once, and its time "
        "grows slower than its flops.",
        figure,
    )


def gradient(view: View) -> Drawn:
    figure, (ax,) = panels(1, 4.8)
    figure.set_size_inches(6.8, 4.8)
    for i, family in enumerate(readings.families(view)):
        line = along_inputs(view, family)
        flops, rows = per_evaluation(line, "vjp", "count"), line.rows("vjp", "clock", "time / function")
        ax.plot(flops.index, flops, ls=(0, (1, 2)), color=look(i)["color"], label=f"{family}, flops")
        with_intervals(ax, rows.index, rows, f"{family}, time", **look(i))
    ax.axhline(theory.CHEAP_GRADIENT, ls=(0, (4, 3)), color="black", lw=1, label="predicted: at most 5")
    log_x(ax, "inputs d (one output)", "cost of a gradient / f")
    legend(ax)
    return Drawn(
        "gradient",
        "The cheap gradient",
        "What a gradient costs in evaluations of f, by flops and by time (95% intervals), and the bound of the "
        "cheap-gradient principle.",
        figure,
    )


def memory(view: View) -> Drawn:
    swept_families = families_in_depth(view)
    figure, axes = panels(max(len(swept_families), 1), 4.6)
    for ax, family in zip(axes, swept_families, strict=False):
        line = along_depth(view, str(family))
        for i, method in enumerate(("vjp", "jvp", "function")):
            planned = line.planned(method)
            ax.plot(planned.index, planned, label=method, **look(i))
            peak = line.activations(method, view.peak_ruler, "peak")
            unit = line.series(method, "count", "activation").reindex(peak.index)
            peak = peak[peak * unit > 2**20]
            ax.plot(peak.index, peak, ls="", marker=look(i)["marker"], ms=9, mfc="none", color=look(i)["color"])
        if view.attached:
            ax.plot([], [], ls="", marker="o", ms=9, mfc="none", color="black", label="measured peak")
        logs(ax, "depth (steps)", "memory (states)", str(family))
        legend(ax)
    return Drawn(
        "memory",
        "Memory against depth",
        "One cotangent pulled back, one tangent pushed forward, and f itself: what XLA plans, and (large hollow "
        "symbols) the measured peak where it is above 1 MiB.",
        figure,
    )


def tables(view: View) -> list[Table]:
    """How often the advice was right, and the worked example."""
    if not view.attached:
        return []
    held = readings.advice_held(view, MAP_DEPTH)
    outcomes = ("right", "wrong", "too close to call")
    rows = []
    for family in dict.fromkeys(cell.family for cell in held):
        mine = [cell for cell in held if cell.family == family]
        wrong = ", ".join(f"d = {c.d}, m = {c.m}" for c in mine if c.outcome == "wrong")
        rows.append([family, *(str(sum(c.outcome == outcome for c in mine)) for outcome in outcomes), wrong or "none"])
    caption = (
        "adcost.which_mode(f, *args) counts the flops of both Jacobians in the program's text and runs nothing."
        " Held against the clock, cell by cell; too close to call: the counts are within a factor of "
        f"{CLOSE}, or the interval of the times holds 1."
    )
    head = ("family", "cells: right", "wrong", "too close to call", "where it was wrong")
    return [Table("Task 1: was the advice right?", caption, head, rows)] if rows else []
