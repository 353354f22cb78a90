"""The figures of the study ``backprop``."""

from collections.abc import Callable
from math import sqrt

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import theory
from analysis.law import NEAR
from analysis.studies.backprop import animation
from analysis.studies.backprop.animation import Animation
from analysis.studies.backprop.claims import FIXED_BY, LAW_FROM, rows_of_the_law, swept
from analysis.style import COLOURS, GREY, Drawn, error_bars, legend, logs, look, panels, styled, with_intervals
from analysis.view import View

LECTURE = ["vanilla", "store_all", "sqrt", "memory_poor"]
OPTIMUM = ["multilevel_3", "binomial_sqrt", "binomial_10", "binomial_3"]
TAPED = ["sqrt_tape"]
PREDICTED_SLOTS: dict[str, Callable[[float], float]] = {
    "store_all": lambda n: n,
    "sqrt": lambda n: 2 * sqrt(n),
    "memory_poor": lambda n: 1,
}
DEPTH = "depth n (layers)"


def figures(view: View) -> list[Drawn]:
    """All figures of the study for which the results hold numbers."""
    with styled():
        taken = set(view.frame["ruler"])
        by_depth = {memory: "compiler", evaluations: "count", time: "clock"} if swept(view) else {}
        timed = {frontier: "clock", law: "clock", traffic: "clock", rulers: "compiler"}
        drawn = {**by_depth, **timed} if view.attached else {memory: "compiler"}
        if not rows_of_the_law(view):
            drawn.pop(traffic, None)
        return [draw(view) for draw, ruler in drawn.items() if ruler in taken]


def _today(view: View) -> list[str]:
    known = {*LECTURE, *OPTIMUM, *TAPED, "forward"}
    return [name for name in view.frame["method"].unique() if name not in known]


def _by_kind(view: View) -> tuple[Figure, list[tuple[Axes, str, list[str]]]]:
    """A panel, a title and methods for each kind of method."""
    figure, (lecture, other, today) = panels(3, 5.4)
    return figure, [
        (lecture, "The lecture's strategies", LECTURE),
        (other, "Other schedules", [*OPTIMUM, *TAPED]),
        (today, "What people write", _today(view)),
    ]


def memory(view: View) -> Drawn:
    figure, kinds = _by_kind(view)
    for ax, title, methods in kinds:
        for i, method in enumerate(methods):
            temp = view.planned(method)
            peak = view.activations(method, view.peak_ruler, "peak")
            unit = view.series(method, "count", "activation").reindex(peak.index)
            peak = peak[peak * unit > 2**20]  # below 1 MiB the process ruler resolves nothing
            if len(temp) == 0:
                continue
            ax.plot(temp.index, temp, label=method, **look(i))
            ax.plot(peak.index, peak, ls="", marker=look(i)["marker"], ms=9, mfc="none", color=look(i)["color"])
            residuals = view.activations(method, "count", "residuals")
            ax.plot(residuals.index, residuals, ls="", marker="_", ms=9, mew=1.4, color=look(i)["color"])
            if method in PREDICTED_SLOTS:
                n = np.geomspace(temp.index.min(), temp.index.max(), 60)
                predicted = [PREDICTED_SLOTS[method](k) for k in n]
                ax.plot(n, predicted, ls=(0, (4, 3)), lw=1, color=look(i)["color"])
        if "store_all" in methods:
            ax.plot([], [], ls=(0, (4, 3)), lw=1, color="black", label="predicted: slots")
        if view.attached:
            ax.plot([], [], ls="", marker="o", ms=9, mfc="none", color="black", label="measured peak (large symbols)")
        ax.plot([], [], ls="", marker="_", ms=9, mew=1.4, color="black", label="residuals of jax.vjp")
        logs(ax, DEPTH, "memory (activations)", title)
        legend(ax)
    return Drawn(
        "memory",
        "Memory against depth",
        "Filled symbols: what XLA's buffer assignment plans. Large hollow symbols: what was held at the peak, the "
        "result not counted; peaks below 1 MiB are not drawn. Bars: the residuals that jax.vjp keeps. "
        "Dashed: the predicted number of stored activations. One activation is batch x width numbers.",
        figure,
    )


