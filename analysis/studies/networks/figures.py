"""The figures and tables of the study ``networks``."""

from collections.abc import Sequence

import numpy as np

from analysis import theory
from analysis.studies.networks.claims import (
    COMPARED,
    CURVE,
    DIVIDED,
    SAVING,
    STACKS,
    STEPS,
    TRAINED,
    UNROLLED,
    by_depth,
    by_segments,
    curves,
    kept,
    losses,
    policies,
    rho,
)
from analysis.studies.remat.readings import SAVED
from analysis.style import (
    COLOURS,
    GREY,
    Drawn,
    Table,
    cell,
    filled,
    legend,
    logs,
    look,
    panels,
    styled,
    with_intervals,
)
from analysis.view import View, at

METHODS = ["plain", "everything", *SAVING]
HIDDEN = (
    "What a step holds while it runs may lie in the buffers of its results, weights and Adam's state, before these are "
    "written: a likely cause of plans below the residuals."
)
UNROLLED_METHODS = ["unrolled", "unrolled_nothing"]
EPS = float(np.finfo(np.float32).eps)
FOLLOWED = ["plain", "dots", "nothing", "sqrt"]


def figures(view: View) -> list[Drawn]:
    """All figures of the study for which the results hold numbers."""
    with styled():
        found = [network for network in STACKS if len(policies(view, network).planned("plain"))]
        if not found:
            return []
        drawn = [split(view, found)]
        if any(len(by_segments(view, network).planned("segments")) for network in found):
            drawn.append(segments(view, found))
        if not view.attached:
            return drawn
        if any(len(policies(view, network).series("plain", "clock", "time")) for network in found):
            drawn.append(frontier(view, found))
        depths, batches = ([by(view, network) for network in found] for by in (by_depth, policies))
        if all(len(line.planned("plain")) > 2 for line in depths):
            drawn.append(sweep(found, depths, "depth", [f"batch {COMPARED[network][1]}" for network in found]))
        if all(len(line.planned("plain")) > 2 for line in batches):
            drawn.append(sweep(found, batches, "batch", [f"{COMPARED[network][0]} blocks" for network in found]))
        if any(len(losses(curves(view, network), "plain")) for network in found):
            drawn.append(of_curves(view, found))
        return drawn


def split(view: View, networks: list[str]) -> Drawn:
    """Planned memory as residuals and workspace."""
    figure, axes = panels(len(networks), 4.6)
    for ax, network in zip(axes, networks, strict=True):
        line, n = policies(view, network), COMPARED[network][1]
        planned = {m: at(line.planned(m), n) for m in METHODS}
        shown = [m for m in METHODS if planned[m] is not None]
        residuals = np.array([kept(line, m, n) or 0.0 for m in shown])
        plan = np.array([planned[m] or 0.0 for m in shown])
        where = np.arange(len(shown))
        inside = np.minimum(residuals, plan)
        ax.bar(where, inside, color=COLOURS[0], label="residuals, as counted")
        ax.bar(where, plan - inside, bottom=inside, color=COLOURS[4], hatch="//", edgecolor="white", label="workspace")
        ax.plot(where, residuals, "_", color="black", ms=14, label="residuals, where the plan is less")
        for x, value in zip(where, plan, strict=True):
            ax.annotate(f"{value:.0f}", (x, value), (0, 3), textcoords="offset points", ha="center", fontsize=8)
        ax.set_xticks(where, shown, rotation=35, ha="right")
        ax.set(ylabel=f"{view.plan} (carries)", title=f"{network}, {COMPARED[network][0]} blocks, batch {n}")
        ax.grid(axis="x", visible=False)
        ax.legend(loc="upper right")
    return Drawn(
        "split",
        "Memory of a training step: residuals and workspace",
        "A carry is what one block hands to the next. Residuals are counted in the program: what the forward pass "
        "keeps for the backward pass. Workspace is the rest of the plan, the gradient and what a block needs while it "
        f"runs among it; values moved to the host are in neither; on a CPU, where that is the same memory, "
        f"they stand as workspace. {HIDDEN}",
        figure,
    )


