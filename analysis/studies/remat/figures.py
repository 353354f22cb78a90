"""The figure of the study ``remat``: what checkpointing leaves of the memory, by form and target."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.studies.remat.readings import Cell, cells
from analysis.style import COLOURS, Drawn, Table, styled
from analysis.view import View

HATCHES = ["", "//", "..", "xx", "--", "++"]


def across(views: Sequence[View]) -> list[Table | Drawn]:
    """What became of the recomputation, by form and target."""
    found = cells(views)
    if not found:
        return []
    left = [
        [row.form, row.target, f"{row.left} / {row.written}", f"{row.planned:.1f} / {row.plain:.1f}"] for row in found
    ]
    became = [
        [row.form, row.target, *("yes" if did else "no" for did in (row.survived, row.saved)), row.why] for row in found
    ]
    return [
        Table(
            "Did the recomputation survive compilation, and did it save memory?",
            "jax.checkpoint around segments of about sqrt(n) layers; barriers are its prevent_cse; "
            f"{found[0].depth} layers. Matrix products are counted in the program as written (its jaxpr) and as "
            "compiled, loops with their trip counts.",
            ("form", "target", "recomputed products left / written", "activations with / without"),
            left,
        ),
        Drawn(
            "survival",
            "Memory with checkpointing over memory without",
            "Planned memory with checkpointing over that of the same program without. Beside each bar: recomputed "
            "products left in the compiled program, of those written.",
            survival(found),
        ),
        Table("What became of it", "", ("form", "target", "survived", "saved", "what became of it"), became),
    ]


def survival(found: Sequence[Cell]) -> Figure:
    """Planned memory with checkpointing over that without: a form a row, in it a bar a target."""
    forms = list(dict.fromkeys(cell.form for cell in found))
    targets = list(dict.fromkeys(cell.target for cell in found))
    with styled():
        figure = Figure(figsize=(9, 1.6 + (0.3 + 0.2 * len(targets)) * len(forms)), layout="constrained")
        ax = figure.subplots()
        height = 0.8 / len(targets)
        for i, target in enumerate(targets):
            mine = [cell for cell in found if cell.target == target]
            where = np.array([forms.index(cell.form) for cell in mine]) + (i - (len(targets) - 1) / 2) * height
            shares = [cell.planned / cell.plain for cell in mine]
            look: dict[str, Any] = {
                "color": COLOURS[i % len(COLOURS)],
                "hatch": HATCHES[i % len(HATCHES)],
                "edgecolor": "white",
            }
            ax.barh(where, shares, 0.92 * height, label=target, **look)
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
