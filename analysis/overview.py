"""Every claim on one line: what was predicted, what was measured and what is said of it, by target."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adcost.targets import ANY
from analysis.verdict import Claim, Verdict

BY_CHANCE = "outside, perhaps by chance"  # refuted by its interval alone, not after Holm's correction


@dataclass(frozen=True)
class Cell:
    """A claim on one target: how many verdicts of each kind, and the one that is shown."""

    counts: Counter[str]
    shown: Verdict


@dataclass(frozen=True)
class Line:
    """A claim, and what became of it on each target; None where nothing is said of it."""

    claim: Claim
    cells: tuple[Cell | None, ...]


def targets(verdicts: Iterable[Verdict]) -> list[str]:
    """The targets of the verdicts; what is counted in the program holds on any and comes first."""
    found = dict.fromkeys(verdict.target for verdict in verdicts)
    return [*(name for name in found if name == ANY), *(name for name in found if name != ANY)]


def lines(verdicts: Sequence[Verdict], claims: Sequence[Claim]) -> list[Line]:
    """A line for each claim of which something is said."""
    columns = targets(verdicts)
    found = []
    for claim in claims:
        mine = [verdict for verdict in verdicts if verdict.claim == claim.id]
        if mine:
            found.append(Line(claim, tuple(_cell([v for v in mine if v.target == name]) for name in columns)))
    return found


def _cell(verdicts: Sequence[Verdict]) -> Cell | None:
    """The first that was measured is shown: a rule begins with what the claim says."""
    if not verdicts:
        return None
    shown = next((verdict for verdict in verdicts if verdict.measured is not None), verdicts[0])
    return Cell(Counter(map(on_the_first_screen, verdicts)), shown)


def on_the_first_screen(verdict: Verdict) -> str:
    """A verdict's kind; refuted is what chance does not explain among so many tests."""
    return verdict.verdict if verdict.verdict != "refuted" or verdict.holds else BY_CHANCE


def counted(verdicts: Iterable[Verdict]) -> Counter[str]:
    """Number of verdicts by kind, as the first screen has them."""
    return Counter(map(on_the_first_screen, verdicts))
