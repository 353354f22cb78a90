"""Which to use: what a study's numbers say to somebody who must choose, for a reader who has five minutes.

Nothing is advised that was not measured in the run. Two candidates are compared with each other directly, in the rounds
that both were timed in. Where these cannot tell, that is the answer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.view import Found, View

ALIKE = 1.1  # candidates are as fast as each other if the interval of their ratio ends below this factor
Ratio = Callable[[str, str], Found | None]  # of the first candidate's cost over the second's


@dataclass(frozen=True)
class Advice:
    """An answer to one question of a reader, with the numbers that it rests on."""

    study: str
    target: str
    question: str
    use: str
    measured: str


def in_words(found: Found) -> str:
    """A measured value with its interval."""
    value, low, high = found[:3]
    digits = ".2f" if value >= 0.1 else ".2g"
    interval = "" if low == high else f" [{low:{digits}}, {high:{digits}}]"
    return f"{value:{digits}}{interval}"


def least(view: View, question: str, candidates: Sequence[str], ratio: Ratio, unit: str) -> Iterable[Advice]:
    """The candidate that costs the least, or that the run cannot tell; nothing of fewer than two that were measured.

    The first candidate is the one in whose cost all are given.
    """
    base = candidates[0]
    known = {name: found for name in candidates if (found := ratio(name, base)) is not None}
    if len(known) < 2:
        return []
    ordered = sorted(known, key=lambda name: known[name].value)
    best, rivals = ordered[0], _rivals(ordered[0], ordered[1:], ratio)
    said = "; ".join(f"{name} {in_words(known[name])}" for name in ordered)
    return [Advice(view.study, view.target, question, _chosen(view, best, rivals, ratio), f"{said} {unit}")]


def _rivals(best: str, others: Iterable[str], ratio: Ratio) -> list[str]:
    """Those that are not told from the best, and those to which there is no ratio."""
    return [name for name in others if (found := ratio(name, best)) is None or found.low <= 1]


def _chosen(view: View, best: str, rivals: Sequence[str], ratio: Ratio) -> str:
    if not rivals:
        return _named(view, best)
    if all(_alike(rival, best, ratio) and _alike(best, rival, ratio) for rival in rivals):
        return f"{_named(view, best)}; {', '.join(_named(view, name) for name in rivals)} within {ALIKE - 1:.0%} of it"
    return f"cannot tell: {', '.join(_named(view, name) for name in (best, *rivals))}"


def _alike(name: str, other: str, ratio: Ratio) -> bool:
    found = ratio(name, other)
    return found is not None and found.high <= ALIKE


def frontier(
    view: View, question: str, memory: "pd.Series[float]", at: int, base: str, unit: str, over: str
) -> Iterable[Advice]:
    """What to take as memory gets scarce.

    First the fastest method, or one that is shown to be as fast and takes less memory. Then the same among the methods
    that take less memory than the last one chosen, and so on. A method that is slower in every round than another which
    takes no more memory is never chosen, nor one whose time is not known.
    """

    def ratio(name: str, other: str) -> Found | None:
        return view.compared(name, other, at)

    known = {str(name): found for name in memory.index if (found := ratio(str(name), base)) is not None}
    if len(known) < 2:
        return []
    held: Mapping[str, float] = {name: float(memory[name]) for name in known}
    left = [
        name for name in known if not any(view.slower(name, other, at) for other in known if held[other] <= held[name])
    ]
    chosen: list[str] = []
    words = []
    while left:
        fastest = min(left, key=lambda name: known[name].value)
        alike = [name for name in left if name == fastest or _alike(name, fastest, ratio)]
        best = min(alike, key=lambda name: held[name])
        unsure = [name for name in _rivals(best, left, ratio) if name not in alike and held[name] < held[best]]
        chosen.append(_named(view, best) + (f" (cannot tell from {', '.join(unsure)})" if unsure else ""))
        words.append(f"{best} {held[best]:.1f} {unit}, {in_words(known[best])}")
        left = [name for name in left if held[name] < held[best]]
    return [Advice(view.study, view.target, question, ", ".join(chosen), f"{'; '.join(words)} of the time of {over}")]


def _named(view: View, method: str) -> str:
    """A method as its label has it, for people."""
    traits = view.traits(method)
    return f"{traits.label} ({method})" if traits and traits.label else method
