"""Claims of the study ``machine``: what fresh memory costs, beside memory that was touched before."""

from collections.abc import Iterator
from math import inf, log

import numpy as np

from analysis import theory
from analysis.verdict import Cause, Claim, Test, at_least, at_most
from analysis.view import Found, View

MAPPED = theory.MAPPED // 2**20  # MiB
DEARER = 1.25  # times a byte below the threshold: what a break is


def rate(view: View) -> float | None:
    """Flops a second of the largest product of matrices; None if none was timed."""
    found = (view.series("product", "count", "arithmetic") / view.series("product", "clock", "time")).dropna()
    return float(found.iloc[-1]) if len(found) else None


def fresh_pages(view: View) -> Iterator[Test]:
    if not view.attached or view.platform != "cpu":
        return
    quantity = f"seconds a byte of a new buffer, above {MAPPED} MiB / below"
    keeps = view.target == theory.KEEPS_PAGES
    band = (
        at_most(DEARER, "an allocator that keeps its pages has no threshold")
        if keeps
        else at_least(DEARER, "pages that are mapped anew are cleared and mapped when they are first touched")
    )
    yield Test("fresh", "clock", quantity, band, _above_over_below(view, "fresh"), cause=OTHER_CACHES)
    quantity = f"seconds a byte of a buffer that is read again, above {MAPPED} MiB / below"
    band = at_most(DEARER, "it is the same memory, whoever allocated it")
    yield Test("touched", "clock", quantity, band, _above_over_below(view, "touched"), cause=OTHER_CACHES)


OTHER_CACHES = Cause("likely", "Caches of another size than those of the machine for which this was said.")


def _above_over_below(view: View, method: str) -> Found | None:
    """The sizes nearest to the threshold, one on each side: their ratio, per byte, with both intervals."""
    sizes = view.sizes(method, "clock", "time")
    below = [mib for mib in sizes if mib < MAPPED and mib > MAPPED / 2]
    above = [mib for mib in sizes if MAPPED < mib < 2 * MAPPED]
    if not below or not above:
        return None
    near = [max(below), min(above)]
    small, large = (view.timed(method, "time", mib) for mib in near)
    assert small is not None
    assert large is not None
    share = near[0] / near[1]
    halves = [
        (log(found.high / found.value), log(found.value / found.low) if found.low > 0 else inf)
        for found in (large, small)
    ]
    up, down = np.hypot(halves[0][0], halves[1][1]), np.hypot(halves[0][1], halves[1][0])
    value = share * large.value / small.value
    return Found(value, value * np.exp(-down), value * np.exp(up), 2, min(small.processes, large.processes))


CHAPTER = 10  # of the lecture
CLAIMS = [
    Claim(
        "fresh-pages",
        "machine",
        "(Beyond the lecture) Memory that is mapped anew costs more than memory that was touched before.",
        "a byte of a new buffer costs more above 32 MiB, where glibc maps each request, unless it keeps its pages",
        fresh_pages,
        ("memory",),
    ),
]
