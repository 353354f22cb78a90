"""The ruler ``process``: peak resident memory of this process while a program runs, from Linux's /proc.

``VmHWM`` is the high-water mark since 5 was written to ``/proc/self/clear_refs``; ``ru_maxrss`` would not do, it is
inherited from the parent. The allocator must give pages back at once, or a later call finds them resident: lay
this ruler in a process started with ``ALLOCATOR`` in its environment.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from adcost.rulers import heap
from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import Number

RESOLUTION = 2**20  # bytes: what this ruler cannot tell apart
ALLOCATOR = {  # glibc's: bytes, how many requests may be mapped (its own default), heaps
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "MALLOC_MMAP_MAX_": "65536",
    "MALLOC_ARENA_MAX": "1",
}
SELF = Path("/proc/self")


def take(subject: Subject) -> Iterator[Number]:
    """The peak of the process while the program runs, and that of its first call."""
    peaks, result = resident_peaks(subject.call, subject.runs)
    subject.results.append(result)
    repeats = 1 if peaks.first < RESOLUTION else subject.runs
    yield Number("process", subject.target.name, "peak", "B", peaks.value, peaks.low, peaks.high, repeats)
    yield Number("process", subject.target.name, "first peak", "B", peaks.first)


def resident_peak(call: Callable[[], Any]) -> tuple[int, Any]:
    """Bytes by which resident memory rose at its highest during ``call()``, and what the call returned.

    Raises
    ------
    OSError
        Where there is no Linux ``/proc``.
    """
    with heap.filled():
        before = _settled()
        (SELF / "clear_refs").write_text("5")
        result = jax.block_until_ready(call())
        return status("VmHWM") - before, result


class Peaks(NamedTuple):
    """Bytes above a call that does nothing: the highest peak, the bounds of its error, the peak of the first call."""

    value: int
    low: int
    high: int
    first: int


def resident_peaks(call: Callable[[], Any], runs: int) -> tuple[Peaks, Any]:
    """The highest of several peaks of ``call()``, and what the last call returned.

    The first call, which adds what is allocated once, stands apart. A later peak can come out low, when an earlier
    buffer was not yet returned, but not high: hence the highest. The error is what the calls that do nothing show,
    and the distance from the highest peak to the next. A first call below ``RESOLUTION`` bounds all others: they would
    only show noise, and are not made.
    """
    first, result = resident_peak(call)
    if first < RESOLUTION:
        return Peaks(first, 0, RESOLUTION, first), result
    idle = [resident_peak(lambda: None)[0] for _ in range(runs)]
    peaks = []
    for _ in range(runs):
        result = None  # the last result is freed before the next peak
        peak, result = resident_peak(call)
        peaks.append(peak)
    highest, *others = sorted(peaks, reverse=True)
    error = max(idle) + (highest - others[0] if others else 0)
    value = highest - min(idle)
    return Peaks(value, min(value, max(0, value - error)), value + error, first), result


def _settled() -> int:
    """Resident bytes, once freed buffers have been returned: their number no longer falls."""
    resident = status("VmRSS")
    for _ in range(20):
        time.sleep(0.005)
        now = status("VmRSS")
        if now >= resident:
            break
        resident = now
    return status("VmRSS")


def status(field: str) -> int:
    """Bytes of a field of ``/proc/self/status``."""
    for line in (SELF / "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
