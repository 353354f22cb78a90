"""What is alive at the peak of a compiled program: read from what XLA's compilers report beside it.

``*-buffer-assignment.txt`` says where each value lies, ``*-live-range.txt`` from when to when it lives, and the program
itself who made it. All are written where the option ``xla_dump_to`` of one compilation says (JAX 0.10.2, 0.12.0.1).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from adcost._jax import AGAIN, SLOTS
from adcost.targets.listing import Instruction, Listing, read, without_layouts

KINDS = {"parameter": "argument", "constant": "constant", "maybe-live-out": "output", "thread-local": "thread"}
COLOUR = re.compile(r"\bcolor (\d+)")  # of an allocation: the memory in which it lies; none is the device's own
BESIDE = {"5": "on the host"}
ON_CHIP = "on the chip"  # all other colours, of TPUs: vectors, scalars, flags
OURS = str(Path(__file__).parent)
CONSTANT = "constant baked in"
IN_PROGRAM = "in the program itself"  # which no plan counts
BAKED = 1024  # bytes: smaller constants are the compiler's own


class Place(NamedTuple):
    """Where a value lies: its allocation, and the offset in that."""

    allocation: int
    offset: int


class Allocation(NamedTuple):
    """A piece of memory: bytes, what it is for, where it lies if not in the device's own memory, does an output take it
    over from an argument?
    """

    size: int
    kind: str
    beside: str
    donated: bool


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
    """Allocations, and the values in them."""

    allocations: Mapping[int, Allocation]
    values: Sequence[Value]

    @cached_property
    def temporary(self) -> list[Value]:
        """The values of the temporary memory of which it is known when they live."""
        return [v for v in self.values if self.where(v).kind == "temp" and v.born <= v.dies]

    def where(self, value: Value) -> Allocation:
        """The allocation in which a value lies."""
        return self.allocations[value.place.allocation]

    def at(self, time: int) -> list[Value]:
        """The values of the temporary memory at a time, largest first; of those of a place the largest and last."""
        found: dict[Place, Value] = {}
        for value in sorted(self.temporary, key=lambda value: (-value.size, -value.born)):
            if value.born <= time <= value.dies:
                found.setdefault(value.place, value)
        return list(found.values())

    def over_time(self) -> np.ndarray:
        """Bytes of the device's temporary memory that values take at each time."""
        here = sorted((value for value in self.temporary if not self.where(value).beside), key=_place)
        total = np.zeros(max((value.dies for value in here), default=0) + 1, np.int64)
        for _, sharing in groupby(here, _place):
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
    allocations: dict[int, Allocation] = {}
    values = []
    current = -1
    for line in buffers.splitlines():
        if found := ALLOCATION.match(line):
            current = int(found[1])
            kind = next((kind for word, kind in KINDS.items() if word in found[3]), "temp")
            donated = kind == "argument" and "maybe-live-out" in found[3]
            allocations[current] = Allocation(int(found[2]), kind, _beside(found[3]), donated)
        elif found := VALUE.match(line):
            key = found[1], _index((found[2] or "{}")[1:-1])
            born, dies = lives.get(key, (0, -1))
            place = Place(current, int(found[4]))
            values.append(Value(*key, int(found[3]), place, without_layouts(found[5]), born, dies))
    return Assignment(allocations, values)


def _beside(said: str) -> str:
    found = COLOUR.search(said)
    return BESIDE.get(found[1], ON_CHIP) if found and found[1] != "0" else ""


def _index(text: str) -> tuple[int, ...]:
    return tuple(map(int, filter(None, text.split(","))))


class Origin(NamedTuple):
    """What made a value.

    Attributes
    ----------
    instruction
        The one that computed it.
    stack
        What writes it into a stack, a part at a time; None of what is no stack.
    steps
        How many parts that has.
    carried
        Does a loop hand it from step to step?
    """

    instruction: Instruction
    stack: Instruction | None
    steps: int
    carried: bool


THROUGH = frozenset("async-done bitcast copy copy-start copy-done reshape transpose optimization-barrier".split())


def origin(listing: Listing, value: Value) -> Origin | None:
    """The instruction that computed a value; of what lies ready for a loop to fill, what the loop fills it with."""
    if value.name not in listing.instructions:
        return None
    found = _followed(listing, listing.instructions[value.name], value, set())
    if _rank(found) < EMPTY:
        return found
    for pack in listing.users.get(value.name, []):
        for loop in listing.users.get(pack.name, []):
            if pack.opcode == "tuple" and loop.opcode == "while":
                filled = replace(value, index=(pack.operands.index(value.name),))
                return _followed(listing, loop, filled, set())
    return found


EMPTY = 3  # the rank of what nothing has computed


def _rank(found: Origin) -> int:
    """How much an origin says."""
    if found.stack is not None:
        return 0
    # A TPU's compiler allocates by a call.
    return {"parameter": 2, "broadcast": EMPTY, "constant": EMPTY, "custom-call": EMPTY}.get(
        found.instruction.opcode, 1
    )


