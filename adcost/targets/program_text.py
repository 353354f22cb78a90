"""What the compiler made of a program: its arithmetic in XLA's optimised HLO, with the trip counts of its loops.

XLA writes a product of matrices as a dot, a convolution, a fusion around either, or a call of a library (cuBLAS,
oneDNN), and one of vectors as a multiplication that may be summed; all are counted. A loop's trips are those that XLA
itself found (``known_trip_count``), those that a schedule's loop tells in its name, or, as a TPU's compiler writes none
down, the bound in its condition: ``lax.scan`` counts from 0 in steps of 1.
"""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from math import prod
from typing import NamedTuple

import numpy as np

from adcost import _jax
from adcost.targets.listing import Instruction, Listing, read

TRIPS = re.compile(r'known_trip_count[^}]*?"?n"?[:=]\s*"?(\d+)')
LIBRARY = re.compile(r'custom_call_target="(?:__cublas\$\w*|__onednn\$matmul|__cudnn\$conv\w*)"')
CUBLAS = re.compile(r'custom_call_target="__cublas\$(?:lt\$matmul|gemm)"')
CONTRACTED = re.compile(r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]*)')
LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
WINDOW = re.compile(r"window=\{([^}]*)\}")
LAPACK = re.compile(r'custom_call_target="lapack_[sdcz](\w+?)(?:_ffi)?", operand_layout_constraints=\{(.*?\})\}')
FOREIGN = re.compile(
    r'custom_call_target="(?!annotate|Sharding|xla\.|AllocateBuffer|MoveTo|AsyncCollective|ConcatBitcast|SliceBitcast)'
)
COMPLEX = re.compile(r"c(?:64|128)\[")
ARRAY = re.compile(r"\w+\[([\d,]*)\]")
Weight = Callable[[Instruction], float]
Shape = tuple[int, ...]


class UnknownTripCount(ValueError):
    """A loop of the compiled program runs as often as the data say."""


def matrix_products(text: str) -> int:
    """Matrix products that a compiled program executes, from its optimised HLO.

    Raises
    ------
    UnknownTripCount
        If a loop with a product in it has no known trip count.
    """
    found = executed(read(text), lambda one: one.opcode in PRODUCTS or bool(LIBRARY.search(one.attributes)))
    return round(sum(one.times for one in found))


PRODUCTS = ("dot", "convolution")


def flops(listing: Listing) -> float | None:
    """Flops of the products of matrices and of LAPACK's calls that a compiled program executes; elementwise ones not.

    None where it calls what is not known here, as another routine of a library.

    Raises
    ------
    UnknownTripCount
        If a loop with such arithmetic in it has no known trip count.
    """

    def of(one: Instruction) -> float:
        return _flops_of(one, listing)

    found = sum((float(one.times) * of(one.instruction) for one in executed(listing, of)), 0.0)
    return found if found == found else None


def _flops_of(one: Instruction, listing: Listing) -> float:
    """Flops of one instruction; NaN of one that is not known."""
    unknown = float("nan")
    if one.opcode == "multiply" and one.op_name.endswith("/dot_general"):
        return 2.0 * prod(_shape(one.shape)) if _shape(one.shape) else 0.0  # or a factor that was taken out of it
    if one.opcode not in (*PRODUCTS, "custom-call"):
        return 0.0
    given = [listing.instructions[name].shape for name in one.operands if name in listing.instructions]
    result = ARRAY.search(one.shape)
    if COMPLEX.search(" ".join((one.shape, *given))):
        return unknown
    if one.opcode == "dot" or CUBLAS.search(one.attributes):
        found = CONTRACTED.search(one.attributes)
        if not found or not given or not result:
            return unknown
        left = _shape(given[0])
        return 2.0 * prod(_numbers(result[1])) * prod(left[axis] for axis in _numbers(found[1].replace('"', "")))
    if one.opcode == "convolution":
        return _convolution(one.attributes, *map(_shape, (*given, one.shape))) if len(given) == 2 else unknown
    call = LAPACK.search(one.attributes)
    if call is not None:
        first, *others = (_numbers(found) for found in ARRAY.findall(call[2]))
        n, many = first[-1], prod(first[:-2])
        if call[1] == "trsm":
            return float(n * prod(others[0]))
        by_routine = {"getrf": 2 / 3, "potrf": 1 / 3}  # Golub and Van Loan 2013, sections 3.2 and 4.2; square ones
        return by_routine.get(call[1], unknown) * many * n**3 if first[-2] == n else unknown
    return unknown if FOREIGN.search(one.attributes) else 0.0