def segments(view: View, networks: list[str]) -> Drawn:
    figure, axes = panels(len(networks), 4.6)
    for i, (ax, network) in enumerate(zip(axes, networks, strict=True)):
        planned, each = by_segments(view, network).planned("segments"), rho(view, network)
        depth, batch = DIVIDED[network]
        ax.plot(planned.index, planned, label=f"{view.plan}, planned", **look(i))
        if each is not None and len(planned):
            k = np.geomspace(planned.index.min(), planned.index.max(), 100)
            curve = np.array([theory.segments_memory(depth, each, float(x)) for x in k])
            words = f"predicted: k + rho n / k, rho = {each:.2f}"
            ax.plot(k, curve, ls=(0, (4, 3)), color="black", lw=1, label=words)
            best = theory.best_segments(depth, each)
            ax.axvline(best, color=GREY, lw=1, label=f"predicted best: {best:.1f}")
        logs(ax, "segments k", "carries", f"{network}, {depth} blocks, batch {batch}")
        legend(ax)
    return Drawn(
        "segments",
        "How many segments take the least memory",
        "Predicted from the residuals of plain backprop alone, without what a step holds besides them, such as the "
        f"weights' gradients. {HIDDEN}",
        figure,
    )


def frontier(view: View, networks: list[str]) -> Drawn:
    figure, axes = panels(len(networks), 4.8)
    for ax, network in zip(axes, networks, strict=True):
        line, n = policies(view, network), COMPARED[network][1]
        for i, method in enumerate(METHODS):
            rows, memory = line.rows(method, "clock", "time / plain"), at(line.planned(method), n)
            if memory is not None and n in rows.index:
                with_intervals(ax, [memory], rows.loc[[n]], method, ls="", **look(i))
            elif memory is not None and method == "plain":
                ax.plot(memory, 1.0, label=method, **look(i))
        logs(
            ax,
            f"{view.plan} (carries)",
            "time of a step / plain",
            f"{network}, {COMPARED[network][0]} blocks, batch {n}",
        )
        legend(ax)
    return Drawn(
        "frontier",
        "Memory against time of a training step",
        "Times are medians of paired ratios with 95% intervals. Left and low is better.",
        figure,
    )


def sweep(networks: list[str], lines: list[View], name: str, fixed: list[str]) -> Drawn:
    """Memory and time over depth, or over the batch."""
    figure, axes = panels(2 * len(networks), 4.4)
    for k, (network, line) in enumerate(zip(networks, lines, strict=True)):
        for i, method in enumerate(FOLLOWED):
            planned = line.series(method, "compiler", line.plan) / 2**20
            axes[2 * k].plot(planned.index, planned, label=method, **look(i))
            rows = line.rows(method, "clock", "time")
            with_intervals(axes[2 * k + 1], rows.index, rows, method, 1e3, **look(i))
        logs(axes[2 * k], name, f"{line.plan} (MiB)", f"{network}, {fixed[k]}: memory")
        logs(axes[2 * k + 1], name, "time of a step (ms)", f"{network}, {fixed[k]}: time")
        legend(axes[2 * k])
        legend(axes[2 * k + 1])
    return Drawn(name, f"A training step over {name}", "Planned memory, and time with 95% intervals.", figure)


def of_curves(view: View, networks: list[str]) -> Drawn:
    figure, axes = panels(2 * len(networks), 4.4)
    for k, network in enumerate(networks):
        plain = losses(curves(view, network), "plain")
        axes[2 * k].plot(plain.index, plain, color="black", marker="o", label="plain")
        axes[2 * k].set(xlabel="step", ylabel="loss (nats)", title=network, ylim=(0, None))
        farthest = 0.0
        for i, method in enumerate(TRAINED):
            found = losses(curves(view, network), method)
            apart = (found - plain).abs() / plain
            farthest = max([farthest, *apart])
            axes[2 * k + 1].plot(apart.index, apart, label=method, lw=1, **look(i))
        title = f"{network}: distance from plain"
        axes[2 * k + 1].set(xlabel="step", ylabel="relative difference of the loss", title=title)
        axes[2 * k + 1].set_ylim(0, 1.1 * max(EPS, farthest))
        legend(axes[2 * k])
        legend(axes[2 * k + 1])
    return Drawn(
        "curves",
        f"The loss over {STEPS} steps, by policy",
        "The same weights, batches and optimiser. What differs between methods is rounding: a compiler that arranges "
        f"sums in another order. Networks of {', '.join(f'{CURVE[name][0]} blocks ({name})' for name in networks)}.",
        figure,
    )


