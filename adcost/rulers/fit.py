"""The ruler ``fit``: how large may a case be, to fit into the memory of its target? Asked of the compiler."""

from collections.abc import Callable, Iterator

from adcost.rulers.subject import Subject, shapes_of
from adcost.suite.vocabulary import Case, Number
from adcost.targets.compiling import lower_for, planned_bytes

CLOSE = 64  # of the values left, the part that is taken for close


def take(subject: Subject) -> Iterator[Number]:
    """The largest value of the study's open parameter at which the case fits, and the bytes that it needs there."""
    study, case, target, fit = subject.study, subject.case, subject.target, subject.study.fit
    assert fit is not None
    assert target.memory is not None
    memory, failed = target.memory, list[int]()

    def total(n: int) -> int:
        program = study.made(Case(case.study, case.method, ((fit.parameter, n), *case.params), case.dtype), target)
        lowered = lower_for(program.run, *shapes_of(program), target=target)
        try:
            return planned_bytes(lowered.compile(), target)["total"]
        except RuntimeError as error:
            if "INTERNAL" not in str(error):
                raise
            failed.append(n)  # a compiler that cannot bounds it as memory does; the number says which it was
            return 2 * memory

    method = subject.method
    most = fit.most(case) if method.compiles else method.limit[fit.parameter]
    largest, needed = fitting(total, memory, most, fit.precision)
    flags: tuple[str, ...] = ("not tried beyond",) if largest == most else ()
    flags += (f"the compiler fails from {min(failed)} on",) if failed else ()
    yield Number("fit", target.name, f"largest {fit.parameter}", "1", float(largest), flags=flags)
    yield Number("fit", target.name, "bytes at the largest", "B", float(needed))


def fitting(
    total: Callable[[int], int],
    memory: int,
    most: int,
    precision: float = 0.0,
    enough: float = 1.0,
    at_most: int | None = None,
) -> tuple[int, int]:
    """The largest n of 0 to ``most`` with ``total(n) <= memory``, and that total; ``total`` must not fall with n.

    In turn: where the straight line through the two known points says, close above that, and in the middle. Where the
    memory grows evenly the first two leave little between them; the third bounds the search where it does not. With a
    ``precision`` n may lie below the largest by that share; one that takes ``enough`` of the memory will do.
    ``at_most`` is the total at ``most``, where that is known.
    """
    low, at_low = 0, 0
    high, at_high = most, total_or_too_much(total, most, memory) if at_most is None else at_most
    if at_high <= memory:
        return most, at_high
    turn = 0
    while high - low > max(1, precision * low) and at_low < enough * memory:
        line = low + (high - low) * (memory - at_low) / (at_high - at_low)
        middle = (int(line), low + (high - low) // CLOSE, (low + high) // 2)[turn % 3]
        turn += 1
        middle = min(max(middle, low + 1), high - 1)
        needed = total_or_too_much(total, middle, memory)
        if needed <= memory:
            low, at_low = middle, needed
        else:
            high, at_high = middle, needed
    return low, at_low


def total_or_too_much(total: Callable[[int], int], n: int, memory: int) -> int:
    """A compiler that refuses a program for want of memory has said that it does not fit."""
    try:
        return total(n)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return 2 * memory
