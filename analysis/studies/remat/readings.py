"""Did the recomputation of ``jax.checkpoint`` survive compilation, and did it save memory? A cell a form and target."""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.view import View

BY_DEFAULT = (  # words, method without checkpointing, method with it
    ("scan, barriers on", "scan", "scan_remat"),
    ("scan, barriers off", "scan", "scan_remat_open"),
    ("unrolled, barriers on", "unrolled", "unrolled_remat"),
    ("unrolled, barriers off", "unrolled", "unrolled_remat_open"),
)
FORMS = (*BY_DEFAULT, *((f"{words}, jax_remat3", plain, f"{remat}3") for words, plain, remat in BY_DEFAULT))
SAVED = 0.95  # of the plain program's memory, or less, is a saving


@dataclass(frozen=True)
class Cell:
    """One form on one target: recomputed matrix products written and left, memory in activations with and without."""

    form: str
    target: str
    depth: int
    written: int
    left: int
    planned: float
    plain: float

    @property
    def survived(self) -> bool:
        return self.left >= self.written

    @property
    def saved(self) -> bool:
        return self.planned <= SAVED * self.plain

    @property
    def why(self) -> str:
        """One sentence on what became of the recomputation."""
        if self.left <= 0:
            did = f"None of the {self.written} recomputed products is left: the compiler took the stored values instead"
        elif self.left < self.written:
            did = f"{self.left} of the {self.written} recomputed products are left"
        else:
            did = f"All {self.written} recomputed products are executed"
        share = f"{self.planned:.1f} activations against {self.plain:.1f}"
        if self.saved:
            return f"{did}, and memory falls: {share}."
        if self.left > 0:
            return f"{did}, and nothing is saved ({share}): what they compute lives beside what was to be dropped."
        return f"{did}, and nothing is saved ({share})."


def cells(views: Sequence[View]) -> list[Cell]:
    """The matrix, form by form, at the least depth that all have; the views differ by target alone."""
    found = []
    for form, plain, remat in FORMS:
        for view in views:
            written = [view.series(name, "count", "matrix products") for name in (plain, remat)]
            compiled = [view.series(name, "compiler", "matrix products") for name in (plain, remat)]
            planned = [view.planned(name) for name in (plain, remat)]
            shared = set.intersection(*(set(series.index) for series in (*written, *compiled, *planned)))
            if not shared:
                continue
            n = min(shared)
            found.append(
                Cell(
                    form,
                    view.target,
                    int(n),
                    int(written[1][n] - written[0][n]),
                    int(compiled[1][n] - compiled[0][n]),
                    float(planned[1][n]),
                    float(planned[0][n]),
                )
            )
    return found
