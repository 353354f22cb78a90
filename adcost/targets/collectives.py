"""What the devices of a compiled program say to each other, read from its text: each collective, as often as it runs.

Bytes sent are those of the algorithms that send least, rings: of a value of s bytes among g devices each sends
(g - 1) / g x s to gather it or to scatter its sum, twice that for the sum everywhere (Chan et al., "Collective
communication: theory, practice, and experience", Concurrency and Computation 19 (2007)).
"""

import re
from math import prod
from typing import Any, NamedTuple, TypedDict

from adcost.targets.listing import BACK, Instruction, Listing, read
from adcost.targets.program_text import UnknownTripCount, executed, flops

GROUPS = re.compile(r"replica_groups=\{?\{([\d,]*)\}")
IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")
AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")
AXIS = re.compile(r"""["']?([\w.]+)["']?=(\d+)""")
SUBAXIS = re.compile(r"""["']?([\w.]+)["']?(?::\(\d+\)(\d+))?""")
ARRAY = re.compile(r"(pred|token|[a-z]+)(\d*)(\w*)\[([\d,]*)\]")


class Said(TypedDict):
    """A collective: how often it runs, among how many devices, the bytes of its value and those that a device sends.

    Bytes are of one time. ``shape`` is that of a device's operand; ``path`` as in ``adcost.targets.alive.Alive``.
    """

    kind: str
    times: float
    devices: int
    size: int
    sent: int
    shape: str
    operation: str
    path: list[list[Any]]


class Communication(NamedTuple):
    """Of one device of a program on several: its collectives, None if nobody knows how often they run; its flops.

    Flops are those of products, None if they are not known.
    """

    said: list[Said] | None
    flops: float | None


def communication(text: str, devices: int) -> Communication:
    """What a compiled program on so many devices says."""
    listing = read(text)
    try:
        found = executed(listing, lambda one: float(_kind(listing, one) is not None))
        said = [_said(listing, one.instruction, float(one.times), devices) for one in found]
    except UnknownTripCount:
        return Communication(None, None)
    try:
        return Communication(said, flops(listing))
    except UnknownTripCount:
        return Communication(said, None)


def _said(listing: Listing, one: Instruction, times: float, devices: int) -> Said:
    kind, cause = _kind(listing, one) or "", _cause(listing, one)
    group = _group(one, devices)
    given = [listing.instructions[name].shape for name in one.operands if name in listing.instructions]
    operand = sum(map(nbytes, given))
    size = operand * group if kind == "all-gather" else operand
    sends = {"all-reduce": 2 * (group - 1) / group, "collective-permute": 1.0}.get(kind, (group - 1) / group)
    return {
        "kind": kind,
        "times": times,
        "devices": group,
        "size": size,
        "sent": round(size * sends),
        "shape": ", ".join(given),
        "operation": cause.op_name or cause.opcode,
        "path": [list(frame) for frame in listing.path_of(cause)],
    }


def _kind(listing: Listing, one: Instruction) -> str | None:
    """Which collective an instruction is, or begins; None if it is none, or goes on with one.

    A TPU's compiler writes a collective that runs beside products into each fusion of these once more, and a sum that
    is scattered as a fusion of the sum and its part.
    """
    if one.collective is None:
        return None
    begun = any("AsyncCollectiveDone" in other.attributes for other in listing.computations[one.computation])
    if begun or one.computation.startswith("async_collective_fusion"):
        return None
    return "reduce-scatter" if one.computation.startswith("all-reduce-scatter") else one.collective


def _cause(listing: Listing, one: Instruction) -> Instruction:
    """What it is for: itself, as it is named, or what first computes with what a loop took out of an array."""
    here = one
    for _ in range(BACK):
        if here.op_name.rpartition("/")[2] not in TAKEN:
            return here
        computing = [user for user in listing.users.get(here.name, []) if user.opcode not in ("tuple", "while")]
        if not computing:
            break
        here = min(computing, key=lambda user: user.op_name.rpartition("/")[2] in (*TAKEN, ""))
    return one


TAKEN = ("squeeze", "dynamic_slice", "slice", "reshape", "convert_element_type", "broadcast_in_dim")


def _group(one: Instruction, devices: int) -> int:
    """How many devices say it to each other."""
    if found := IOTA.search(one.attributes):
        return int(found[2])
    if found := AXES.search(one.attributes):
        sizes = {name: int(size) for name, size in AXIS.findall(found[1])}
        return prod(int(size or sizes.get(name, 1)) for name, size in SUBAXIS.findall(found[2]))
    if (found := GROUPS.search(one.attributes)) and found[1]:
        return len(found[1].split(","))
    return devices


def nbytes(shape: str) -> int:
    """The bytes of an array by its shape, or of the arrays of a tuple: those of ``f32[2,3]`` are 24."""
    total = 0
    for kind, bits, _, sizes in ARRAY.findall(shape):
        width = {"pred": 8, "token": 0}.get(kind, int(bits or 0))
        total += -(-prod(map(int, filter(None, sizes.split(",")))) * width // 8)
    return total
