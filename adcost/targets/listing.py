"""A compiled program as its compiler writes it: instructions, and the lines of the user's code that they came from."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
BACK = 20  # steps at most to an operand that has a line


class Frame(NamedTuple):
    """A place in a source file, and the function that it is in."""

    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes
    ----------
    shape
        As written, without layouts: ``f32[100,512]``; of a tuple in parentheses.
    operands
        Names of instructions of the same computation.
    called
        Computations, by the attribute that names them: ``calls``, ``body``, ``condition``, ``to_apply``; those of a
        conditional by their number, as ``branch 0``.
    number
        Of a parameter, or the index that is taken out of a tuple.
    op_name
        JAX's own path of the operation: ``jit(loss)/jvp()/while/body/tanh``.
    attributes, literal
        What stands behind the operands, as it is written; of a constant its value.
    """

    name: str
    computation: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    called: Mapping[str, str]
    number: int | None
    op_name: str
    frame: int
    root: bool
    attributes: str = ""
    literal: str = ""

    @property
    def collective(self) -> str | None:
        """Which collective it is, or begins; None if it is none."""
        name = self.opcode.removesuffix("-start")
        return name if name in COLLECTIVES else None


@dataclass(frozen=True)
class Listing:
    """A program: its instructions by name (unique in a module), its frames, each with its caller's number, and the
    computation with which it begins.
    """

    instructions: Mapping[str, Instruction]
    frames: Mapping[int, tuple[Frame, int]]
    entry: str = ""

    @cached_property
    def computations(self) -> dict[str, list[Instruction]]:
        found: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            found.setdefault(instruction.computation, []).append(instruction)
        return found

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read another."""
        found: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for name in instruction.operands:
                found.setdefault(name, []).append(instruction)
        return found

    @cached_property
    def callers(self) -> dict[str, list[Instruction]]:
        """The instructions that call a computation."""
        found: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for name in instruction.called.values():
                found.setdefault(name, []).append(instruction)
        return found

    def root(self, computation: str) -> Instruction:
        """What a computation gives."""
        return next(one for one in self.computations[computation] if one.root)

    def path(self, frame: int) -> list[Frame]:
        """The places from which an operation was called, innermost first."""
        found = []
        while frame in self.frames:
            here, frame = self.frames[frame]
            found.append(here)
        return found

    def path_of(self, one: Instruction) -> list[Frame]:
        """From where it was called; of what the partitioner made without a word, from where its first operand was."""
        for _ in range(BACK):
            found = self.path(one.frame)
            given = one.operands[:1]
            if one.opcode == "parameter":
                callers = [caller for caller in self.callers.get(one.computation, []) if caller.opcode != "while"]
                given = callers[0].operands[one.number or 0 :][:1] if callers else ()
            elif "calls" in one.called:
                given = (self.root(one.called["calls"]).name,)
            if found or not given or given[0] not in self.instructions:
                return found
            one = self.instructions[given[0]]
        return []


NAMES = re.compile(r'^(\d+) "(.*)"$')
LOCATION = re.compile(r"^(\d+) \{file_name_id=(\d+) function_name_id=(\d+) line=(\d+)")
STACK = re.compile(r"^(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{")
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
LAYOUT = re.compile(r"\{[^{}]*\}|/\*.*?\*/")
COMMENT = re.compile(r"/\*.*?\*/")
CALLED = re.compile(r"\b(calls|body|condition|to_apply)=%?([\w.\-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}|\b(?:true|false)_computation=%?([\w.\-]+)")
OPERAND = re.compile(r"%([\w.\-]+(?:#\d+)*)")
OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
FRAME = re.compile(r"stack_frame_id=(\d+)")
INDEX = re.compile(r"\bindex=(\d+)")


def read(text: str) -> Listing:
    """The program of a compiler's text (XLA's, with ``stack_frame_id`` in the metadata)."""
    tables: dict[str, dict[int, tuple[str, ...]]] = {}
    table: dict[int, tuple[str, ...]] = {}
    instructions: dict[str, Instruction] = {}
    entry = computation = ""
    for line in text.splitlines():
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = tables.setdefault(line, {})
        elif line[:1].isdigit():
            found = NAMES.match(line) or LOCATION.match(line) or STACK.match(line)
            if found:
                table[int(found[1])] = found.groups()[1:]
        elif found := COMPUTATION.match(line):
            computation = found[2]
            entry = computation if found[1] else entry
        elif found := INSTRUCTION.match(line):
            made = _instruction(found[2], computation, bool(found[1]), found[3])
            instructions |= {one.name: one for name in made.operands for one in _taken_out(name, computation)}
            instructions[made.name] = made
    return Listing(instructions, _frames(tables), entry)


def _taken_out(name: str, computation: str) -> Iterator[Instruction]:
    """Newer XLA writes ``%loop#2`` where older had an instruction of its own that takes an element out of a tuple."""
    while "#" in name:
        whole, _, number = name.rpartition("#")
        yield Instruction(name, computation, "", "get-tuple-element", (whole,), {}, int(number), "", 0, False)
        name = whole


def without_layouts(shape: str) -> str:
    """A shape as people write it."""
    return LAYOUT.sub("", shape)


def _frames(tables: Mapping[str, Mapping[int, tuple[str, ...]]]) -> dict[int, tuple[Frame, int]]:
    files, functions = tables.get("FileNames", {}), tables.get("FunctionNames", {})
    places = {
        key: Frame(files.get(int(file), ("?",))[0], int(line), functions.get(int(function), ("?",))[0])
        for key, (file, function, line) in tables.get("FileLocations", {}).items()
    }
    # A parent's number is one higher than its key: 1 is none.
    return {
        key: (places[int(place)], int(parent or 1) - 1)
        for key, (place, parent) in tables.get("StackFrames", {}).items()
        if int(place) in places
    }


def _instruction(name: str, computation: str, root: bool, text: str) -> Instruction:
    text = COMMENT.sub("", text)
    end = _closing(text) if text.startswith("(") else text.index(" ")
    shape, rest = text[:end], text[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    inside = rest[: _closing("(" + rest) - 2]
    attributes = rest[len(inside) + 1 :]
    called = dict(CALLED.findall(attributes))
    branches = [name.strip(" %") for many, one in BRANCHES.findall(attributes) for name in (many or one).split(",")]
    called |= {f"branch {i}": name for i, name in enumerate(branches)}
    index = INDEX.search(attributes)
    number = int(inside) if opcode == "parameter" else int(index[1]) if index else None
    op_name, frame = OP_NAME.search(attributes), FRAME.search(attributes)
    return Instruction(
        name,
        computation,
        without_layouts(shape),
        opcode,
        tuple(OPERAND.findall(inside)),
        called,
        number,
        op_name[1] if op_name else "",
        int(frame[1]) if frame else 0,
        root,
        attributes,
        inside if opcode == "constant" else "",
    )


def _closing(text: str) -> int:
    """Where the parenthesis ends with which a text begins."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return i + 1
    return len(text)
