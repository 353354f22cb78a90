"""Which to use: what a study's numbers say to somebody who must choose, for a reader who has five minutes.

Nothing is advised that was not measured in the run; methods whose intervals overlap are named together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from analysis.view import View

Interval = tuple[float, float, float]  # value, low, high


@dataclass(frozen=True)
class Advice:
    """An answer to one question of a reader, with the numbers that it rests on."""

    study: str
    target: str
    question: str
    use: str
    measured: str


def in_words(found: Interval) -> str:
    """A measured value with its interval."""
    value, low, high = found
    digits = ".2f" if value >= 0.1 else ".2g"
    interval = "" if low == high else f" [{low:{digits}}, {high:{digits}}]"
    return f"{value:{digits}}{interval}"


def least(view: View, question: str, candidates: Mapping[str, Interval | None], unit: str) -> Iterable[Advice]:
    """The candidate with the least value, and those whose intervals overlap with its own; nothing of fewer than two."""
    known = {name: found for name, found in candidates.items() if found is not None}
    if len(known) < 2:
        return []
    ordered = sorted(known, key=lambda name: known[name][0])
    best = known[ordered[0]]
    chosen = [name for name in ordered if known[name][1] <= best[2]]
    said = "; ".join(f"{name} {in_words(known[name])}" for name in ordered)
    return [Advice(view.study, view.target, question, " or ".join(_named(view, chosen)), f"{said} {unit}")]


def frontier(
    view: View,
    question: str,
    memory: "pd.Series[float]",
    ratios: Mapping[str, Interval | None],
    unit: str,
    over: str,
) -> Iterable[Advice]:
    """What to take as memory gets scarce.

    First the fastest method; of methods whose intervals overlap with the fastest one's, that with the least memory.
    Then the same among the methods that take less memory than the last one chosen, and so on.
    """
    known = {name: found for name, found in ratios.items() if found is not None and name in memory.index}
    if len(known) < 2:
        return []
    chosen: list[str] = []
    left = list(known)
    while left:
        fastest = known[min(left, key=lambda name: known[name][0])]
        alike = [name for name in left if known[name][1] <= fastest[2]]
        chosen.append(min(alike, key=lambda name: float(memory[name])))
        left = [name for name in left if memory[name] < memory[chosen[-1]]]
    said = "; ".join(f"{name} {memory[name]:.1f} {unit}, {in_words(known[name])}" for name in chosen)
    return [Advice(view.study, view.target, question, ", ".join(_named(view, chosen)), f"{said} of the time of {over}")]


def _named(view: View, methods: Iterable[str]) -> list[str]:
    """Methods as their labels have them, for people."""
    labels = {method: traits.label for method in methods if (traits := view.traits(method)) and traits.label}
    return [f"{labels[method]} ({method})" if method in labels else method for method in methods]
