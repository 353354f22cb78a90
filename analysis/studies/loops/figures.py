"""The figures and tables of the study ``loops``."""

from collections.abc import Sequence

from analysis.studies.loops.claims import BESIDE, OURS, budgets, loops
from analysis.style import Drawn, Table, cell, filled, legend, logs, look, panels, styled, with_intervals
from analysis.view import View, at

METHODS = ["plain", *BESIDE, *OURS]
SHOWN = ("solver", "transformer")  # families of the figure; the tables hold all


def figures(view: View) -> list[Drawn]:
    """All figures of the study for which the results hold numbers."""
    with styled():
        drawn = []
        found = [one for one in loops(view) if len(one.line.series("plain", "clock", "time"))]
        if view.attached and found:
            drawn.append(frontiers(found))
        if tried := list(budgets(view)):
            drawn.append(by_budget(view, tried))
        return drawn


def frontiers(found: Sequence[tuple[str, View, int]]) -> Drawn:
    """Memory against time, ours as one line, peers as points."""
    chosen = [one for one in found if one[0].startswith(SHOWN)][:3]
    figure, axes = panels(len(chosen), 4.8)
    for ax, (name, line, n) in zip(axes, chosen, strict=True):
        places = {m: memory for m in METHODS if (memory := at(line.planned(m), n)) is not None}
        mine = sorted((places[m], m) for m in OURS if m in places and n in line.rows(m, "clock", "time / plain").index)
        for i, method in enumerate(("plain", *BESIDE), 1):
            rows = line.rows(method, "clock", "time / plain")
            if method in places and n in rows.index:
                with_intervals(ax, [places[method]], rows.loc[[n]], method, ls="", **look(i))
            elif method == "plain" and method in places:
                ax.plot(places[method], 1.0, ls="", label=method, **look(i))
        for k, (memory, method) in enumerate(mine):
            rows, label = line.rows(method, "clock", "time / plain").loc[[n]], "" if k else "adcost"
            with_intervals(ax, [memory], rows, label, ls="", **look(0))
        ax.plot([memory for memory, _ in mine], [_time(line, m, n) for _, m in mine], color=look(0)["color"], lw=0.8)
        logs(ax, f"{line.plan} (carries)", "time of a gradient / plain", f"{name}, {n} steps")
        legend(ax)
    return Drawn(
        "peers",
        "A loop's gradient: memory against time, beside what people use",
        "Points of adcost are its methods of the table, joined by memory. Times are medians of paired ratios with 95% "
        "intervals. Left and low is better.",
        figure,
    )


def _time(line: View, method: str, n: int) -> float:
    return float(line.rows(method, "clock", "time / plain")["value"][n])


def by_budget(view: View, tried: Sequence[tuple[str, View]]) -> Drawn:
    """What each budget becomes: planned memory, evaluations, time."""
    figure, axes = panels(2, 4.6)
    for i, (name, line) in enumerate(tried):
        planned, allowed = line.planned("budget"), line.series("budget", "count", "budget")
        known = planned.index.intersection(allowed.index)
        axes[0].plot(allowed[known], planned[known], label=name, **look(i))
        axes[0].plot(allowed, allowed, color="black", lw=1, ls=(0, (4, 3)), label="" if i else "as much as the budget")
        steps = line.series("budget", "count", "steps")
        each = (line.series("budget", "count", "evaluations") / steps).dropna()
        known = planned.index.intersection(each.index)
        axes[1].plot(planned[known], each[known], ls=":", label=f"{name}: evaluations a step", **look(2 * i))
        rows = line.rows("budget", "clock", "time / plain")
        known = planned.index.intersection(rows.index)
        if len(known):
            with_intervals(axes[1], planned[known], rows.loc[known], f"{name}: time / plain", **look(2 * i + 1))
    logs(axes[0], "budget (carries)", f"{view.plan} (carries)", "a budget and its plan")
    logs(axes[1], f"{view.plan} (carries)", "of plain", "what a budget costs")
    for ax in axes:
        legend(ax)
    return Drawn(
        "budgets",
        "Sixteen budgets, from the least to plain backprop",
        "The schedule with the fewest evaluations that fits: blocks, slots and a tail. With the least memory each "
        "activation is computed from the input.",
        figure,
    )


def tables(view: View) -> list[Table]:
    """Every loop by every method."""
    found = [_methods(line, name, n) for name, line, n in loops(view)]
    found += [_budgets(line, name) for name, line in budgets(view)]
    return [filled(table) for table in found if table.rows]


def _methods(line: View, name: str, n: int) -> Table:
    rows, mib = [], "{:.1f}"
    for method in (*METHODS, "forward"):
        memory = line.planned(method)
        if n not in memory.index:
            continue
        ratio = line.rows(method, "clock", "time / plain")
        counted = line.series(method, "count", "evaluations")
        rows.append(
            [
                method,
                f"{memory[n]:.1f}",
                cell(line.series(method, "count", "predicted memory"), n, mib),
                cell(line.planned_bytes(method) / 2**20, n, "{:.3g}"),
                cell(line.series(method, "compiler", "host") / 2**20, n, "{:.3g}"),
                cell(counted / n, n, "{:.2f}"),
                cell(line.series(method, "clock", "time") * 1e3, n, "{:.3g}"),
                "{:.2f} [{:.2f}, {:.2f}]".format(*ratio.loc[n, ["value", "low", "high"]]) if n in ratio.index else "",
                cell(line.series(method, "compile", "compile time"), n, "{:.2f}"),
            ]
        )
    head = (
        "method", f"{line.plan} (carries)", "predicted", f"{line.plan} (MiB)", "on the host (MiB)",
        "evaluations a step", "time (ms)", "time / plain", "compile time (s)",
    )  # fmt: skip
    where = "" if line.attached else f", compiled for {line.target}"
    return Table(f"{name}, {n} steps{where}", "", head, rows)


def _budgets(line: View, name: str) -> Table:
    planned, ratio = line.planned("budget"), line.rows("budget", "clock", "time / plain")
    counted, steps = line.series("budget", "count", "evaluations"), line.series("budget", "count", "steps")
    rows = [
        [
            cell(line.series("budget", "count", "budget"), k, "{:.1f}"),
            f"{planned[k]:.1f}",
            *(cell(line.series("budget", "count", what), k, "{:.0f}") for what in ("block", "slots", "tail")),
            cell((counted / steps).dropna(), k, "{:.2f}"),
            "{:.2f} [{:.2f}, {:.2f}]".format(*ratio.loc[k, ["value", "low", "high"]]) if k in ratio.index else "",
        ]
        for k in planned.index
    ]
    head = ("budget (carries)", f"{line.plan}", "block", "slots", "tail", "evaluations a step", "time / plain")
    where = "" if line.attached else f", compiled for {line.target}"
    return Table(f"Sixteen budgets of the loop {name}{where}", "", head, rows)


def across(views: Sequence[View]) -> list[Table]:
    """What each target's compiler plans for a loop, method by method; of one target nothing."""
    if len(views) < 2:
        return []
    found = []
    for name, line, n in loops(views[0]):
        others = {
            one.name: one.line for view in views for one in loops(view) if one.name == name and view is not views[0]
        }
        lines = [line, *others.values()]
        rows = []
        for method in METHODS:
            planned = [at(each.planned(method), n) for each in lines]
            if any(value is not None for value in planned):
                rows.append([method, *("" if value is None else f"{value:.1f}" for value in planned)])
        head = (f"{name}, carries", *(each.target for each in lines))
        found += [Table(f"Planned memory by target, {name}, {n} steps", "", head, rows)] if rows else []
    return found
