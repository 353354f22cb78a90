"""The ruler ``device``: the peak of an accelerator's own allocator while a program runs.

The allocator's peak is that of the whole process, so a program needs a process of its own, and preallocation must be
off (``ALLOCATOR``) or the peak would be that of the pool. With it off allocations are slower: times are taken in
another process, with it on.
"""

from collections.abc import Iterator, Mapping

import jax

from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import NotMeasured, Number

ALLOCATOR = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def allocator_peak(before: Mapping[str, int] | None, after: Mapping[str, int] | None) -> int:
    """Bytes by which a device's memory in use rose at its highest between two of its allocator's reports.

    Raises
    ------
    NotMeasured
        If the device keeps no such report, as a CPU does not, or if its peak is older than the first report.
    """
    if before is None or after is None:
        raise NotMeasured("this device reports no allocator statistics")
    if after["peak_bytes_in_use"] == before["peak_bytes_in_use"] > before["bytes_in_use"]:
        raise NotMeasured("the peak was reached before the program ran: it needs a process of its own")
    return after["peak_bytes_in_use"] - before["bytes_in_use"]


def take(subject: Subject) -> Iterator[Number]:
    """The allocator's peak while the program runs, in bytes above what was in use before."""
    call, device = subject.call, jax.devices()[0]  # the inputs are there before the first report
    before = device.memory_stats()
    subject.results.append(jax.block_until_ready(call()))
    peak = allocator_peak(before, device.memory_stats())
    yield Number("device", subject.target.name, "peak", "B", float(peak))
