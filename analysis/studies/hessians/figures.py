"""The figures and tables of the study ``hessians``."""

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import theory
from analysis.studies.hessians.claims import COMPOSITIONS, PRODUCTS, families
from analysis.style import Drawn, Table, legend, log_x, logs, look, panels, styled, with_intervals
from analysis.view import View

INPUTS = "inputs d"


def figures(view: View) -> list[Drawn]:
    """All figures of the study for which the results hold numbers."""
    with styled():
        drawn = (costs, products, memory, compile_time) if view.attached else (memory,)
        return [draw(view) for draw in drawn if families(view)]


def costs(view: View) -> Drawn:
    names = families(view)
    figure = Figure(figsize=(10.8, 4.8 * len(names)), layout="constrained")
    for row, family in zip(figure.subplots(len(names), 2, squeeze=False), names, strict=True):
        line = view.along("inputs", family=family)
        function = line.series("function", "count", "flops")
        for i, method in enumerate([*COMPOSITIONS, "closed_form"]):
            flops = (line.series(method, "count", "flops") / function).dropna()
            if len(flops) == 0:
                continue
            row[0].plot(flops.index, flops, label=method, **look(i))
            if method in theory.HESSIAN_EXPONENT:
                order = float(flops.iloc[-1]) * (flops.index / flops.index[-1]) ** theory.HESSIAN_EXPONENT[method]
                row[0].plot(flops.index, order, ls=(0, (4, 3)), lw=1, color=look(i)["color"])
            rows = line.rows(method, "clock", "time")
            with_intervals(row[1], rows.index, rows, method, 1e6, **look(i))
        row[0].plot([], [], ls=(0, (4, 3)), lw=1, color="black", label="predicted order: d or d²")
        logs(row[0], INPUTS, "flops / those of f", f"{family}: flops")
        logs(row[1], INPUTS, "time (µs)", f"{family}: time with jit")
        for ax in row:
            legend(ax)
    return Drawn(
        "costs",
        "A Hessian by four compositions",
        "Left: counted flops over those of f, and the predicted order drawn through the last point. Right: time under "
        "jax.jit with 95% intervals; below some 100 µs it is the call that costs.",
        figure,
    )


def _panel_a_family(view: View, draw: Callable[[Axes, View, str], None]) -> Figure:
    names = families(view)
    figure, axes = panels(len(names), 4.7)
    for ax, family in zip(axes, names, strict=True):
        draw(ax, view.along("inputs", family=family), family)
        legend(ax)
    return figure


def products(view: View) -> Drawn:
    def draw(ax: Axes, line: View, family: str) -> None:
        for i, method in enumerate([*PRODUCTS, "gradient"]):
            flops = (line.series(method, "count", "flops") / line.series("gradient", "count", "flops")).dropna()
            ax.plot(flops.index, flops, ls=(0, (1, 2)), color=look(i)["color"])
            rows = line.rows(method, "clock", "time / gradient")
            with_intervals(ax, rows.index, rows, method, **look(i))
        ax.plot([], [], ls=(0, (1, 2)), color="black", label="flops")
        log_x(ax, INPUTS, "cost / one gradient", family)

    return Drawn(
        "products",
        "A Hessian-vector product in three orders",
        "Time over that of a gradient with 95% intervals, and flops over those of a gradient (dotted, same colours).",
        _panel_a_family(view, draw),
    )


def memory(view: View) -> Drawn:
    def draw(ax: Axes, line: View, family: str) -> None:
        for i, method in enumerate(COMPOSITIONS):
            planned = line.series(method, "compiler", view.plan) / 2**10
            ax.plot(planned.index, planned, label=f"{method}, jit", **look(i))
            peak = line.series(f"{method}_eager", "process", "peak") / 2**10
            peak = peak[peak > 2**10]
            ax.plot(peak.index, peak, ls="", marker=look(i)["marker"], ms=10, mfc="none", color=look(i)["color"])
        if view.attached:
            ax.plot([], [], ls="", marker="o", ms=10, mfc="none", color="black", label="process peak without jit")
        logs(ax, INPUTS, "memory besides the result (KiB)", family)

    return Drawn(
        "memory",
        "Memory of a Hessian, with jit and without",
        "Lines: what XLA plans under jax.jit. Large hollow symbols: the process's peak when the program runs operation "
        "by operation, where it is above 1 MiB: what the program's text holds at once.",
        _panel_a_family(view, draw),
    )


