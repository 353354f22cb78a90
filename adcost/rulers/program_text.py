"""What the compiler made of a program: matrix products in XLA's optimised HLO, with the trip counts of its loops.

XLA writes a product as a dot, a convolution, a fusion around either, or a call of a library (cuBLAS, oneDNN); all are
counted. A loop's trips are those that XLA itself found (``known_trip_count``); a TPU's compiler writes none down,
and there they are the bound in the loop's condition: ``lax.scan`` counts from 0 in steps of 1.
"""

import re
from collections.abc import Mapping
from functools import cache

from adcost.suite.vocabulary import NotMeasured

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'known_trip_count[^}]*?"?n"?[:=]\s*"?(\d+)')
CONDITION = re.compile(r"condition=%?([\w.\-]+)")
BOUND = re.compile(r"constant\((\d+)\)")
PRODUCT = re.compile(r"= \S+ (?:dot|convolution)\(")
LIBRARY = re.compile(r'custom_call_target="(?:__cublas\$\w*|__onednn\$matmul|__cudnn\$conv\w*)"')


class UnknownTripCount(NotMeasured):
    """A loop of the compiled program runs as often as the data say."""


def matrix_products(text: str) -> int:
    """Matrix products that a compiled program executes, from its optimised HLO.

    Raises
    ------
    UnknownTripCount
        If a loop with a product in it has no known trip count.
    """
    entry, bodies = _computations(text)

    @cache
    def products(name: str) -> int:
        total = 0
        for line in bodies.get(name, ()):
            total += bool(PRODUCT.search(line) or LIBRARY.search(line))
            called = [*CALLED.findall(line), *_branches(line)]
            inside = (max if " conditional(" in line else sum)([0, *map(products, called)])
            if inside and " while(" in line:
                inside *= _trips(line, bodies)
            total += inside
        return total

    return products(entry)


def _trips(line: str, bodies: Mapping[str, list[str]]) -> int:
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
