"""The figures and tables of the study ``machine``."""

from analysis.studies.machine.claims import MAPPED, rate
from analysis.style import Drawn, Table, legend, logs, look, panels, styled, with_intervals
from analysis.view import View

SHOWN = ("touched", "kept", "fresh")


def figures(view: View) -> list[Drawn]:
    """Seconds a byte over the size of the buffer."""
    if not view.attached:
        return []
    with styled():
        figure, (ax,) = panels(1, 5.2)
        for i, method in enumerate(SHOWN):
            rows, moved = view.rows(method, "clock", "time"), view.series(method, "count", "moved")
            sizes = [mib for mib in rows.index if mib in moved.index]
            with_intervals(ax, sizes, rows.loc[sizes], method, 1e9 / moved[sizes].to_numpy(), **look(i))
        ax.axvline(MAPPED, color="black", lw=1, ls=(0, (4, 3)), label=f"{MAPPED} MiB")
        logs(ax, "buffer (MiB)", "time a byte that is moved (ns)")
        legend(ax)
    caption = (
        f"A new buffer above {MAPPED} MiB is mapped anew by glibc each time; the others' pages were touched before."
    )
    return [Drawn("memory", "What a byte costs, touched before and fresh", caption, figure)]


def tables(view: View) -> list[Table]:
    """The machine's rates."""
    found = rate(view)
    rows = [] if found is None else [["product of matrices", f"{found / 1e9:.0f} Gflop/s"]]
    for method in SHOWN:
        moved, time = view.series(method, "count", "moved"), view.series(method, "clock", "time")
        rates = (moved / time).dropna()
        if len(rates):
            sizes = f"{rates.index[0]} and {rates.index[-1]} MiB"
            rows.append([f"{method}, {sizes}", f"{rates.iloc[0] / 1e9:.1f} and {rates.iloc[-1] / 1e9:.1f} GB/s"])
    return [Table("Rates of this machine", "", ("what", "rate"), rows)] if rows else []