def rulers(view: View) -> Drawn:
    """Compiled against measured memory on the same device."""
    figure, (ax,) = panels(1, 5.2)
    figure.set_size_inches(6.4, 5.2)
    ends = [np.inf, 0.0]
    for i, (title, methods) in enumerate(
        {
            "the lecture's strategies": LECTURE,
            "other schedules": [*OPTIMUM, *TAPED],
            "what people write": _today(view),
        }.items()
    ):
        points = []
        for method in methods:
            planned = view.series(method, "compiler", "temp") + view.series(method, "compiler", "outputs")
            peak = view.series(method, view.peak_ruler, "peak")
            points += [(planned[n] / 2**20, peak[n] / 2**20) for n in planned.index.intersection(peak.index)]
        points = [point for point in points if point[1] > 1]  # below 1 MiB the process ruler resolves nothing
        if points:
            ax.plot(*zip(*points, strict=True), ls="", label=title, **look(i))
            ends = [min(ends[0], *map(min, points)), max(ends[1], *map(max, points))]
    if ends[1] > 0:
        ax.plot(ends, ends, ls=(0, (4, 3)), color="black", lw=1, label="predicted: measured = planned")
    logs(ax, "planned by the compiler: temp + outputs (MiB)", "measured peak (MiB)")
    legend(ax)
    return Drawn(
        "rulers",
        "Planned against measured memory",
        f"Every method and depth whose peak is above 1 MiB; measured by the ruler {view.peak_ruler} on {view.target}.",
        figure,
    )


def evaluations(view: View) -> Drawn:
    figure, (ax,) = panels(1, 5.4)
    figure.set_size_inches(6.4, 5.4)
    formulas: list[tuple[str, Callable[[int], float], str]] = [
        ("vanilla", theory.vanilla_evaluations, "n"),
        ("sqrt", theory.sqrt_evaluations, "2n - sqrt(n)"),
        ("memory_poor", theory.memory_poor_evaluations, "n(n+1)/2"),
        ("binomial_10", lambda n: theory.optimal_evaluations(n, 10), "t(n+1, 10)"),
        ("binomial_3", lambda n: theory.optimal_evaluations(n, 3), "t(n+1, 3)"),
    ]
    for i, (method, formula, words) in enumerate(formulas):
        counted = view.series(method, "count", "evaluations")
        if len(counted) == 0:
            continue
        ax.plot(counted.index, counted, ls="", label=f"{method}, counted", **look(i))
        n = np.unique(np.geomspace(counted.index.min(), counted.index.max(), 80).astype(int))
        ax.plot(n, [formula(int(k)) for k in n], ls=(0, (4, 3)), color=look(i)["color"], label=f"predicted: {words}")
    logs(ax, DEPTH, "layer evaluations")
    legend(ax)
    return Drawn(
        "evaluations",
        "Layer evaluations against depth",
        "Symbols: counted in the program that ran. Dashed: the predicted formula; they must agree exactly, and the "
        "verdict table says whether they do.",
        figure,
    )


def time(view: View) -> Drawn:
    figure, kinds = _by_kind(view)
    for ax, title, methods in kinds:
        for i, method in enumerate(methods):
            rows = view.rows(method, "clock", "time")
            if len(rows) == 0:
                continue
            n = rows.index.to_numpy(float)
            with_intervals(ax, n, rows, method, 1e3 / n, **look(i))
        logs(ax, DEPTH, "time of a gradient / n (ms a layer)", title)
        legend(ax)
    return Drawn(
        "time",
        "Time against depth",
        "Median of interleaved rounds with its 95% interval, divided by the depth: a flat line is time linear in n.",
        figure,
    )


def frontier(view: View) -> Drawn:
    figure, (ax,) = panels(1, 5.2)
    figure.set_size_inches(7.6, 5.2)
    n, points = _frontier_points(view)
    best = np.inf
    efficient = []
    for method, row in points.sort_values("memory").iterrows():
        if row["time"] < best:
            best = row["time"]
            efficient.append(method)
    for i, (method, row) in enumerate(points.sort_values("memory").iterrows()):
        colour = COLOURS[0] if method in efficient else GREY
        offset = (6, 5) if i % 2 else (6, -11)
        error = error_bars(row[["time"]], row[["low"]], row[["high"]])
        ax.errorbar(row["memory"], row["time"], error, marker="o", capsize=2, color=colour, lw=1)
        where = (row["memory"], row["time"])
        ax.annotate(str(method), where, offset, textcoords="offset points", fontsize=8, color=colour)
    curve = _optimum(view, n)
    if len(curve):
        ax.plot(*zip(*curve, strict=True), ls=(0, (4, 3)), color=COLOURS[1], label="predicted: binomial optimum")
        ax.legend(loc="upper right")
    logs(ax, "planned memory, temp (activations)", "time / vanilla")
    return Drawn(
        "frontier",
        f"Memory against time at n = {n}",
        "Blue: no other method is both smaller and faster. Grey: some method is. Dashed: what the law of time predicts "
        "for the optimal schedule with as many slots as fit, scaled by the measured time of store_all.",
        figure,
    )


