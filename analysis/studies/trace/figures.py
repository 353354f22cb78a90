"""The figures and tables of the study ``trace``."""

import numpy as np

from adcost.rulers.estimate import RUN_LENGTH, RUNS
from analysis.studies.trace.claims import (
    DIMENSION,
    KINDS,
    ORDERS_AT,
    budgets,
    costs,
    errors,
    estimates,
    predicted_variance,
    said,
)
from analysis.style import (
    COLOURS,
    GREY,
    Drawn,
    Table,
    filled,
    legend,
    logs,
    look,
    panels,
    styled,
    with_intervals,
)
from analysis.view import View

COSTS = ["fwd_rev", "fwd_rev_chunked", "fwd_rev_sequential"]
ESTIMATORS = ["hutchinson", "hutchpp", "xtrace", "matfree_hutchinson", "matfree_xtrace"]
ORDERS = [
    "fwd_rev",
    "rev_fwd",
    "rev_rev",
    "linearized",
    "fwd_rev_chunked",
    "fwd_rev_sequential",
    "linearized_sequential",
]
NETWORKS = ("small", "large")


def figures(view: View) -> list[Drawn]:
    """All figures of the study for which the results hold numbers."""
    with styled():
        if not view.attached:
            return []
        drawn = [runs(view), error(view)] if said(view, "rademacher", "mean") is not None else []
        if len(costs(view, "small").series("fwd_rev", "clock", "time")) > 1:
            drawn.append(cost(view))
        if len(budgets(view).series("hutchinson", "estimate", "error")) > 1:
            drawn.append(of_budgets(view))
        return drawn


def runs(view: View) -> Drawn:
    """The lecture's figure 13."""
    figure, (ax,) = panels(1, 4.6)
    figure.set_size_inches(7.6, 4.6)
    exact, predicted = said(view, "rademacher", "exact trace"), predicted_variance(view, "rademacher")
    assert exact is not None
    assert predicted is not None
    sample = estimates(view, "rademacher")
    for run in range(RUNS):
        mine = sample.indexed("estimates", "estimate", "running mean", "probes", run=run)
        ax.plot(mine.index, mine, lw=1, color=COLOURS[run % len(COLOURS)], label=f"run {run + 1}")
    through = np.geomspace(1, RUN_LENGTH, 100)
    half = 1.96 * np.sqrt(predicted / through)
    ax.fill_between(
        through, exact[0] - half, exact[0] + half, color=GREY, alpha=0.25, lw=0, label="predicted: 95% band"
    )
    ax.axhline(exact[0], color="black", lw=1, ls=(0, (4, 3)), label="exact trace")
    ax.set(xscale="log", xlabel="probes V", ylabel="estimate of the trace", title="Signs as probes")
    legend(ax)
    return Drawn(
        "runs",
        "Hutchinson's estimate of the trace of a network's Hessian, several runs",
        f"A network of {DIMENSION['small']} weights on handwritten digits. The band is 1.96 standard errors by theory, "
        "from the exact Hessian.",
        figure,
    )


def error(view: View) -> Drawn:
    figure, (ax,) = panels(1, 4.8)
    figure.set_size_inches(7.0, 4.8)
    for i, kind in enumerate(KINDS):
        found = errors(view, kind)
        exact, predicted = said(view, kind, "exact trace"), predicted_variance(view, kind)
        if len(found) == 0 or exact is None or predicted is None:
            continue
        ax.plot(found.index, found, label=kind, **look(i))
        line = np.sqrt(predicted / found.index.to_numpy(float)) / abs(exact[0])
        ax.plot(found.index, line, ls=(0, (4, 3)), lw=1, color=look(i)["color"])
    ax.plot([], [], ls=(0, (4, 3)), lw=1, color="black", label="predicted: sqrt(variance / V)")
    logs(ax, "probes V", "relative error (root mean square)", "Error of the mean of V probes")
    legend(ax)
    return Drawn(
        "error",
        "The error falls as the square root of the number of probes",
        "Blocks of V out of one large sample of quadratic forms. Dashed: theory, from the exact Hessian; no parameter "
        "is fitted.",
        figure,
    )


def cost(view: View) -> Drawn:
    figure, axes = panels(2, 4.8)
    line = costs(view, "small")
    for i, method in enumerate(COSTS):
        rows = line.rows(method, "clock", "time")
        with_intervals(axes[0], rows.index, rows, method, 1e3, **look(i))
        planned = line.series(method, "compiler", view.plan) / 2**20
        axes[1].plot(planned.index, planned, label=method, **look(i))
    rows = line.rows("exact", "clock", "time")
    with_intervals(axes[0], rows.index, rows, "exact: d products", 1e3, color="black", ls=":")
    logs(axes[0], "probes V", "time (ms)", "Time")
    logs(axes[1], "probes V", f"{view.plan} (MiB)", "Planned memory")
    for ax in axes:
        legend(ax)
    return Drawn(
        "costs",
        "V products with the Hessian: all at once, in chunks, one by one",
        f"The network of {DIMENSION['small']} weights. The dotted line is the exact trace, by as many products as "
        "there are weights.",
        figure,
    )


def of_budgets(view: View) -> Drawn:
    figure, axes = panels(2, 4.8)
    line = budgets(view)
    for i, method in enumerate(ESTIMATORS):
        rows = line.rows(method, "estimate", "error")
        with_intervals(axes[0], rows.index, rows, method, **look(i))
        seconds = line.series(method, "clock", "time")
        draws = line.frame[line.frame["method"] == method]["draws"]
        both = rows.index.intersection(seconds.index)
        if len(both):
            axes[1].plot(1e3 * seconds[both] / float(draws.iloc[0]), rows["value"][both], label=method, **look(i))
    logs(axes[0], "products with the Hessian", "relative error (root mean square)", "At equal numbers of products")
    logs(axes[1], "time of an estimate (ms)", "relative error (root mean square)", "At equal time")
    for ax in axes:
        legend(ax)
    return Drawn(
        "budgets",
        "Hutchinson, Hutch++ and XTrace",
        "Normal probes, the same for all. matfree's XTrace rotates its probes afresh, which ours does not.",
        figure,
    )


def tables(view: View) -> list[Table]:
    """Orders of the two modes on both networks, and the estimators."""
    found = [_orders(view, network) for network in NETWORKS]
    return [filled(table) for table in found if table.rows]


def _orders(view: View, network: str) -> Table:
    line, v = costs(view, network), ORDERS_AT
    rows = []
    for method in ["gradient", *ORDERS, "exact"]:
        seconds, planned = line.series(method, "clock", "time"), line.series(method, "compiler", view.plan)
        if v not in planned.index:
            continue
        ratio, flops = line.rows(method, "clock", "time / fwd_rev"), line.series(method, "count", "flops")
        peak = line.series(method, "process", "peak")
        rows.append(
            [
                method,
                f"{flops[v]:.2e}" if v in flops.index else "",
                f"{1e3 * seconds[v]:.2f}" if v in seconds.index else "",
                "{:.2f} [{:.2f}, {:.2f}]".format(*ratio.loc[v, ["value", "low", "high"]]) if v in ratio.index else "",
                f"{planned[v] / 2**20:.2f}",
                f"{peak[v] / 2**20:.1f}" if v in peak.index else "",
            ]
        )
    head = ("method", "flops", "time (ms)", "time / fwd_rev", f"{view.plan} (MiB)", "process peak (MiB)")
    where = "" if view.attached else f", compiled for {view.target}"
    return Table(f"{v} probes, {DIMENSION[network]} weights{where}", "", head, rows)
