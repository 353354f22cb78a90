"""What holds the memory of a program at its peak, by the line of the user's code: ``plan(...).peak``."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from math import prod
from pathlib import Path
from textwrap import shorten
from typing import Any

from adcost import _jax
from adcost.checkpointing.rewriting import of_arrays
from adcost.display import html_table, in_words, text_table
from adcost.targets.alive import Alive, Told
from adcost.targets.listing import Frame

OURS = Path(__file__).parent
PACKAGES = ("site-packages", "dist-packages", "<frozen", str(OURS))  # in paths of files that the user did not write
COMPILERS = "made by JAX or the compiler"
# What has no line, but an argument's name.
NAMED = ("argument", "donated argument", "copy of an argument", "output as it was given")
LINELESS = (*NAMED, "between values", "addresses")


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
        ``argument``, ``donated argument`` (an output takes its place), ``copy of an argument``, ``output``, ``output
        as it was given``, ``constant baked in``, ``residual of a loop``, ``slots of a schedule``, ``an argument once a
        step``, ``output of a loop``, ``carry of a loop``, ``gradient that a loop adds up``, ``value``, ``scratch`` of
        a library's call, ``addresses``, or ``between values``: what lies there unused.
    operation
        As JAX names it, several if they are made on one line: ``tanh, mul``; of an argument its name.
    path
        The places from which it was called, innermost first, of several the first's; empty of what has no line.
    steps
        Of a stack that a loop fills, how many parts it has; 0 of what is none.
    beside
        Where it lies if the plan does not count it: ``on the host``, ``on the chip`` of a TPU, ``in the program
        itself``.
    """

    size: int
    count: int
    shape: str
    what: str
    operation: str
    path: tuple[Frame, ...] = ()
    steps: int = 0
    beside: str = ""

    @property
    def line(self) -> Frame | None:
        """The innermost place that is in no package; where all are in packages the innermost."""
        return line_of(self.path)

    @property
    def where(self) -> str:
        """The line in words, and the one in a package that it led to; or why there is none."""
        if self.line is None:
            return "" if self.what in LINELESS else COMPILERS
        inside = (
            ""
            if self.line == self.path[0] or OURS in Path(self.path[0].file).parents
            else f", in {place(self.path[0])}"
        )
        return f"{place(self.line)}{inside}"

    @property
    def kind(self) -> str:
        """What it is, and where if not in the device's own memory."""
        return ", ".join(filter(None, (self.what, self.beside)))

    @property
    def of(self) -> str:
        """How many of which shape: ``3 x 1024 steps of f32[512,256]``."""
        times = f"{self.count} x " if self.count > 1 else ""
        if not self.steps:
            return f"{times}{self.shape}"
        parts = "slots" if self.what.startswith("slots") else "steps"
        dtype, _, inside = self.shape.partition("[")
        sizes = inside.rstrip("]").split(",")
        outer = next((i for i in range(1, len(sizes) + 1) if prod(map(int, sizes[:i])) == self.steps), None)
        if outer is None:  # the compiler has put the steps elsewhere
            return f"{times}{self.steps} {parts} in {self.shape}"
        return f"{times}{self.steps} {parts} of {dtype}[{','.join(sizes[outer:])}]"


@dataclass(frozen=True)
class Peak:
    """What is alive at the peak of a program, largest first; ``total`` is the plan's, in bytes.

    ``over_time`` are the temporary bytes while the program runs, in equal stretches of its instructions; the body of a
    loop stands there once.
    """

    rows: tuple[Held, ...]
    total: int
    over_time: tuple[int, ...] = ()

    @property
    def told(self) -> int:
        """The bytes of the rows that lie on the device."""
        return sum(row.size for row in self.rows if not row.beside)

    @property
    def made(self) -> int:
        """The bytes that the program makes: arguments and their copies, which have a name, are left out."""
        return sum(row.size for row in self.rows if row.what not in NAMED)

    @property
    def with_a_line(self) -> float:
        """The share of the bytes that the program makes of which the line is known."""
        lined = sum(row.size for row in self.rows if row.what not in NAMED and row.line)
        return lined / max(self.made, 1)

    def lines(self, most: int | None = None) -> str:
        """The largest rows as a table."""
        shown = self.rows[:most]
        return text_table("At the peak", HEADER, map(self._cells, shown), self._below(shown))

    def html(self, most: int | None = None) -> str:
        """The same for a notebook, with a bar a row."""
        shown = self.rows[:most]
        bars = [row.size / max(self.total, self.told) for row in shown]
        return html_table("At the peak", HEADER, map(self._cells, shown), self._below(shown), bars)

    def __str__(self) -> str:
        return self.lines()

    def _repr_html_(self) -> str:
        return self.html()

    def _below(self, shown: Sequence[Held]) -> list[str]:
        left = sum(row.size for row in self.rows[len(shown) :])
        said = [] if self.told > TOLD * self.total else [f"this compiler tells of {in_words(self.told)} only"]
        return said + ([f"and {in_words(left)} in {len(self.rows) - len(shown)} more"] if left else [])

    def _cells(self, row: Held) -> Sequence[str]:
        return (
            in_words(row.size),
            "" if row.beside else f"{row.size / max(self.total, 1):.0%}",
            row.of,
            row.kind,
            row.where,
            shorten(row.operation, NAMES),
        )

    def json(self) -> dict[str, Any]:
        """All of it, for a program to read."""
        rows = [{**asdict(row), "path": [frame._asdict() for frame in row.path]} for row in self.rows]
        return {"rows": rows, "over_time": list(self.over_time)}

    @staticmethod
    def of_json(told: Mapping[str, Any], total: int) -> "Peak":
        """What ``json`` wrote."""
        rows = [Held(**{**row, "path": tuple(Frame(**frame) for frame in row["path"])}) for row in told["rows"]]
        return Peak(tuple(rows), total, tuple(told["over_time"]))


