"""The figure of the study ``remat``: what checkpointing leaves of the memory, by form and target."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.style import COLOURS, styled
from analysis.remat import Cell

HATCHES = ["", "//", "..", "xx", "--", "++"]


def survival(cells: Sequence[Cell]) -> Figure:
    """Planned memory with checkpointing over that without, a group of bars a form, a bar a target."""
    forms = list(dict.fromkeys(cell.form for cell in cells))
    targets = list(dict.fromkeys(cell.target for cell in cells))
    with styled():
        figure = Figure(figsize=(2.4 + 2.1 * len(forms), 4.4), layout="constrained")
        ax = figure.subplots()
        width = 0.8 / len(targets)
        for i, target in enumerate(targets):
            mine = {cell.form: cell for cell in cells if cell.target == target}
            where = np.array([k for k, form in enumerate(forms) if form in mine]) + (i - (len(targets) - 1) / 2) * width
            shares = [mine[form].planned / mine[form].plain for form in forms if form in mine]
            look = {"color": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i % len(HATCHES)], "edgecolor": "white"}
            ax.bar(where, shares, 0.92 * width, label=target, **look)  # type: ignore[arg-type]
            for x, share, form in zip(where, shares, (form for form in forms if form in mine), strict=True):
                cell = mine[form]
                ax.annotate(
                    f"{cell.left}/{cell.written}",
                    (x, share),
                    (0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
        ax.axhline(1, color="black", lw=1, ls=(0, (4, 3)), label="without checkpointing")
        ax.set_xticks(range(len(forms)), [form.replace(", ", "\n") for form in forms])
        ax.set(ylabel="planned memory / the same without checkpointing", ylim=(0, None))
        ax.grid(axis="x", visible=False)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(targets) + 1)
    return figure
