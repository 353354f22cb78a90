"""The figures and tables of the study ``svd``."""

from math import isfinite, isnan
from typing import Any

import numpy as np

from analysis.memory import beside_the_plan
from analysis.studies.svd.claims import EXACT, LOSSES_AT, OBLONG, RULES, SHOWN, gaps, outcome, square
from analysis.style import Drawn, Table, cell, filled, legend, log_x, logs, look, panels, styled, with_intervals
from analysis.view import View

STYLES: dict[str, dict[str, Any]] = {
    "forward": {"ls": "-", "fillstyle": "full"},
    "backward": {"ls": ":", "fillstyle": "none"},
}


def figures(view: View) -> list[Drawn]:
    """All figures of the study for which the results hold numbers."""
    with styled():
        if not view.attached:
            return []
        drawn = [degenerate(view)] if len(gaps(view, "jax_thin", "vectors")) > 1 else []
        timed = square(view, "backward").series("lecture", "clock", "time / thin")
        return [ratio(view), costs(view), *drawn] if len(timed) > 1 else drawn


def ratio(view: View) -> Drawn:
    figure, axes = panels(2, 5.2)
    line, forward = square(view, "backward"), square(view, "forward")
    for ax, against in zip(axes, ("thin", "values"), strict=True):
        flops = forward.series(against, "count", "flops")
        for i, method in enumerate(RULES):
            rows = line.rows(method, "clock", f"time / {against}")
            with_intervals(ax, rows.index, rows, method, **look(i))
            predicted = (line.series(method, "count", "flops") / flops).dropna()
            ax.plot(predicted.index, predicted, ls=(0, (4, 3)), lw=1, color=look(i)["color"])
        ax.plot([], [], ls=(0, (4, 3)), lw=1, color="black", label="predicted: flops")
        words = "a thin SVD" if against == "thin" else "the values alone"
        logs(ax, "order n", f"backward pass / {words}", f"Against {words}")
        legend(ax)
    return Drawn(
        "ratio",
        "The backward pass of the nuclear norm over both forward passes",
        "Two executables, timed in the same rounds, 95% intervals. Dashed, in the same colour: the ratio of their "
        "flops. The factors are handed over by the forward pass, which must then be the thin one.",
        figure,
    )


def costs(view: View) -> Drawn:
    figure, axes = panels(2, 4.8)
    for i, method in enumerate(["values", "thin", *RULES]):
        for part, style in STYLES.items():
            line = square(view, part)
            seconds, planned = 1e3 * line.series(method, "clock", "time"), line.series(method, "compiler", view.plan)
            matrices = planned / 4 / np.asarray(planned.index, float) ** 2
            for ax, found in zip(axes, (seconds, matrices), strict=True):
                if len(found):
                    ax.plot(found.index, found, label=method if part == "forward" else None, **style, **look(i))
    for ax in axes:
        ax.plot([], [], ls=":", marker="o", fillstyle="none", color="black", label="backward (hollow)")
    logs(axes[0], "order n", "time (ms)", "Time of each pass")
    log_x(axes[1], "order n", f"{view.plan} (n x n matrices)", "Planned memory of each pass")
    for ax in axes:
        legend(ax)
    return Drawn(
        "costs",
        "Each pass alone",
        "Filled, forward; hollow, backward. The workspace of LAPACK's routine is outside the plan: see the tables.",
        figure,
    )


def degenerate(view: View) -> Drawn:
    figure, (ax,) = panels(1, 4.8)
    figure.set_size_inches(7.4, 4.8)
    shown = [("jax_thin", "vectors"), ("safe", "vectors"), ("jax_values", "nuclear"), ("lecture", "nuclear")]
    for i, (method, loss) in enumerate(shown):
        errors = gaps(view, method, loss)
        if len(errors):
            ax.plot(errors.index, errors, label=f"{method}, {loss}", **look(i))
    gap = np.array([2.0, 2.0**48])
    ax.plot(gap, np.minimum(view.eps * gap, 1), ls=(0, (4, 3)), color="black", label="predicted: eps / gap")
    logs(ax, "1 / gap between two singular values", "relative error of the gradient", view.dtype)
    ax.xaxis.set_major_formatter("{x:.0e}")
    legend(ax)
    return Drawn(
        "gaps",
        "Two singular values come together",
        f"Matrices of order {EXACT} whose entries and factors are exact. The loss of the vectors depends on which "
        "vector belongs to which value; the nuclear norm does not. An error of 1: no digit is right.",
        figure,
    )


