"""The table of rulers. A new one is a file with a function ``take(subject)``, and a line here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from adcost.rulers import (
    check,
    clock,
    collectives,
    compiler,
    count,
    device,
    estimate,
    fit,
    limited,
    lines,
    process,
    told,
)
from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import Number
from adcost.targets import Target

Laid = Literal["program", "executable", "run", "rounds", "search"]


@dataclass(frozen=True)
class Ruler:
    """How numbers are taken, and where.

    Attributes
    ----------
    take
        The numbers of a subject.
    laid
        On the ``program`` as it is written, on the ``executable`` that a compiler made, on a ``run`` of that, on the
        seconds of interleaved ``rounds``, or by a ``search`` for the size that a compiler's device holds.
    platforms
        Of the attached targets on which it is laid.
    environment
        What the process needs in which it is laid.
    alone
        Does it need a process in which nothing has run before?
    watched
        Is the process sampled from outside meanwhile?
    at_death
        The number, if laying it is the death of the process; then it comes last.
    """

    take: Callable[[Subject], Iterable[Number]]
    laid: Laid
    platforms: tuple[str, ...] = ("cpu", "cuda")
    environment: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False
    watched: bool = False
    at_death: Callable[[Subject], Number] | None = None


RULERS = {
    "compiler": Ruler(compiler.take, "executable"),
    "compile": Ruler(compiler.take_seconds, "executable"),
    "lines": Ruler(lines.take, "executable"),
    "collectives": Ruler(collectives.take, "executable"),
    "count": Ruler(count.take, "program"),
    "told": Ruler(told.take, "executable"),
    "process": Ruler(process.take, "run", ("cpu",), process.ALLOCATOR, watched=True),
    "device": Ruler(device.take, "run", ("cuda",), device.ALLOCATOR, alone=True),
    "estimate": Ruler(estimate.take, "run"),
    "check": Ruler(check.take, "run"),
    "limited": Ruler(limited.take, "run", ("cpu",), process.ALLOCATOR, at_death=limited.died),
    "clock": Ruler(clock.take, "rounds"),
    "fit": Ruler(fit.take, "search"),
}
CHECKING = ("count", "estimate", "check")  # what makes a compiler's numbers count, on whatever device programs run


def of_target(target: Target) -> list[str]:
    """The rulers that are laid on a case of a target, the clock and the search left out."""
    if not target.attached:
        return [name for name, ruler in RULERS.items() if ruler.laid == "executable"]
    return [
        name
        for name, ruler in RULERS.items()
        if ruler.laid in ("program", "executable", "run") and target.platform in ruler.platforms
    ]