def tables(view: View) -> list[Table]:
    """Every method at the size at which they are compared, and the programs without a loop."""
    found = []
    for network in STACKS:
        looped = policies(view, network), [*METHODS, "forward"], COMPARED[network][1], f"{COMPARED[network][0]} blocks"
        unrolled = by_depth(view, network), UNROLLED_METHODS, UNROLLED, f"{UNROLLED} blocks without a loop"
        for line, methods, n, words in (looped, unrolled):
            table = _methods(line, methods, n, f"{network}, {words}, batch {COMPARED[network][1]}")
            found += [filled(table)] if table.rows else []
    return found


def _methods(line: View, methods: list[str], n: int, title: str) -> Table:
    rows, plan, mib = [], line.plan, "{:.1f}"
    for method in methods:
        memory = line.planned(method)
        if n not in memory.index:
            continue
        residuals, ratio = kept(line, method, n), line.rows(method, "clock", "time / plain")
        flops, plain = (line.series(name, "count", "flops") for name in (method, "plain"))
        rows.append(
            [
                method,
                "" if residuals is None else f"{residuals:.1f}",
                f"{memory[n]:.1f}",
                "" if residuals is None else f"{memory[n] - residuals:.1f}",
                cell(line.series(method, "compiler", plan) / 2**20, n, mib),
                cell(line.series(method, "compiler", "total") / 2**20, n, mib),
                cell(line.series(method, "compiler", "host") / 2**20, n, mib),
                cell(line.series(method, line.peak_ruler, "peak") / 2**20, n, mib),
                cell(line.series(method, "clock", "time") * 1e3, n, mib),
                "{:.2f} [{:.2f}, {:.2f}]".format(*ratio.loc[n, ["value", "low", "high"]]) if n in ratio.index else "",
                cell((flops / plain).dropna(), n, "{:.2f}"),
            ]
        )
    head = (
        "method", "residuals (carries)", f"{plan} (carries)", "workspace (carries)", f"{plan} (MiB)", "total (MiB)",
        "on the host (MiB)", f"{line.peak_ruler} peak (MiB)", "time of a step (ms)", "time / plain", "flops / plain",
    )  # fmt: skip
    where = "" if line.attached else f", compiled for {line.target}"
    return Table(title + where, _saved_nothing(line, methods, n), head, rows)


def _saved_nothing(line: View, methods: list[str], n: int) -> str:
    """Which methods the compiler plans as much memory for as for the first, which checkpoints nothing."""
    plain, *others = ((method, at(line.planned(method), n)) for method in methods if method != "forward")
    idle = [method for method, planned in others if planned and plain[1] and planned > SAVED * plain[1]]
    return f"It saved nothing (at least {SAVED:.0%} of the plan of {plain[0]}): {', '.join(idle)}." if idle else ""


def across(views: Sequence[View]) -> list[Table]:
    """What each target's compiler plans for a step, policy by policy; of one target nothing."""
    if len(views) < 2:
        return []
    found = []
    for network in STACKS:
        lines, n = [policies(view, network) for view in views], COMPARED[network][1]
        rows = []
        for method in METHODS:
            planned = [at(line.planned(method), n) for line in lines]
            residuals = kept(lines[0], method, n)
            if any(value is not None for value in planned):
                words = ["" if value is None else f"{value:.1f}" for value in (residuals, *planned)]
                rows.append([method, *words])
        head = (f"{network}, carries", "residuals", *(f"{view.target}" for view in views))
        title = f"Planned memory of a training step by target, {network}, {COMPARED[network][0]} blocks, batch {n}"
        found += [Table(title, "", head, rows)] if rows else []
    return found
