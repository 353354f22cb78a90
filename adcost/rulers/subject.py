"""What a ruler is laid on: a case, its program, and the executable on a target."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from adcost import _jax
from adcost.suite.vocabulary import Case, Method, Program, Study
from adcost.targets import Target
from adcost.targets.alive import Told, told
from adcost.targets.compiling import placed, reporting_to, trace_for


class Executable(NamedTuple):
    """A compiled program, the seconds that its compiler took, and what that told; None where it was not asked."""

    compiled: Any
    seconds: float
    told: Told | None


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
        # One that runs here may be saved, and must not have been compiled with reports.
        return self._compiled(reports=not self.target.attached)

    @cached_property
    def told(self) -> Told | None:
        """What the compiler tells of the program, which is compiled again for that if it was not asked before."""
        made = self.executable
        return made and (made.told or self._compiled(reports=True).told)

    @cached_property
    def traced(self) -> Any:
        """The program traced for the target."""
        # A function of its own: of one that it has seen before JAX returns the executable that it has, at once.
        # One that is compiled already stays as it is, with the arguments that it donates.
        run = self.program.run
        own = run if hasattr(run, "trace") else lambda *inputs: run(*inputs)
        return trace_for(own, *self.shapes, target=self.target)

    def _compiled(self, reports: bool) -> Executable:
        with _jax.whole_call_paths():
            lowered = self.traced.lower()
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            compiled = lowered.compile(compiler_options=reporting_to(folder) if reports else None)
            seconds = time.perf_counter() - start
            return Executable(compiled, seconds, told(Path(folder)) if reports else None)

    @cached_property
    def call(self) -> Callable[[], Any]:
        """Runs the program on the target."""
        inputs = self.program.inputs()
        if self.executable is None:
            return partial(self.program.run, *jax.device_put(inputs))
        compiled = self.executable.compiled
        places = compiled.input_shardings[0] if self.target.devices > 1 else None
        return partial(compiled, *jax.device_put(inputs, places))

    @property
    def result(self) -> Any:
        """What the program returns: of the last run, or of one that is made now."""
        if not self.results:
            self.results.append(self.call())
        return self.results[-1]
