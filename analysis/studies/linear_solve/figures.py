"""The figures and tables of the study ``linear_solve``."""

import numpy as np

from analysis import theory
from analysis.memory import beside_the_plan
from analysis.rounding import scaled_errors
from analysis.studies.linear_solve.claims import AT, PARTS, SINGULAR, anchors, flops_ratio, part, singular_outcome
from analysis.style import Drawn, Table, cell, filled, legend, log_x, logs, look, panels, styled, with_intervals
from analysis.view import View

SWEPT = ["kept_lu", "kept_columns", "jax_solve", "factorised_again", "kept_inverse", "jax_inverse", "jax_lu_factor"]


def figures(view: View) -> list[Drawn]:
    """All figures of the study for which the results hold numbers."""
    with styled():
        if not view.attached:
            return []
        drawn = [error(view)] if len(_conditions(view)) > 2 else []
        timed = part(view, "backward").series("kept_lu", "clock", "time / forward")
        return [ratio(view), costs(view), *drawn] if view.dtype == "float32" and len(timed) > 1 else drawn


def _conditions(view: View) -> list[int]:
    line = view.along("decades", part="both", n=AT, rhs=1, batch=1)
    return [int(k) for k in line.series("kept_lu", "check", "gradient error").index if k < SINGULAR]


def ratio(view: View) -> Drawn:
    figure, (ax,) = panels(1, 5.6)
    figure.set_size_inches(7.6, 5.6)
    line = part(view, "backward")
    for i, method in enumerate(SWEPT):
        rows = line.rows(method, "clock", "time / forward")
        with_intervals(ax, rows.index, rows, method, **look(i))
        flops = flops_ratio(view, method)
        ax.plot(flops.index, flops, ls=(0, (4, 3)), lw=1, color=look(i)["color"])
    ax.plot([], [], ls=(0, (4, 3)), lw=1, color="black", label="predicted: flops")
    logs(ax, "order n", "backward / forward", "One right-hand side")
    legend(ax)
    return Drawn(
        "ratio",
        "The backward pass over the forward pass",
        "Two executables, timed in the same rounds, 95% intervals. Dashed, in the same colour: the ratio of their "
        "flops, library calls counted as the textbook has them. What the forward pass keeps is handed over.",
        figure,
    )


def costs(view: View) -> Drawn:
    figure, axes = panels(2, 4.8)
    for i, method in enumerate(SWEPT):
        for name, fill in (("forward", "full"), ("backward", "none")):
            seconds = 1e3 * part(view, name).series(method, "clock", "time")
            if len(seconds):
                label = method if name == "forward" else None
                axes[0].plot(
                    seconds.index, seconds, label=label, fillstyle=fill, ls="-" if fill == "full" else ":", **look(i)
                )
        kept = part(view, "forward").series(method, "count", "residuals")
        if len(kept):
            axes[1].plot(kept.index, kept / 4 / np.asarray(kept.index, float) ** 2, label=method, **look(i))
    axes[0].plot([], [], ls=":", marker="o", fillstyle="none", color="black", label="backward (hollow)")
    logs(axes[0], "order n", "time (ms)", "Time of each pass")
    log_x(axes[1], "order n", "handed over (n x n matrices)", "Residuals")
    for ax in axes:
        legend(ax)
    return Drawn(
        "costs",
        "Each pass alone, and what is handed from one to the other",
        "Left: filled, forward; hollow, backward. Right: what the forward pass keeps for the backward pass.",
        figure,
    )


def error(view: View) -> Drawn:
    figure, (ax,) = panels(1, 4.8)
    figure.set_size_inches(6.8, 4.8)
    decades = _conditions(view)
    line = view.along("decades", part="both", n=AT, rhs=1, batch=1)
    for i, method in enumerate(SWEPT):
        errors = line.series(method, "check", "gradient error")
        errors = errors[errors.index < SINGULAR]
        if len(errors):
            ax.plot(10.0**errors.index, errors, label=method, **look(i))
    ends = np.array([min(decades), max(decades)])
    expected = [theory.rounding_error(AT, int(k), view.eps) for k in ends]
    ax.plot(10.0**ends, expected, ls=(0, (4, 3)), color="black", label="predicted: cond eps sqrt(n)")
    logs(ax, "cond(A)", "relative error of the gradients", f"{view.dtype}, n = {AT}")
    ax.set_ylim(top=min(ax.get_ylim()[1], 100.0))
    legend(ax)
    return Drawn(
        "error",
        f"Error of both gradients against the condition of A, {view.dtype}",
        "The larger of the errors of dL/dA and dL/db, against the rule with an inverse of more digits. An error of 1: "
        "no digit is right.",
        figure,
    )