def _convolution(attributes: str, left: Shape, kernel: Shape, result: Shape) -> float:
    """Flops of a convolution: of the products with numbers of the input, not with the zeros around and between them."""
    labels, window = LABELS.search(attributes), WINDOW.search(attributes)
    if labels is None or "batch_group_count=" in attributes:
        return float("nan")
    of_left, of_kernel, of_result = (
        dict(zip(labels[i + 1], some, strict=True)) for i, some in enumerate((left, kernel, result))
    )
    said = dict(word.split("=") for word in window[1].split()) if window else {}
    pairs = of_result["b"] * of_result["f"] * of_kernel["i"]
    for axis in filter(str.isdigit, of_kernel):
        i = int(axis)
        stride, holes, apart = (
            int(said[name].split("x")[i]) if name in said else 1 for name in ("stride", "lhs_dilate", "rhs_dilate")
        )
        before = int(said["pad"].split("x")[i].split("_")[0]) if "pad" in said else 0
        places = np.arange(of_result[axis])[:, None] * stride + np.arange(of_kernel[axis]) * apart - before
        inside = (places >= 0) & (places <= (of_left[axis] - 1) * holes) & (places % holes == 0)
        pairs *= int(np.count_nonzero(inside))
    return 2.0 * pairs


def _shape(text: str) -> Shape:
    found = ARRAY.search(text)
    return _numbers(found[1]) if found else ()


def _numbers(words: str) -> Shape:
    return tuple(int(word) for word in words.split(",") if word)


class Executed(NamedTuple):
    """An instruction, and how often a program executes it."""

    instruction: Instruction
    times: Fraction


def executed(listing: Listing, weight: Weight) -> list[Executed]:
    """The instructions that have a weight; of branches of which one is taken those of the heaviest.

    Raises
    ------
    UnknownTripCount
        If a loop with such an instruction in it has no known trip count.
    """

    @cache
    def of(computation: str) -> tuple[Executed, ...]:
        found: list[Executed] = []
        for one in listing.computations.get(computation, ()):
            if weight(one):
                found.append(Executed(one, Fraction(1)))
            if one.opcode in ("async-update", "async-done"):  # of what its start has begun
                continue
            inside = [of(name) for name in one.called.values()]
            if one.opcode == "conditional":
                inside = [max(inside, key=total, default=())]
            trips = _trips(one, listing) if one.opcode == "while" and any(inside) else Fraction(1)
            found += [Executed(each.instruction, trips * each.times) for some in inside for each in some]
        return tuple(found)

    def total(some: tuple[Executed, ...]) -> float:
        weights = [float(one.times) * weight(one.instruction) for one in some]
        return float("inf") if any(w != w for w in weights) else sum(weights)  # what is not known must not be lost

    return list(of(listing.entry))


def _trips(loop: Instruction, listing: Listing) -> Fraction:
    known = TRIPS.search(loop.attributes)
    if known is not None:
        return Fraction(int(known[1]))
    told = _jax.trips_told_in(loop.op_name.removesuffix("/while"))
    if told is not None:
        return told
    condition = list(_inside(listing, loop.called["condition"]))
    bounds = [one.literal for one in condition if one.opcode == "constant"]
    compared = [one for one in condition if one.opcode == "compare"]
    if (
        len(bounds) != 1
        or len(compared) != 1
        or "direction=LT" not in compared[0].attributes
        or not bounds[0].isdigit()
    ):
        raise UnknownTripCount("a loop of the compiled program has no known trip count")
    return Fraction(int(bounds[0]))


def _inside(listing: Listing, computation: str) -> Iterator[Instruction]:
    """The instructions of a computation, and of those that it calls."""
    for one in listing.computations.get(computation, ()):
        yield one
        for name in one.called.values():
            yield from _inside(listing, name)
