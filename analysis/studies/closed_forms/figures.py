"""The figures and tables of the study ``closed_forms``."""

import numpy as np

from analysis import theory
from analysis.rounding import scaled_errors
from analysis.studies.closed_forms.claims import AT, GRADIENTS
from analysis.style import Drawn, Table, legend, log_x, logs, look, panels, styled, with_intervals
from analysis.view import View


def figures(view: View) -> list[Drawn]:
    """All figures of the study for which the results hold numbers."""
    with styled():
        drawn = [error(view)] if view.attached else []
        return [*drawn, costs(view)] if view.attached and _orders(view) else drawn


def _orders(view: View) -> list[int]:
    found = view.along("n", decades=1).series("closed_form", "clock", "time").index
    return [int(n) for n in found] if len(found) > 1 else []


def error(view: View) -> Drawn:
    figure, (ax,) = panels(1, 4.8)
    figure.set_size_inches(6.8, 4.8)
    dtype = dict(view.origin).get("dtype", "float32")
    ends: list[int] = []
    for i, method in enumerate(GRADIENTS):
        errors = view.along("decades", n=AT).series(method, "check", "gradient error")
        if len(errors):
            ax.plot(10.0**errors.index, errors, label=method, **look(i))
            ends = [*ends, *map(int, errors.index)]
    if ends:
        decades = np.array([min(ends), max(ends)])
        expected = [theory.rounding_error(AT, int(k), view.eps) for k in decades]
        ax.plot(10.0**decades, expected, ls=(0, (4, 3)), color="black", label="predicted: cond eps sqrt(n)")
    logs(ax, "cond(X)", "relative error of the gradient", f"{dtype}, n = {AT}")
    legend(ax)
    return Drawn(
        "error",
        f"Error against the condition of X, {dtype}",
        "Against the closed form with an inverse of more digits. Dashed: what rounding explains. All methods apply the "
        "inverse twice.",
        figure,
    )


def costs(view: View) -> Drawn:
    figure, axes = panels(2, 4.8)
    line = view.along("n", decades=1)
    closed = line.series("closed_form", "count", "flops")
    for i, method in enumerate(GRADIENTS):
        rows = line.rows(method, "clock", "time / closed_form")
        with_intervals(axes[0], rows.index, rows, method, **look(i))
        if len(rows):
            flops = (line.series(method, "count", "flops") / closed).dropna()
            axes[0].plot(flops.index, flops, ls=(0, (4, 3)), lw=1, color=look(i)["color"])
        planned = line.series(method, "compiler", view.plan) / 4 / line.series(method, "compiler", view.plan).index ** 2
        axes[1].plot(planned.index, planned, label=method, **look(i))
    axes[0].plot([], [], ls=(0, (4, 3)), lw=1, color="black", label="predicted: flops")
    log_x(axes[0], "order n", "time / closed form", "Time")
    log_x(axes[1], "order n", f"{view.plan} (matrices)", "Planned memory")
    for ax in axes:
        legend(ax)
    return Drawn(
        "costs",
        "The closed form against automatic differentiation",
        "Left: time over that of the closed form, 95% intervals; dashed, the ratio of flops. Right: what XLA plans "
        "besides arguments and result, in n x n matrices.",
        figure,
    )


def tables(view: View) -> list[Table]:
    """Errors and costs, a row a method."""
    rows = []
    line, orders = view.along("n", decades=1), _orders(view)
    for method in GRADIENTS if view.attached else []:
        errors, _ = scaled_errors(view, method)
        if not errors:
            continue
        worst = max(errors, key=lambda row: row[3])
        cells = [method, f"{max(row[2] for row in errors):.1e}", f"{worst[3]:.2f}", f"n = {worst[0]}, 1e{worst[1]}"]
        if orders:
            n = orders[-1]
            ratio = line.rows(method, "clock", "time / closed_form")
            flops = line.series(method, "count", "flops")
            found = (
                "{:.2f} [{:.2f}, {:.2f}]".format(*ratio.loc[n, ["value", "low", "high"]]) if n in ratio.index else "1"
            )
            cells += [f"{flops[n] / line.series('closed_form', 'count', 'flops')[n]:.2f}", found]
        rows.append(cells)
    head = ["method", "largest error", "largest error / (cond eps sqrt(n))", "at n, cond"]
    if orders:
        head += [f"flops / closed form, n = {orders[-1]}", "time / closed form"]
    return [Table("Errors and costs", "", head, rows)] if rows else []
