"""The ruler ``told``: what a program that was made for its target says of itself."""

from collections.abc import Iterator

from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import Number


def take(subject: Subject) -> Iterator[Number]:
    """The program's facts and its remark; of a program that is the same everywhere they are counts."""
    if subject.study.for_target is not None:
        program = subject.program
        for quantity, (value, unit) in program.facts.items():
            yield Number(
                "told", subject.target.name, quantity, unit, value, flags=(program.remark,) if program.remark else ()
            )
