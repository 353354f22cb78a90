"""The rulers ``compiler`` and ``compile``: what a program will take by its compiler's plan, and the compiler itself."""

from collections.abc import Iterator
from contextlib import suppress

from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import NotMeasured, Number
from adcost.targets import program_text
from adcost.targets.compiling import planned_bytes
from adcost.targets.listing import read


def take(subject: Subject) -> Iterator[Number]:
    """Planned bytes by purpose, the device's memory, and the compiled program's arithmetic.

    That is flops where a CPU compiles it (products and LAPACK's calls), and the number of products if asked for.
    """
    target, executable = subject.target, subject.executable
    if executable is None:
        return
    planned = planned_bytes(executable.compiled, target)
    if target.memory is not None:
        planned["device memory"] = target.memory
    for quantity, value in planned.items():
        yield Number("compiler", target.name, quantity, "B", float(value))
    text = executable.compiled.as_text()
    if target.platform == "cpu":
        with suppress(program_text.UnknownTripCount):
            flops = program_text.flops(read(text))
            if flops is not None:
                yield Number("compiler", target.name, "flops", "flop", flops)
    if subject.study.matrix_products:
        try:
            products = program_text.matrix_products(text)
        except program_text.UnknownTripCount as error:
            raise NotMeasured(str(error)) from None
        yield Number("compiler", target.name, "matrix products", "products", float(products))


def take_seconds(subject: Subject) -> Iterator[Number]:
    """Seconds that the compiler took."""
    if subject.executable is not None:
        yield Number("compile", subject.target.name, "compile time", "s", subject.executable.seconds)
