"""Errors against what rounding explains, of computations with the inverse of a matrix of known condition."""

from analysis import theory
from analysis.view import View

MEANINGLESS = 0.01  # beyond this share of its size an expected error says that no digit can be


def scaled_errors(view: View, method: str) -> list[tuple[int, int, float, float]]:
    """(n, decades, error, error over what rounding explains) of each case in which digits can be expected."""
    mine = view.frame[(view.frame["method"] == method) & (view.frame["quantity"] == "gradient error")]
    rows = []
    for n, decades, error in zip(mine["n"], mine["decades"], mine["value"], strict=True):
        expected = theory.rounding_error(int(n), int(decades), view.eps)
        if expected < MEANINGLESS:
            rows.append((int(n), int(decades), float(error), float(error) / expected))
    return rows