def _followed(listing: Listing, here: Instruction, value: Value, seen: set[tuple[str, tuple[int, ...]]]) -> Origin:
    """Follow a value to what computed it: into fusions, out of tuples, through loops and branches."""
    stack, steps, carried, rest = None, 0, False, list(value.index)
    while (here.name, tuple(rest)) not in seen:
        seen.add((here.name, tuple(rest)))
        operands = [listing.instructions[name] for name in here.operands if name in listing.instructions]
        if here.opcode == "while" and rest:
            carried = True
            made = _made_by_a_step(listing, here, rest[0])
            here, rest = (operands[0], rest) if made is None else (made, rest[1:])
        elif here.opcode == "parameter":
            here = _given(listing, here)
        elif here.opcode == "conditional":
            roots = [listing.root(branch) for branch in here.called.values()]
            ends = [_followed(listing, root, replace(value, index=tuple(rest)), seen) for root in roots]
            best = min(ends, key=_rank, default=None)
            if best is not None and _rank(best) < 2:  # a branch computes it: others may hand on what they are given
                return Origin(
                    best.instruction,
                    stack or best.stack,
                    max(steps, 1) * max(best.steps, bool(stack)),
                    carried or best.carried,
                )
        elif inner := here.called.get("calls") or (here.opcode == "call" and here.called.get("to_apply")):
            here = listing.root(inner)
        elif here.opcode == "tuple" and rest and rest[0] < len(operands):
            here, rest = operands[rest[0]], rest[1:]
        elif here.opcode == "get-tuple-element" and operands:
            here, rest = operands[0], [here.number or 0, *rest]
        elif here.opcode == "dynamic-update-slice" and len(operands) > 1 and not value.shape.endswith("[]"):
            steps = max(steps, 1) * (_elements(here.shape) // max(_elements(operands[1].shape), 1))
            stack, here = stack or here, operands[1]
        elif here.opcode in THROUGH and operands:
            here = operands[0]
    return Origin(here, stack, steps, carried)


def _given(listing: Listing, parameter: Instruction) -> Instruction:
    """What a caller gives for a parameter: a loop itself, for its carry; the parameter where nobody calls."""
    caller = next(iter(listing.callers.get(parameter.computation, [])), None)
    if caller is None or caller.opcode == "while":
        return caller or parameter
    number = parameter.number or 0
    if caller.opcode == "conditional":  # its first operand says which branch is taken
        name = next(name for name, called in caller.called.items() if called == parameter.computation)
        number = int(name.removeprefix("branch ")) + 1
    given = caller.operands[number] if number < len(caller.operands) else ""
    return listing.instructions.get(given, parameter)


def _elements(shape: str) -> int:
    return prod(map(int, filter(None, shape[shape.find("[") + 1 : shape.find("]")].split(","))))


def _made_by_a_step(listing: Listing, loop: Instruction, number: int) -> Instruction | None:
    """What a step of a loop makes of an element of its carry; None if it hands it on as it is."""
    root = listing.root(loop.called["body"])
    made = listing.instructions.get(root.operands[number]) if number < len(root.operands) else None
    if made is None:
        return None
    taken = [listing.instructions[name].opcode for name in made.operands if name in listing.instructions]
    handed_on = made.opcode == "get-tuple-element" and made.number == number and taken == ["parameter"]
    return None if handed_on else made


# What is told of it, so that it can be sent to another process.


class Alive(TypedDict):
    """A value at the peak: bytes, shape, what it is, parts of a stack, the operation and from where it was called.

    ``path`` has file, line and function of each place, innermost first; ``beside`` is that of the allocation.
    """

    size: int
    shape: str
    what: str
    steps: int
    operation: str
    path: list[list[Any]]
    beside: str


class Told(NamedTuple):
    """What a compilation's reports say: what is alive at the peak, and the temporary bytes over the program's time."""

    alive: list[Alive]
    over_time: list[int]

    @property
    def constants(self) -> int:
        """Bytes of the arrays that the program itself holds."""
        return sum(row["size"] for row in self.alive if row["what"] == CONSTANT)


def told(folder: Path) -> Told:
    """What a compilation's reports in a folder say; nothing if there are none, or if another version wrote them."""
    try:
        return _told(folder)
    except (ValueError, LookupError, StopIteration):
        return Told([], [])


def _told(folder: Path) -> Told:
    texts = [path.read_text(encoding="utf-8", errors="replace") for end in REPORTS for path in folder.glob(f"*{end}")]
    if len(texts) != len(REPORTS):
        return Told([], [])
    listing, plan = read(texts[0]), assignment(*texts[1:])
    over_time = plan.over_time()
    found = plan.at(int(over_time.argmax()))
    rows = [_temporary(listing, value, plan.where(value).beside) for value in found]
    rows += [one for number in plan.allocations for one in _throughout(listing, plan, number)]
    reserved = sum(one.size for one in plan.allocations.values() if one.kind == "temp" and not one.beside)
    unused = reserved - sum(value.size for value in found if not plan.where(value).beside)
    rows += [_row(unused, "", "between values")] if unused > 0 else []
    rows.sort(key=lambda row: -row["size"])
    return Told(rows, largest_of_each(over_time))


REPORTS = ("after_optimizations.txt", "-buffer-assignment.txt", "-live-range.txt")
TIMES = 1000  # of which the bytes are told, at most


def largest_of_each(over_time: np.ndarray) -> list[int]:
    """The largest of each of at most so many stretches of equal length."""
    stretches = np.array_split(over_time, min(TIMES, len(over_time)))
    return [int(stretch.max()) for stretch in stretches]


def _row(size: int, shape: str, what: str, operation: str = "", steps: int = 0, beside: str = "") -> Alive:
    return {
        "size": size,
        "shape": shape,
        "what": what,
        "steps": steps,
        "operation": operation,
        "path": [],
        "beside": beside,
    }


def _temporary(listing: Listing, value: Value, beside: str) -> Alive:
    if value.shape.startswith("("):
        return _row(value.size, value.shape, "addresses", beside=beside)
    found = origin(listing, value)
    if found is None:
        return _row(value.size, value.shape, "value", value.name, beside=beside)
    made = found.instruction
    what = _scratch(listing, value) or _kind(found, value)
    row = _row(value.size, value.shape, what, made.op_name or made.opcode, found.steps, beside)
    stacked = found.stack if made.opcode == "parameter" else None  # the line of the loop that stacks it
    return {**row, "path": _path(listing, stacked or made)}


def _kind(found: Origin, value: Value) -> str:
    """What a temporary value is."""
    direction = _direction(found.instruction.op_name)
    if found.stack is not None and SLOTS in found.stack.op_name:
        return "slots of a schedule"
    if found.instruction.opcode == "parameter":
        return "an argument once a step" if found.stack else "copy of an argument"
    if found.stack:
        return "residual of a loop" if direction == "forward" else "output of a loop"
    if found.carried:
        gradient = direction == "backward" and not value.shape.startswith(COUNTERS)
        return "gradient that a loop adds up" if gradient else "carry of a loop"
    return "value"


def _direction(op_name: str) -> str:
    """Is an operation of a ``forward`` pass, also one that is run again, of a ``backward`` pass, or of neither?"""
    for scope in reversed(op_name.split("/")):
        if scope.startswith("transpose("):
            return "backward"
        if scope.startswith("jvp(") or scope == AGAIN:
            return "forward"
    return ""


def _scratch(listing: Listing, value: Value) -> str | None:
    """Bytes that a call of a library asks for beside its results."""
    made = listing.instructions[value.name]
    return "scratch" if made.opcode == "custom-call" and value.index and value.shape.startswith(BYTES) else None


COUNTERS = ("s", "u", "pred", "(")  # shapes that begin so are of no gradient
BYTES = ("s8[", "u8[")


def _path(listing: Listing, made: Instruction) -> list[list[Any]]:
    found = listing.path_of(made) if made.collective else listing.path(made.frame)
    return [list(frame) for frame in found]


def _throughout(listing: Listing, plan: Assignment, number: int) -> Iterator[Alive]:
    """An allocation that is held throughout: an argument, an output, a constant."""
    here = plan.allocations[number]
    mine = [value for value in plan.values if value.place.allocation == number and value.name in listing.instructions]
    if here.kind in ("argument", "constant"):
        asked = {"argument": "parameter", "constant": "constant"}[here.kind]
        mine = [value for value in mine if _is_given(listing, value.name, asked)] or mine
    if not mine or here.kind not in ("argument", "constant", "output") or not here.size:
        return
    value = max(mine, key=lambda value: (value.dies, value.size))  # others may lie in the place of an output before it
    made = listing.instructions[value.name]
    if here.kind == "argument":
        yield _row(
            here.size, value.shape, "donated argument" if here.donated else "argument", made.op_name or made.name
        )
    elif here.kind == "output" and not value.shape.startswith("("):
        found = origin(listing, value)
        made = found.instruction if found else made
        what = "output as it was given" if made.opcode == "parameter" else "output"
        row = _row(here.size, value.shape, what, made.op_name or made.opcode)
        yield {**row, "path": _path(listing, made)}
    elif here.kind == "output":
        yield _row(here.size, value.shape, "addresses")
    elif here.size >= BAKED:
        row = _row(here.size, value.shape, CONSTANT, made.op_name or made.opcode, beside=IN_PROGRAM)
        yield {**row, "path": next((path for path in _paths_of_constant(listing, made) if path), [])}


def _paths_of_constant(listing: Listing, made: Instruction) -> Iterator[list[list[Any]]]:
    """From where a constant was written, and whoever reads it; not from where its compiler was asked for a plan."""
    for one in (made, *listing.users.get(made.name, [])):
        path = _path(listing, one)
        yield [] if any(place[0].startswith(OURS) for place in path[:1]) else path


def _is_given(listing: Listing, name: str, opcode: str) -> bool:
    """Is it a parameter of the program itself, or a constant?"""
    one = listing.instructions[name]
    return one.opcode == opcode and (opcode == "constant" or not listing.callers.get(one.computation))