def compile_time(view: View) -> Drawn:
    def draw(ax: Axes, line: View, family: str) -> None:
        for i, method in enumerate([*COMPOSITIONS, "closed_form"]):
            seconds = 1e3 * line.series(method, "compile", "compile time")
            if len(seconds):
                ax.plot(seconds.index, seconds, label=method, **look(i))
        log_x(ax, INPUTS, "compile time (ms)", family)

    figure = _panel_a_family(view, draw)
    return Drawn("compile", "Compile time of a Hessian", "Seconds in XLA, one compilation a point.", figure)


def tables(view: View) -> list[Table]:
    """Every composition at the largest size, and with jit against without."""
    found = []
    for family in families(view) if view.attached else []:
        line = view.along("inputs", family=family)
        d = line.series("fwd_rev", "count", "flops").index.max()
        rows = [_row(line, method, d) for method in ["function", "gradient", *COMPOSITIONS, "closed_form", *PRODUCTS]]
        title = f"{family}: what each costs at d = {d:.0f}"
        head = ("method", "flops / f", "time (µs)", "time / fwd_rev", f"{view.plan} (KiB)", "compile (ms)", "error")
        found.append(Table(title, "", head, [row for row in rows if any(row[1:])]))
        found += _without_jit(line, family)
    return found


def _row(line: View, method: str, d: float) -> list[str]:
    def cell(values: "pd.Series[float]", write: Callable[[float], str]) -> str:
        return write(float(values[d])) if d in values.index else ""

    ratio = line.rows(method, "clock", "time / fwd_rev")
    written = "{:.2f} [{:.2f}, {:.2f}]".format(*ratio.loc[d, ["value", "low", "high"]]) if d in ratio.index else ""
    function = line.series("function", "count", "flops")
    return [
        method,
        cell((line.series(method, "count", "flops") / function).dropna(), "{:.1f}".format),
        cell(1e6 * line.series(method, "clock", "time"), "{:.0f}".format),
        written,
        cell(line.series(method, "compiler", line.plan) / 2**10, "{:.1f}".format),
        cell(1e3 * line.series(method, "compile", "compile time"), "{:.0f}".format),
        cell(line.series(method, "check", "gradient error"), "{:.0e}".format),
    ]


def _without_jit(line: View, family: str) -> list[Table]:
    rows = []
    for method in COMPOSITIONS:
        peaks = line.series(f"{method}_eager", "process", "peak")
        times = line.series(f"{method}_eager", "clock", "time")
        for d in peaks.index.intersection(times.index):
            jitted = line.series(method, "clock", "time").get(d)
            planned = line.series(method, "compiler", line.plan).get(d)
            held = f"{peaks[d] / 2**10:.0f}" if peaks[d] > 2**20 else "below 1024"
            if jitted is not None and planned is not None:
                rows.append(
                    [
                        method, f"{d:.0f}", f"{planned / 2**10:.0f}", held, f"{1e6 * jitted:.0f}",
                        f"{1e6 * times[d]:.0f}", f"{times[d] / jitted:.0f}",
                    ]
                )  # fmt: skip
    head = (
        "method", "d", f"{line.plan} with jit (KiB)", "process peak without (KiB)", "time with jit (µs)",
        "time without (µs)", "without / with",
    )  # fmt: skip
    note = "The process's peak resolves nothing below 1 MiB. Without jit it is the dispatch of operations that costs."
    return [Table(f"{family}: with jit and without", note, head, rows)] if rows else []