TOLD = 0.98  # of the plan, from which on nothing is missing
NAMES = 40  # characters of them that a table has
HEADER = ("memory", "share", "shape", "what", "line", "operation")


def peak_of(told: Told, total: int, lines: Iterable[Sequence[Frame]], names: Sequence[str] = ()) -> Peak | None:
    """The rows of what a compiler told, equal ones together; None if it told nothing.

    ``lines`` are the call paths of the program's equations: a line that is in none of them is of another program, from
    which JAX took what it had lowered before. ``names`` are those of the arguments.
    """
    if not told.alive:
        return None
    known = {frame for path in lines for frame in path}

    def held(row: Alive) -> Held:
        path, operation = in_the_program(row["path"]), row["operation"]
        number = ARGUMENT.fullmatch(operation)
        if number and int(number[1]) < len(names):
            operation = names[int(number[1])]
        path = path if known.issuperset(path[:1]) else ()
        return Held(row["size"], 1, row["shape"], row["what"], operation, path, row["steps"], row["beside"])

    rows = sorted(_together(list(map(held, told.alive))), key=lambda row: -row.size)
    return Peak(tuple(rows), total, tuple(told.over_time))


ARGUMENT = re.compile(r"args\[(\d+)\]")


def in_the_program(path: Iterable[Sequence[Any]]) -> tuple[Frame, ...]:
    """A call path, innermost first, as far as it leads through the program; then come those who asked for its plan."""
    found = tuple(takewhile(_is_the_program, (Frame(*place) for place in path if place[0] != _jax.__file__)))
    return found[:-1] if found and found[-1].function.startswith(of_arrays.__name__) else found


def _is_the_program(frame: Frame) -> bool:
    file = Path(frame.file)
    return OURS not in file.parents or file.relative_to(OURS).parts[0] not in ASKERS


# Parts of this package that trace programs to ask something about them; others may be parts of the program.
ASKERS = ("plan.py", "advise.py", "arguments.py", "candidates.py", "largest.py", "rulers", "suite", "targets")


def line_of(path: Sequence[Frame]) -> Frame | None:
    """The innermost place of a call path that is in no package; where all are in packages the innermost."""
    own = (frame for frame in path if not any(part in frame.file for part in PACKAGES))
    return next(own, path[0] if path else None)


def place(frame: Frame) -> str:
    """A place in words."""
    return f"{Path(frame.file).name}:{frame.line} ({frame.function.rpartition('.')[2]})"


def _together(rows: Sequence[Held]) -> Iterator[Held]:
    """Values of one line and one shape that are the same kind of thing are one row."""
    alike: dict[Any, list[Held]] = {}
    for row in rows:
        place = row.line, row.path[:1] or ("" if row.what in LINELESS else row.operation)
        alike.setdefault((row.what, row.shape, row.steps, row.beside, place), []).append(row)
    for same in alike.values():
        names = ", ".join(dict.fromkeys(row.operation.rpartition("/")[2] for row in same))
        yield replace(same[0], size=sum(row.size for row in same), count=len(same), operation=names)


def annotated(peak: Peak, file: Path) -> str:
    """A source file with the bytes in the margin that its lines hold at the peak, themselves or by what they call."""
    held: dict[int, int] = {}
    for row in peak.rows:
        line = next((frame.line for frame in row.path if Path(frame.file).resolve() == file.resolve()), None)
        if line is not None:
            held[line] = held.get(line, 0) + row.size
    source = file.read_text(encoding="utf-8", errors="replace").splitlines()
    digits = len(str(len(source)))
    return "\n".join(
        f"{in_words(held[i]) if i in held else '':>{MARGIN}} {i:>{digits}}  {text}".rstrip()
        for i, text in enumerate(source, 1)
    )


MARGIN = 10  # characters
