"""Errors against what rounding explains, of computations with the inverse of a matrix of known condition."""

from dataclasses import replace

from analysis import theory
from analysis.rules import exact
from analysis.verdict import Test, at_most
from analysis.view import View

MEANINGLESS = 0.01  # beyond this share of its size an expected error says that no digit can be
ROUNDINGS = 10  # times what rounding explains
ALLOWED = "errors of several operations add up; an order of magnitude more would be an error of another kind"


def scaled_errors(view: View, method: str) -> tuple[list[tuple[int, int, float, float]], int]:
    """(n, decades, error, error over what rounding explains) of each case in which digits can be expected.

    With it the number of cases in which none can: where cond(X) eps sqrt(n) reaches ``MEANINGLESS``.
    """
    mine = view.noted(view.frame[(view.frame["method"] == method) & (view.frame["quantity"] == "gradient error")])
    rows, dropped = [], 0
    for n, decades, error in zip(mine["n"], mine["decades"], mine["value"], strict=True):
        expected = theory.rounding_error(int(n), int(decades), view.eps)
        if expected < MEANINGLESS:
            rows.append((int(n), int(decades), float(error), float(error) / expected))
        else:
            dropped += 1
    return rows, dropped


def largest_error(view: View, method: str, condition: str) -> Test:
    """The largest of a method's errors over what rounding explains."""
    rows, dropped = scaled_errors(view, method)
    test = Test(method, "check", f"largest error / ({condition} eps sqrt(n))", at_most(ROUNDINGS, ALLOWED))
    if not rows:
        return test
    n, decades, error, share = max(rows, key=lambda row: nan_last(row[3]))
    why = f"The worst is {error:.1e} at n = {n}, {condition} = 1e{decades}; the largest error of all is "
    why += f"{max(row[2] for row in rows):.1e}."
    if dropped:
        why += (
            f" {dropped} cases are left out, where {condition} eps sqrt(n) is above {MEANINGLESS}: no digit is right."
        )
    return replace(test, found=exact(share, len(rows)), why=why)


def nan_last(value: float) -> float:
    """A key by which NaN is the largest."""
    return float("inf") if value != value else value