def tables(view: View) -> list[Table]:
    """Both passes at some orders and shapes, the other losses, and what becomes of degenerate matrices."""
    found = []
    single = view.dtype == "float32"
    if single:
        orders = [n for n in SHOWN if n in square(view, "forward").series("thin", "compiler", view.plan).index]
        found += [_passes(view, n, n, "nuclear") for n in orders]
    if single and view.attached:
        found += [_passes(view, *shape, "nuclear") for shape in OBLONG]
        found += [_passes(view, LOSSES_AT, LOSSES_AT, loss) for loss in ("spectral", "smooth", "vectors")]
    if view.attached:
        found.append(_degenerate(view))
    return [filled(table) for table in found if table.rows]


def _passes(view: View, m: int, n: int, loss: str) -> Table:
    slices = {
        part: view.along("rows", part=part, loss=loss, spectrum="spread", cols=n)
        for part in ("forward", "backward", "both")
    }
    forward, backward, both = slices.values()
    matrix = 4 * m * n
    rows = []
    for method in view.methods:
        if m not in forward.series(method, "compiler", view.plan).index:
            continue
        times = [cell(1e3 * line.series(method, "clock", "time"), m, "{:.3g}") for line in slices.values()]
        ratios = [_ratio(backward, method, f"time / {name}", m) for name in ("forward", "thin", "values")]
        step = [_ratio(both, method, f"time / {name}", m) for name in ("thin", "values")]
        memory = [
            cell(forward.series(method, "count", "residuals") / matrix, m, "{:.2f}"),
            *(cell(line.series(method, "compiler", view.plan) / matrix, m, "{:.2f}") for line in (forward, backward)),
        ]
        beside = [beside_the_plan(forward, method, m)] if view.attached else []
        rows.append([method, *([*times, *ratios, *step] if view.attached else []), *memory, *beside])
    timed = ["forward (ms)", "backward (ms)", "both (ms)"]
    timed += ["backward / forward", "backward / thin", "backward / values", "both / thin"]
    head = ["method", *([*timed, "both / values"] if view.attached else [])]
    head += ["residuals", f"{view.plan}, forward", f"{view.plan}, backward"]
    note = "Residuals and planned memory in matrices (m x n). "
    if view.attached:
        head.append("peak beside the plan (MiB)")
        note += "Beside the plan: what the process holds in the forward pass above plan and result, LAPACK's workspace."
    else:
        note += "The SVD is a call of cuSOLVER, whose workspace is outside the plan and unknown here."
    compiled = "" if view.attached else f", compiled for {view.target}"
    return Table(f"{m} x {n}, {loss}{compiled}", note, head, rows)


def _ratio(line: View, method: str, quantity: str, n: int) -> str:
    rows = line.rows(method, "clock", quantity)
    return "{:.2g} [{:.2g}, {:.2g}]".format(*rows.loc[n, ["value", "low", "high"]]) if n in rows.index else ""


def _degenerate(view: View) -> Table:
    rows = []
    for method, loss in (
        ("jax_values", "nuclear"), ("jax_thin", "nuclear"), ("lecture", "nuclear"), ("safe", "nuclear"),
        ("jax_thin", "vectors"), ("safe", "vectors"),
    ):  # fmt: skip
        errors = gaps(view, method, loss)
        ends = [outcome(view, method, loss, spectrum) for spectrum in ("equal", "deficient")]
        if len(errors) or any(end is not None for end in ends):
            at = [f"{errors.iloc[i]:.0e} (1/gap {errors.index[i]:.0e})" if len(errors) else "" for i in (0, -1)]
            rows.append([f"{method}, {loss}", *at, *map(_named, ends)])
    head = ("gradient", "error, widest gap", "error, narrowest gap", "two equal values", "two values 0")
    note = (
        "For the nuclear norm the last column is the distance to the subgradient of least norm. By the vectors there "
        "is no gradient in the last two columns: what is shown there is how large the result is."
    )
    return Table(f"Degenerate matrices, {view.dtype}", note, head, rows)


def _named(error: float | None) -> str:
    if error is None:
        return ""
    return "NaN" if isnan(error) else "infinite" if not isfinite(error) else f"{error:.0e}"
