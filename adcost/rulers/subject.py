"""What a ruler is laid on: a case, its program, and the executable on a target."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax

from adcost.suite.vocabulary import Case, Method, Program, Study
from adcost.targets import Target
from adcost.targets.compiling import lower_for, placed


class Executable(NamedTuple):
    """A compiled program and the seconds that its compiler took."""

    compiled: Any
    seconds: float


def shapes_of(program: Program) -> tuple[Any, ...]:
    """A program's inputs as shapes and dtypes."""
    return tuple(placed(tuple(program.inputs() if program.shapes is None else program.shapes())))


@dataclass(frozen=True)
class Subject:
    """A case on a target, with all that rulers ask of it; each thing is made when it is first asked for.

    ``runs`` is how often a ruler may run the program. ``seconds`` are the case's in interleaved rounds, by
    process, ``others`` those of what it is compared with, by the name of the ratio.
    """

    case: Case
    study: Study
    target: Target
    runs: int = 1
    seconds: Sequence[Sequence[float]] = ()
    others: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    results: list[Any] = field(default_factory=list)  # of the runs so far

    @property
    def method(self) -> Method:
        return self.study.methods[self.case.method]

    @cached_property
    def program(self) -> Program:
        return self.study.made(self.case, self.target)

    @cached_property
    def shapes(self) -> tuple[Any, ...]:
        return shapes_of(self.program)

    @cached_property
    def executable(self) -> Executable | None:
        """The program compiled for the target; None of one that is not jitted."""
        if not self.method.jitted:
            return None
        # A function of its own: of one that it has seen before JAX returns the executable that it has, at once.
        # One that is compiled already stays as it is, with the arguments that it donates.
        run = self.program.run
        own = run if hasattr(run, "trace") else lambda *inputs: run(*inputs)
        lowered = lower_for(own, *self.shapes, target=self.target)
        start = time.perf_counter()
        compiled = lowered.compile()
        return Executable(compiled, time.perf_counter() - start)

    @cached_property
    def call(self) -> Callable[[], Any]:
        """Runs the program on the target."""
        run = self.program.run if self.executable is None else self.executable.compiled
        return partial(run, *jax.device_put(self.program.inputs()))

    @property
    def result(self) -> Any:
        """What the program returns: of the last run, or of one that is made now."""
        if not self.results:
            self.results.append(self.call())
        return self.results[-1]