def _frontier_points(view: View) -> tuple[int, pd.DataFrame]:
    depths = view.planned("vanilla").index
    n = int(depths.max()) if len(depths) else 0
    rows = {}
    for method in view.frame["method"].unique():
        temp = view.planned(method)
        ratio = view.rows(method, "clock", "time / vanilla")
        if method == "vanilla" and n in temp.index:
            rows[method] = (temp[n], 1.0, 1.0, 1.0)
        elif method != "forward" and n in temp.index and n in ratio.index:
            rows[method] = (temp[n], *(ratio[column][n] for column in ("value", "low", "high")))
    return n, pd.DataFrame.from_dict(rows, orient="index", columns=["memory", "time", "low", "high"])


def _optimum(view: View, n: int) -> list[tuple[float, float]]:
    forward = view.series("store_all", "clock", "time / forward")
    ratio = view.series("store_all", "clock", "time / vanilla")
    temp = view.planned("store_all")
    if n not in forward.index or n not in ratio.index or n not in temp.index:
        return []
    besides = float(temp[n]) - n
    slots = np.unique(np.geomspace(3, n, 60).astype(int))
    return [
        (s + besides, theory.time_ratio(theory.optimal_evaluations(n, int(s)), n, forward[n] - 1) * float(ratio[n]))
        for s in slots
    ]


def law(view: View) -> Drawn:
    figure, axes = panels(2, 5.4)
    for ax, baseline in zip(axes, ("store_all", "vanilla"), strict=True):
        forward = view.series(baseline, "clock", "time / forward")
        ends = [np.inf, 0.0]
        for i, method in enumerate([*LECTURE[2:], *OPTIMUM]):
            ratio = view.rows(method, "clock", f"time / {baseline}")
            counted = view.series(method, "count", "evaluations")
            depths = [n for n in ratio.index if n in forward.index and n in counted.index and n >= LAW_FROM]
            if not depths:
                continue
            predicted = [theory.time_ratio(counted[n], n, forward[n] - 1) for n in depths]
            rows = ratio.loc[depths]
            with_intervals(ax, predicted, rows, method, ls="", **look(i))
            ends = [min(ends[0], *predicted, rows["value"].min()), max(ends[1], *predicted, rows["value"].max())]
        if ends[1] > 0:
            ax.plot(ends, ends, ls=(0, (4, 3)), color="black", lw=1, label="predicted = measured")
        logs(ax, f"predicted time / {baseline}", f"measured time / {baseline}", f"Against {baseline}")
        legend(ax)
    return Drawn(
        "law",
        "Predicted against measured time",
        "The law (evaluations/n + b) / (1 + b), with b the measured backward/forward of the baseline, nothing fitted; "
        f"depths from {LAW_FROM}, 95% intervals. Below the line: faster than predicted.",
        figure,
    )


def traffic(view: View) -> Drawn:
    """Both laws of time against what was measured, method by method."""
    found = rows_of_the_law(view)
    figure, axes = panels(2, 5.4)
    laws = (("by_evaluations", "By evaluations alone"), ("predicted", "With what need not be stored"))
    for ax, (name, title) in zip(axes, laws, strict=True):
        for i, method in enumerate(dict.fromkeys(row.method for row in found)):
            mine = [row for row in found if row.method == method]
            ax.plot(
                [getattr(row, name) for row in mine], [row.measured for row in mine], ls="", label=method, **look(i)
            )
        ends = np.array([min(row.measured for row in found), max(row.measured for row in found)])
        ax.plot(ends, ends, ls=(0, (4, 3)), color="black", lw=1, label="predicted = measured")
        ax.fill_between(ends, ends * (1 - NEAR), ends * (1 + NEAR), color=GREY, alpha=0.25, lw=0)
        logs(ax, "predicted time / vanilla", "measured time / vanilla", title)
        legend(ax)
    return Drawn(
        "traffic",
        "What is computed again, and what need not be stored",
        f"Every method with a loop, {LAW_FROM} layers and more. Left: evaluations alone. Right: "
        f"phi E/n + beta + omega S/S_vanilla, omega fixed by {FIXED_BY} and nothing fitted. Grey: within {NEAR:.0%}.",
        figure,
    )


def animations() -> list[Animation]:
    """The strategies step by step, drawn from the schedules that ran."""
    return [Animation(method, n, list(animation.frames(method, n))) for method, n in animation.DRAWN]


def notes() -> list[str]:
    """What a reader of the table of methods wants to know."""
    return [
        "sqrt_tape takes each layer's residuals by jax.vjp, one more evaluation a layer; the other schedules use the "
        "layer's own backward step."
    ]
