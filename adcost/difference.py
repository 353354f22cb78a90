"""What changed between two plans, by the line of the source that holds the memory: ``diff``."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adcost.display import html_table, in_words, text_table
from adcost.peak import Held, Peak
from adcost.plan import Plan

NEGLIGIBLE = 0.001  # of the larger plan: a line that changes by less stays as it is
HEADER = ("change", "before", "after", "", "what", "line")


@dataclass(frozen=True)
class Change:
    """The bytes that a line holds at the peak of two programs; ``what`` they are in each, nothing where it has none."""

    where: str
    before: int
    after: int
    what: tuple[str, str]

    @property
    def said(self) -> str:
        """In a word: ``new``, ``gone``, ``grew`` or ``shrank``."""
        if not self.before or not self.after:
            return "gone" if self.before else "new"
        return "grew" if self.after > self.before else "shrank"


@dataclass(frozen=True)
class Difference:
    """What changed, the largest change first; ``before`` and ``after`` say what was compared, with their totals.

    ``told``: did the compilers of both tell of lines? Otherwise only the totals are known.
    """

    rows: tuple[Change, ...]
    before: str
    after: str
    total: tuple[int, int]
    told: bool = True

    @property
    def nothing(self) -> bool:
        """Is the memory of both the same, line by line?"""
        return self.told and not self.rows and abs(self.total[1] - self.total[0]) <= NEGLIGIBLE * max(self.total)

    @property
    def freed(self) -> list[Change]:
        """The lines that hold less, the largest saving first."""
        return [row for row in self.rows if row.after < row.before]

    def __str__(self) -> str:
        return text_table(self._title, HEADER, map(_cells, self.rows)) if self.rows else self._title

    def _repr_html_(self) -> str:
        return html_table(self._title, HEADER, map(_cells, self.rows))

    @property
    def _title(self) -> str:
        before, after = map(in_words, self.total)
        said = f"{self.before}: {before} -> {self.after}: {after}"
        if not self.told:
            return f"{said}\nno line is known: a compiler told nothing of one of them"
        return f"{said}\nchanged nothing" if self.nothing else said

    def json(self) -> dict[str, Any]:
        """All of it, for a program to read."""
        rows = [{**asdict(row), "said": row.said} for row in self.rows]
        return {**vars(self), "rows": rows, "nothing": self.nothing}


def _cells(row: Change) -> Sequence[str]:
    change = row.after - row.before
    kinds = list(dict.fromkeys(filter(None, row.what)))
    said = f"{'+' if change > 0 else '-'}{in_words(abs(change))}", in_words(row.before), in_words(row.after)
    return *said, row.said, " -> ".join(kinds), row.where


def diff(before: Plan | str | Path, after: Plan | str | Path) -> Difference:
    """What grew, went or is new between two plans, by line: of two functions, policies, targets or versions of JAX.

    Parameters
    ----------
    before, after
        Plans, or files that ``Plan.save`` wrote. Lines are the same if file, number and function are.

    Returns
    -------
    Difference
        ``.rows``, ``.freed``, ``.nothing``; printed as a table.

    Raises
    ------
    ValueError
        If a file holds no plan.
    """
    first, second = (one if isinstance(one, Plan) else Plan.load(one) for one in (before, after))
    names = [_named(*pair, first.jax != second.jax) for pair in ((before, first), (after, second))]
    total = first.total, second.total
    if first.peak is None or second.peak is None:
        return Difference((), names[0], names[1], total, told=False)
    return Difference(tuple(_changes(first.peak, second.peak)), names[0], names[1], total)


def _named(given: Plan | str | Path, plan: Plan, version: bool) -> str:
    file = [] if isinstance(given, Plan) else [Path(given).name]
    return ", ".join([*file, plan.target, *([f"JAX {plan.jax}"] if version else [])])


def _changes(before: Peak, after: Peak) -> Iterator[Change]:
    held = [_by_place(peak) for peak in (before, after)]
    least = NEGLIGIBLE * max(before.total, after.total)
    found = []
    for place in dict.fromkeys((*held[0], *held[1])):
        rows = [one.get(place, []) for one in held]
        sizes = [sum(row.size for row in mine) for mine in rows]
        if abs(sizes[1] - sizes[0]) > least:
            what = [", ".join(dict.fromkeys(row.what for row in mine)) for mine in rows]
            found.append(Change(_words(*rows), sizes[0], sizes[1], (what[0], what[1])))
    yield from sorted(found, key=lambda row: -abs(row.after - row.before))


PACKAGE = re.compile(r"^.*/(?:site|dist)-packages/")


def _by_place(peak: Peak) -> dict[Any, list[Held]]:
    """Rows by line, wherever the packages of its Python lie; those without one by what they are and their name."""
    found: dict[Any, list[Held]] = {}
    for row in peak.rows:
        line = row.line
        place = (row.what, row.operation) if line is None else (PACKAGE.sub("", line.file), line.line, line.function)
        found.setdefault((*place, row.beside), []).append(row)
    return found


def _words(before: Sequence[Held], after: Sequence[Held]) -> str:
    row = (*before, *after)[0]
    said = row.where if row.line is not None else row.operation or row.what
    return ", ".join(filter(None, (said, row.beside)))
