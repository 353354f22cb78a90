"""What holds the memory of a program at its peak, by the line of the user's code: ``plan(...).peak``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from textwrap import shorten
from typing import Any

from adcost.display import in_words, text_table
from adcost.targets.listing import Frame

OURS = Path(__file__).parent
PACKAGES = ("site-packages", "dist-packages", "<frozen", str(OURS))  # in paths of files that the user did not write
COMPILERS = "made by JAX or the compiler"
LINELESS = ("argument", "copy of an argument", "between values")


@dataclass(frozen=True)
class Held:
    """Memory that one operation of the program holds at the peak.

    Attributes
    ----------
    size, count
        Bytes, all in all; of how many equal values.
    shape
        Of one, with its type: ``f32[1024,512,256]``.
    what
        ``argument``, ``copy of an argument``, ``output``, ``residual of a loop``, ``output of a loop``, ``carry of a
        loop``, ``gradient that a loop adds up``, ``value``, or ``between values``: what lies there unused.
    operation
        As JAX names it, several if they are made on one line: ``tanh, mul``; of an argument its name.
    path
        The places from which it was called, innermost first, of several the first's; empty of what has no line.
    """

    size: int
    count: int
    shape: str
    what: str
    operation: str
    path: tuple[Frame, ...] = ()

    @property
    def line(self) -> Frame | None:
        """The innermost place that is in no package; where all are in packages the innermost."""
        own = (frame for frame in self.path if not any(part in frame.file for part in PACKAGES))
        return next(own, self.path[0] if self.path else None)

    @property
    def where(self) -> str:
        """The line in words, and the one in a package that it led to; or why there is none."""
        if self.line is None:
            return "" if self.what in LINELESS else COMPILERS
        inside = "" if self.line == self.path[0] else f", in {_place(self.path[0])}"
        return f"{_place(self.line)}{inside}"


@dataclass(frozen=True)
class Peak:
    """What is alive at the peak of a program, largest first; ``total`` is the plan's, in bytes."""

    rows: tuple[Held, ...]
    total: int

    @property
    def with_a_line(self) -> float:
        """The share of the bytes of which the line is known, arguments aside."""
        rows = [row for row in self.rows if row.what != "argument"]
        return sum(row.size for row in rows if row.line) / max(sum(row.size for row in rows), 1)

    def lines(self, most: int | None = None) -> str:
        """The largest rows as a table."""
        shown = self.rows[:most]
        left = sum(row.size for row in self.rows[len(shown) :])
        told = sum(row.size for row in self.rows)
        below = [] if told > TOLD * self.total else [f"this compiler tells of {in_words(told)} only"]
        below += [f"and {in_words(left)} in {len(self.rows) - len(shown)} more"] if left else []
        return text_table("At the peak", HEADER, map(self._cells, shown), below)

    def __str__(self) -> str:
        return self.lines()

    def _cells(self, row: Held) -> Sequence[str]:
        times = f"{row.count} x " if row.count > 1 else ""
        return (
            in_words(row.size),
            f"{row.size / max(self.total, 1):.0%}",
            f"{times}{row.shape}",
            row.what,
            row.where,
            shorten(row.operation, NAMES),
        )

    def json(self) -> list[dict[str, Any]]:
        """The rows, for a program to read."""
        return [{**asdict(row), "path": [frame._asdict() for frame in row.path]} for row in self.rows]


TOLD = 0.98  # of the plan, from which on nothing is missing
NAMES = 40  # characters of them that a table has
HEADER = ("memory", "share", "shape", "what", "line", "operation")


def peak_of(held: Sequence[Mapping[str, Any]], total: int, lines: Iterable[Sequence[Frame]]) -> Peak | None:
    """The rows of what a compiler told, equal ones together; None if it told nothing.

    ``lines`` are the call paths of the program's equations: a line that is in none of them is of another program, from
    which JAX took what it had lowered before.
    """
    if not held:
        return None
    known = {frame for path in lines for frame in path}
    rows = [
        Held(row["size"], 1, row["shape"], row["what"], row["operation"], path if known.issuperset(path[:1]) else ())
        for row in held
        for path in [in_the_program(row["path"])]
    ]
    return Peak(tuple(sorted(_together(rows), key=lambda row: -row.size)), total)


def in_the_program(path: Iterable[Sequence[Any]]) -> tuple[Frame, ...]:
    """A call path, innermost first, as far as it leads through the program; then come those who asked for its plan."""
    return tuple(takewhile(_is_the_program, (Frame(*place) for place in path)))


def _is_the_program(frame: Frame) -> bool:
    folder = Path(frame.file).parent
    return OURS not in (folder, *folder.parents) or folder.name == "checkpointing"


def _place(frame: Frame) -> str:
    return f"{Path(frame.file).name}:{frame.line} ({frame.function.rpartition('.')[2]})"


def _together(rows: Sequence[Held]) -> Iterator[Held]:
    """Values of one line and one shape that are the same kind of thing are one row."""
    alike: dict[Any, list[Held]] = {}
    for row in rows:
        named = "" if row.what == "argument" else row.operation
        alike.setdefault((row.what, row.shape, row.line, row.path[:1] or named), []).append(row)
    for same in alike.values():
        names = ", ".join(dict.fromkeys(row.operation.rpartition("/")[2] for row in same))
        yield replace(same[0], size=sum(row.size for row in same), count=len(same), operation=names)
