"""The ruler ``lines``: what is alive at the peak of a program, as its compiler tells, by the line that made it."""

from collections.abc import Iterator

from adcost import _jax
from adcost.peak import Held, in_the_program, peak_of
from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import NotMeasured, Number
from adcost.targets.compiling import planned_bytes

LEAST = 2**20  # bytes of a plan: below, what a compiler needs for itself counts
MOST = 12  # rows that are told one by one
POINTS = 200  # of the memory over the program's time


def take(subject: Subject) -> Iterator[Number]:
    """The rows' sum over the plan, the share with a line; where a study asks for lines the bytes of each kind of them,
    and the rows, largest first.

    Of programs without loops also the temporary bytes over their time.
    """
    target, executable = subject.target, subject.executable
    total = 0 if executable is None else planned_bytes(executable.compiled, target)["total"]
    if total < LEAST:
        return
    told = subject.told
    jaxpr = subject.traced.jaxpr
    lines = [in_the_program(path) for path in _jax.call_paths(jaxpr.jaxpr)]
    peak = told and peak_of(told, total, lines)
    if not peak:
        raise NotMeasured("the compiler told nothing of what is alive at the peak")
    yield Number("lines", target.name, "told / plan", "1", peak.told / peak.total)
    if peak.made >= LEAST:
        yield Number("lines", target.name, "with a line", "1", peak.with_a_line)
    if not subject.study.lines:
        return
    for what in dict.fromkeys(row.what for row in peak.rows if not row.beside):
        size = sum(row.size for row in peak.rows if row.what == what and not row.beside)
        yield Number("lines", target.name, what, "B", float(size))
    for i, row in enumerate(peak.rows[:MOST]):
        yield Number("lines", target.name, "held", "B", float(row.size), at=(("row", i),), flags=_words(row))
    if not any(map(_jax.is_loop, _jax.equations(jaxpr.jaxpr))):
        step = max(len(peak.over_time) / POINTS, 1.0)
        for i in range(int(len(peak.over_time) / step)):
            value = max(peak.over_time[int(i * step) : int((i + 1) * step)])
            yield Number("lines", target.name, "alive", "B", float(value), at=(("time", i),))


def _words(row: Held) -> tuple[str, ...]:
    """What it is, where it was made, its shape, the operation."""
    return row.kind, row.where, row.of, row.operation
