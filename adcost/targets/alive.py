"""What is alive at the peak of a compiled program: read from what XLA's compilers report beside it.

``*-buffer-assignment.txt`` says where each value lies, ``*-live-range.txt`` from when to when it lives, and the program
itself who made it. All are written where the option ``xla_dump_to`` of one compilation says (JAX 0.10.2, 0.12.0.1).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adcost.targets.listing import Instruction, Listing, read, without_layouts

ALIGNED = "between values"
KINDS = {"parameter": "argument", "constant": "constant", "maybe-live-out": "output", "thread-local": "thread"}


class Place(NamedTuple):
    """Where a value lies: its allocation, and the offset in that."""

    allocation: int
    offset: int


@dataclass(frozen=True)
class Value:
    """A value of a program: an instruction's, or an element of one that is a tuple.

    ``born`` and ``dies`` count instructions in the order in which they run; a loop's body stands there once.
    """

    name: str
    index: tuple[int, ...]
    size: int
    place: Place
    shape: str
    born: int
    dies: int


@dataclass(frozen=True)
class Assignment:
    """Allocations, each with its size and what it is for, and the values in them."""

    allocations: Mapping[int, tuple[int, str]]
    values: Sequence[Value]

    @cached_property
    def temporary(self) -> list[Value]:
        """The values of the temporary memory of which it is known when they live."""
        kinds = self.allocations
        return [v for v in self.values if kinds[v.place.allocation][1] == "temp" and v.born <= v.dies]

    def at(self, time: int) -> list[Value]:
        """The values of the temporary memory at a time, largest first; of those that share a place the largest."""
        found: dict[Place, Value] = {}
        for value in sorted(self.temporary, key=lambda value: -value.size):
            if value.born <= time <= value.dies:
                found.setdefault(value.place, value)
        return list(found.values())

    def over_time(self) -> np.ndarray:
        """Bytes of temporary memory that values take at each time."""
        total = np.zeros(max((value.dies for value in self.temporary), default=0) + 1, np.int64)
        for _, sharing in groupby(sorted(self.temporary, key=_place), _place):
            values = list(sharing)
            first, last = min(value.born for value in values), max(value.dies for value in values)
            taken = np.zeros(max(last + 1 - first, 0), np.int64)
            for value in values:
                span = slice(value.born - first, value.dies + 1 - first)
                taken[span] = np.maximum(taken[span], value.size)
            total[first : last + 1] += taken
        return total


def _place(value: Value) -> Place:
    return value.place


ALLOCATION = re.compile(r"^allocation (\d+): size (\d+), (.*)$")
VALUE = re.compile(r"^ value: <\d+ ([\w.\-]+)(\{[\d,]*\})?(?: \(phi\))? @\d+> \(size=(\d+),offset=(\d+)\): (.*)$")
LIVES = re.compile(r"^\s+([\w.\-]+)\{([\d,]*)\}:(\d+)-(\d+)$")


def assignment(buffers: str, live_ranges: str) -> Assignment:
    """What the two reports say."""
    lives = {
        (name, _index(index)): (int(born), int(dies))
        for name, index, born, dies in (found.groups() for found in map(LIVES.match, live_ranges.splitlines()) if found)
    }
    allocations: dict[int, tuple[int, str]] = {}
    values = []
    current = -1
    for line in buffers.splitlines():
        if found := ALLOCATION.match(line):
            current = int(found[1])
            kind = next((kind for word, kind in KINDS.items() if word in found[3]), "temp")
            allocations[current] = int(found[2]), kind
        elif found := VALUE.match(line):
            key = found[1], _index((found[2] or "{}")[1:-1])
            born, dies = lives.get(key, (0, -1))
            place = Place(current, int(found[4]))
            values.append(Value(*key, int(found[3]), place, without_layouts(found[5]), born, dies))
    return Assignment(allocations, values)


def _index(text: str) -> tuple[int, ...]:
    return tuple(map(int, filter(None, text.split(","))))


class Origin(NamedTuple):
    """What made a value.

    Attributes
    ----------
    instruction
        The one that computed it.
    stacked
        Is it written into a stack, a part at a time?
    carried
        Does a loop hand it from step to step?
    """

    instruction: Instruction
    stacked: bool
    carried: bool


THROUGH = frozenset("async-done bitcast copy copy-start copy-done reshape transpose optimization-barrier".split())


def origin(listing: Listing, value: Value) -> Origin | None:
    """Follow a value to the instruction that computed it: into fusions, out of tuples, through loops."""
    if value.name not in listing.instructions:
        return None
    here, rest = listing.instructions[value.name], list(value.index)
    stacked = carried = False
    seen: set[tuple[str, tuple[int, ...]]] = set()
    while (here.name, tuple(rest)) not in seen:
        seen.add((here.name, tuple(rest)))
        operands = [listing.instructions[name] for name in here.operands if name in listing.instructions]
        if here.opcode == "while" and rest:
            carried = True
            made = _made_by_a_step(listing, here, rest[0])
            here, rest = (operands[0], rest) if made is None else (made, rest[1:])
        elif here.opcode == "parameter":
            caller = next(iter(listing.callers.get(here.computation, [])), None)
            if caller is not None and caller.opcode == "while":
                here = caller
            elif caller is not None and (here.number or 0) < len(caller.operands):
                here = listing.instructions.get(caller.operands[here.number or 0], here)
        elif inner := here.called.get("calls") or (here.opcode == "call" and here.called.get("to_apply")):
            here = listing.root(inner)
        elif here.opcode == "tuple" and rest and rest[0] < len(operands):
            here, rest = operands[rest[0]], rest[1:]
        elif here.opcode == "get-tuple-element" and operands:
            here, rest = operands[0], [here.number or 0, *rest]
        elif here.opcode == "dynamic-update-slice" and len(operands) > 1:
            here, stacked = operands[1], True
        elif here.opcode in THROUGH and operands:
            here = operands[0]
    return Origin(here, stacked, carried)


def _made_by_a_step(listing: Listing, loop: Instruction, number: int) -> Instruction | None:
    """What a step of a loop makes of an element of its carry; None if it hands it on as it is."""
    root = listing.root(loop.called["body"])
    made = listing.instructions.get(root.operands[number]) if number < len(root.operands) else None
    if made is None or (made.opcode == "get-tuple-element" and made.number == number):
        return None
    return made


# What is told of it, so that it can be sent to another process.


def held(folder: Path) -> list[dict[str, Any]]:
    """What a compilation's reports in a folder say is alive at the peak, largest first; nothing if there are none.

    Of each: ``size`` in bytes, ``shape``, ``what`` it is, ``operation``, and ``path``, the places in the source from
    which it was called, innermost first, each with file, line and function.
    """
    texts = [path.read_text() for end in REPORTS for path in folder.glob(f"*{end}")]
    if len(texts) != len(REPORTS):
        return []
    listing, plan = read(texts[0]), assignment(*texts[1:])
    over_time = plan.over_time()
    alive = plan.at(int(over_time.argmax())) if len(over_time) else []
    rows = [_told(listing, value) for value in alive]
    rows += [_whole(listing, plan, number, *known) for number, known in plan.allocations.items()]
    rest = sum(size for size, kind in plan.allocations.values() if kind == "temp") - sum(value.size for value in alive)
    rows.append({"size": max(rest, 0), "shape": "", "what": ALIGNED, "operation": "", "path": []})
    return sorted((row for row in rows if row["size"]), key=lambda row: -row["size"])


REPORTS = ("after_optimizations.txt", "-buffer-assignment.txt", "-live-range.txt")


def _told(listing: Listing, value: Value) -> dict[str, Any]:
    found = origin(listing, value)
    if found is None:
        return {"size": value.size, "shape": value.shape, "what": "value", "operation": value.name, "path": []}
    made = found.instruction
    backward = "transpose(" in made.op_name
    what = "value" if made.opcode != "parameter" else "copy of an argument"
    if found.stacked:
        what = "residual of a loop" if "jvp(" in made.op_name and not backward else "output of a loop"
    elif found.carried:
        gradient = backward and not value.shape.startswith(COUNTERS)
        what = "gradient that a loop adds up" if gradient else "carry of a loop"
    return {
        "size": value.size,
        "shape": value.shape,
        "what": what,
        "operation": made.op_name or made.opcode,
        "path": [list(frame) for frame in listing.path(made.frame)],
    }


COUNTERS = ("s", "u", "pred", "(")  # shapes that begin so are of no gradient


def _whole(listing: Listing, plan: Assignment, number: int, size: int, kind: str) -> dict[str, Any]:
    """An allocation that is held throughout: an argument, or an output."""
    mine = [value for value in plan.values if value.place.allocation == number]
    if kind not in ("argument", "output") or not mine:
        return {"size": 0}
    value = max(mine, key=lambda value: value.size)
    found = origin(listing, value)
    made = found.instruction if found else None
    return {
        "size": size,
        "shape": value.shape,
        "what": kind,
        "operation": made.op_name if made else value.name,
        "path": [list(frame) for frame in listing.path(made.frame)] if made and kind == "output" else [],
    }
