"""The ruler ``limited``: does the program live in a process that may take no more than its budget?

A process on Linux can be told how much memory it may have for its data (``RLIMIT_DATA``): what is asked for beyond that
is refused, and a program that asks dies. The question is that of xMem (arXiv:2510.21048): how many jobs die that are
limited to an estimate?
"""

import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from adcost.rulers import heap
from adcost.rulers.process import RESOLUTION, status
from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import Number

BUDGET, FITS = "budget", "fits"  # the facts of a program that say how many bytes it may take, and whether it should fit


def take(subject: Subject) -> Iterator[Number]:
    """1 if the program lived within its budget; nothing of a program that has none or needs more."""
    facts = subject.program.facts
    if subject.study.for_target is None or BUDGET not in facts or facts[FITS][0] == 0:
        return
    call = subject.call
    jax.block_until_ready(call())  # what is allocated once
    given = sum(leaf.nbytes for leaf in jax.tree.leaves(subject.program.inputs()))
    yield _number(subject, lives(call, int(facts[BUDGET][0]) - given))


def died(subject: Subject) -> Number:
    """Of a program that took the process with it: an allocation that fails in another thread does."""
    return _number(subject, False)


def _number(subject: Subject, lived: bool) -> Number:
    return Number("limited", subject.target.name, "lived", "1", float(lived))


def lives(call: Callable[[], Any], memory: int) -> bool:
    """Does a call that works without a limit get by with so many bytes beside those that the process has now?

    Raises
    ------
    OSError
        Where there is no Linux ``/proc``.

    A call may end the process instead.
    """
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    with heap.filled():
        resource.setrlimit(resource.RLIMIT_DATA, (_held() + memory + RESOLUTION, most))
        try:
            jax.block_until_ready(call())
        except (MemoryError, jax.errors.JaxRuntimeError):  # kernels give other reasons than RESOURCE_EXHAUSTED
            return False
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (before, most))
    return True


def _held() -> int:
    """Bytes of data of this process, once what earlier calls held was given back: that takes a moment."""
    found = []
    for _ in range(30):
        found.append(status("VmData"))
        time.sleep(0.01)
    return min(found)