def tables(view: View) -> list[Table]:
    """Every method at the orders at which all are measured; the other shapes; errors and singular matrices."""
    found = []
    if view.attached and view.dtype == "float32":
        found += [_passes(view, f"One system of order {n}", n, 1, 1) for n in anchors(view)]
        found += [
            _passes(view, "256 unknowns, 64 right-hand sides", 256, 64, 1),
            _passes(view, "64 systems of order 16", 16, 1, 64),
        ]
    if not view.attached:
        found += [
            _passes(view, f"One system of order {n}, compiled for {view.target}", n, 1, 1) for n in _compiled(view)
        ]
    if view.attached:
        found.append(_errors(view))
    return [filled(table) for table in found if table.rows]


def _compiled(view: View) -> list[int]:
    return [int(n) for n in part(view, "forward").series("kept_lu", "compiler", view.plan).index]


def _passes(view: View, title: str, n: int, rhs: int, batch: int) -> Table:
    slices = {name: view.along("n", part=name, rhs=rhs, batch=batch, decades=1) for name in PARTS}
    forward, backward, both = (slices[name] for name in ("forward", "backward", "both"))
    matrix = 4 * n * n * batch
    rows = []
    for method in view.methods:
        if n not in forward.series(method, "compiler", view.plan).index:
            continue
        times = [cell(1e3 * line.series(method, "clock", "time"), n, "{:.3g}") for line in slices.values()]
        against = backward.rows(method, "clock", "time / forward")
        ratio = (
            "{:.3g} [{:.3g}, {:.3g}]".format(*against.loc[n, ["value", "low", "high"]]) if n in against.index else ""
        )
        one = both.rows(method, "clock", "time / forward")
        together = "{:.3g}".format(one["value"][n]) if n in one.index else ""
        counted = (backward.series(method, "count", "flops") / forward.series(method, "count", "flops")).dropna()
        planned = [
            cell(line.series(method, "compiler", view.plan) / matrix, n, "{:.2f}") for line in (forward, backward)
        ]
        kept = cell(forward.series(method, "count", "residuals") / matrix, n, "{:.2f}")
        beside = beside_the_plan(forward, method, n)
        measured = [*times, ratio, cell(counted, n, "{:.3g}"), together] if view.attached else []
        rows.append([method, *measured, kept, *planned, *([beside] if view.attached else [])])
    timed = (
        ["forward (ms)", "backward (ms)", "both in one (ms)", "backward / forward", "flops", "both / forward"]
        if view.attached
        else []
    )
    head = ["method", *timed, "residuals", f"{view.plan}, forward", f"{view.plan}, backward"]
    note = "Residuals and planned memory in matrices (n x n). "
    if view.attached:
        head.append("peak beside the plan (MiB)")
        note += (
            "Beside the plan: what the process holds in the forward pass above plan and result, as LAPACK's scratch."
        )
    else:
        note += (
            "Factorisations and triangular solves are calls of cuSOLVER and cuBLAS: their workspace is unknown here."
        )
    return Table(title, note, head, rows)


def _errors(view: View) -> Table:
    rows = []
    for method in view.methods:
        found, _ = scaled_errors(view, method)
        if found:
            worst = max(found, key=lambda row: row[3])
            rows.append(
                [
                    method, f"{max(row[2] for row in found):.1e}", f"{worst[3]:.2f}", f"n = {worst[0]}, 1e{worst[1]}",
                    singular_outcome(view, method) or "",
                ]
            )  # fmt: skip
    head = ("method", "largest error", "largest error / (cond eps sqrt(n))", "at n, cond", "gradient at a singular A")
    return Table("Errors", "", head, rows)
