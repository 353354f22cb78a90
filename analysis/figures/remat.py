"""The figure of the study ``remat``: what checkpointing leaves of the memory, by form and target."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.style import COLOURS, styled
from analysis.remat import Cell

HATCHES = ["", "//", "..", "xx", "--", "++"]


def survival(cells: Sequence[Cell]) -> Figure:
    """Planned memory with checkpointing over that without: a form a row, in it a bar a target."""
    forms = list(dict.fromkeys(cell.form for cell in cells))
    targets = list(dict.fromkeys(cell.target for cell in cells))
    with styled():
        figure = Figure(figsize=(9, 1.6 + (0.3 + 0.2 * len(targets)) * len(forms)), layout="constrained")
        ax = figure.subplots()
        height = 0.8 / len(targets)
        for i, target in enumerate(targets):
            mine = [cell for cell in cells if cell.target == target]
            where = np.array([forms.index(cell.form) for cell in mine]) + (i - (len(targets) - 1) / 2) * height
            shares = [cell.planned / cell.plain for cell in mine]
            look = {"color": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i % len(HATCHES)], "edgecolor": "white"}
            ax.barh(where, shares, 0.92 * height, label=target, **look)  # type: ignore[arg-type]
            for y, share, cell in zip(where, shares, mine, strict=True):
                said = f"{cell.left}/{cell.written}"
                ax.annotate(said, (share, y), (3, 0), textcoords="offset points", va="center", fontsize=8)
        ax.axvline(1, color="black", lw=1, ls=(0, (4, 3)), label="without checkpointing")
        ax.set_yticks(range(len(forms)), forms)
        ax.invert_yaxis()
        ax.set(xlabel="planned memory / the same without checkpointing", xlim=(0, None))
        ax.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=len(targets) + 1)
    return figure
