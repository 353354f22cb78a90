"""What the compiler made of a program: its arithmetic in XLA's optimised HLO, with the trip counts of its loops.

XLA writes a product of matrices as a dot, a convolution, a fusion around either, or a call of a library (cuBLAS,
oneDNN); all are counted. A loop's trips are those that XLA itself found (``known_trip_count``); a TPU's compiler writes
none down, and there they are the bound in the loop's condition: ``lax.scan`` counts from 0 in steps of 1.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from math import prod

from adcost.suite.vocabulary import NotMeasured

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'known_trip_count[^}]*?"?n"?[:=]\s*"?(\d+)')
CONDITION = re.compile(r"condition=%?([\w.\-]+)")
BOUND = re.compile(r"constant\((\d+)\)")
PRODUCT = re.compile(r"= \S+ (?:dot|convolution)\(")
LIBRARY = re.compile(r'custom_call_target="(?:__cublas\$\w*|__onednn\$matmul|__cudnn\$conv\w*)"')
NAMED = re.compile(r"%?([\w.\-]+) = \w+\[([\d,]*)\]")
DOT = re.compile(r"= \w+\[([\d,]*)\]\S* dot\(%?([\w.\-]+),.*lhs_contracting_dims=\{([\d,]*)\}")
LAPACK = re.compile(r'custom_call_target="lapack_[sdcz](\w+?)(?:_ffi)?", operand_layout_constraints=\{(.*?\})\}')
UNKNOWN = re.compile(r" (?:dot|convolution)\(|custom_call_target=\"(?!annotate|Sharding|xla\.)")
COMPLEX = re.compile(r"c(?:64|128)\[")
ARRAY = re.compile(r"\w+\[([\d,]*)\]")
Bodies = Mapping[str, list[str]]
Shapes = Mapping[str, str]  # the numbers in an array's brackets, by its name


class UnknownTripCount(NotMeasured):
    """A loop of the compiled program runs as often as the data say."""


def matrix_products(text: str) -> int:
    """Matrix products that a compiled program executes, from its optimised HLO.

    Raises
    ------
    UnknownTripCount
        If a loop with a product in it has no known trip count.
    """
    return round(_executed(text, lambda line, shapes: bool(PRODUCT.search(line) or LIBRARY.search(line))))


def flops(text: str) -> float | None:
    """Flops of the products of matrices and of LAPACK's calls that a compiled program executes; elementwise ones not.

    None where it calls what is not known here: a convolution, a library of a device, another routine of LAPACK.

    Raises
    ------
    UnknownTripCount
        If a loop with such arithmetic in it has no known trip count.
    """
    found = _executed(text, _flops_of)
    return found if found == found else None


def _flops_of(line: str, shapes: Shapes) -> float:
    """Flops of one instruction; NaN of one that is not known."""
    dot = DOT.search(line)
    if dot is not None and dot[2] in shapes and not COMPLEX.search(line):
        left = _shape(shapes[dot[2]])
        return 2.0 * prod(_shape(dot[1])) * prod(left[axis] for axis in _shape(dot[3]))
    call = LAPACK.search(line)
    if call is not None and not COMPLEX.search(line):
        first, *others = (_shape(found) for found in ARRAY.findall(call[2]))
        n, many = first[-1], prod(first[:-2])
        if call[1] == "trsm":
            return float(n * prod(others[0]))
        by_routine = {"getrf": 2 / 3, "potrf": 1 / 3}  # Golub and Van Loan 2013, sections 3.2 and 4.2; square ones
        return by_routine.get(call[1], float("nan")) * many * n**3 if first[-2] == n else float("nan")
    return float("nan") if UNKNOWN.search(line) else 0.0


def _shape(words: str) -> tuple[int, ...]:
    return tuple(int(word) for word in words.split(",") if word)


def _executed(text: str, weight: Callable[[str, Shapes], float]) -> float:
    """The sum of the instructions' weights, each as often as it is executed; a weight may ask for shapes by name."""
    entry, bodies = _computations(text)

    @cache
    def of(name: str) -> float:
        total, body = 0.0, bodies.get(name, [])
        shapes = {found[1]: found[2] for line in body if (found := NAMED.search(line))}
        for line in body:
            total += weight(line, shapes)
            called = [*CALLED.findall(line), *_branches(line)]
            inside = (_largest if " conditional(" in line else sum)([0.0, *map(of, called)])
            if inside and " while(" in line:
                inside *= _trips(line, bodies)
            total += inside
        return total

    return of(entry)


def _largest(values: list[float]) -> float:
    """The largest, or NaN if any is: Python's max would lose it."""
    return max(values) if all(value == value for value in values) else float("nan")


def _trips(line: str, bodies: Bodies) -> int:
    known = TRIPS.search(line)
    if known is not None:
        return int(known[1])
    condition = "\n".join(bodies[CONDITION.findall(line)[0]])
    bounds = BOUND.findall(condition)
    if len(bounds) != 1 or condition.count("direction=LT") != 1:
        raise UnknownTripCount("a loop of the compiled program has no known trip count")
    return int(bounds[0])


def _branches(line: str) -> list[str]:
    found = BRANCHES.search(line)
    return [name.strip().lstrip("%") for name in found[1].split(",")] if found else []


def _computations(text: str) -> tuple[str, dict[str, list[str]]]:
    entry, name = "", ""
    bodies: dict[str, list[str]] = {}
    for line in text.splitlines():
        start = COMPUTATION.match(line)
        if start:
            name = start[2]
            bodies[name] = []
            entry = name if start[1] else entry
        elif name:
            bodies[name].append(line)
    return entry, bodies
