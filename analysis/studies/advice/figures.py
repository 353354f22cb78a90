"""The figure and the table of the study ``advice``."""

from collections.abc import Iterator

from analysis.studies.advice.claims import (
    FIXED,
    MUCH,
    PEERS,
    Cell,
    cells,
    programs,
    ratio,
    total_bytes,
    work_as_advised,
)
from analysis.style import Drawn, Table, cell, filled, logs, look, panels, styled
from analysis.view import Found, View, at


def figures(view: View) -> list[Drawn]:
    """Memory against work, or time where programs run, with what is chosen within each budget."""
    found = list(programs(view))
    if not any(total_bytes(line, "plain", n) for _, line, n in found):
        return []
    with styled():
        return [frontiers(view, found)]


def frontiers(view: View, found: list[tuple[str, View, int]]) -> Drawn:
    """A panel a program; a method looks the same in all of them."""
    figure, axes = panels(len(found), 3.6, across=3)
    every = list(cells(view))
    over = "time / plain" if view.attached else "flops / plain"
    for ax, (name, line, n) in zip(axes, found, strict=True):
        mine = [one for one in every if one.program == name]
        points = [p for one in mine if one.fits and (p := _point(view, line, one.method, n)) is not None]
        if points:
            ax.plot(*zip(*points, strict=True), "o-", color="0.55", mfc="none", ms=11, lw=1, label="as advised")
        for i, method in enumerate((*FIXED, *PEERS)):
            if (point := _point(view, line, method, n)) is not None:
                ax.plot(*point, ls="", label=method, **look(i))
        for one in mine:
            ax.axvline(one.budget / 2**20, color="0.7", lw=0.8, ls=(0, (4, 3)))
        logs(ax, "planned memory (MiB)", over, f"{name}, {n} steps")
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(6, 2 * len(found)))
    return Drawn(
        "budgets",
        "Within a budget: what is advised, beside everything else",
        "Dashed lines are budgets; a ring is what is advised, where anything fits. Left and low is better.",
        figure,
    )


def _point(view: View, line: View, method: str, n: int) -> tuple[float, float] | None:
    total = total_bytes(line, method, n)
    if view.attached:
        over = at(line.series(method, "clock", "time / plain"), n) if method != "plain" else 1.0
    else:
        over = at(line.series(method, "told", "work / plain"), n) or work_as_advised(line, method, n)
    return None if total is None or over is None else (total / 2**20, over)


def tables(view: View) -> list[Table]:
    """Every program within every budget."""
    head = (
        "program", "budget (MiB)", "chosen", "planned (MiB)", "peak (MiB)", "work", "time / plain",
        "time / keep_nothing", "regret", "advised in (s)",
    )  # fmt: skip
    where = "" if view.attached else f", compiled for {view.target}"
    made = Table(f"What is advised within a budget{where}", "", head, [_row(one) for one in cells(view)])
    return [filled(made)] if made.rows else []


def _row(one: Cell) -> list[str]:
    line, n, method = one.line, one.n, one.method
    peak, seconds = line.series(method, "process", "peak"), line.series(method, "told", "time to advise")
    return [
        f"{one.program}, {one.share}%",
        _mib(one.budget),
        one.chosen if one.fits else f"nothing fits (least: {one.chosen})",
        _mib(one.total),
        _mib(peak[n]) if n in peak.index else "",
        f"{one.work:.2f}",
        *("{:.2f} [{:.2f}, {:.2f}]".format(*r[:3]) if r else "" for r in _over(one, ("plain", "keep_nothing"))),
        regret(one),
        cell(seconds, n, "{:.1f}"),
    ]


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f}" if size >= 2**20 else f"{size / 2**20:.2g}"


def _over(one: Cell, others: tuple[str, ...]) -> Iterator[Found | None]:
    for other in others:
        yield ratio(one.line, one.method, other, one.n)


def regret(one: Cell) -> str:
    """How much slower what is chosen is than the fastest that fits, and which that is; ``0`` if it is itself."""
    found = {m: r for m in one.others if (r := ratio(one.line, one.method, m, one.n)) is not None}
    if not one.fits or not found:
        return ""
    best = max(found, key=lambda m: found[m].value)
    if found[best].low <= 1:
        return "cannot tell from the fastest" if found[best].high > MUCH else "0"
    return f"{found[best].value - 1:.0%} ({best})"
