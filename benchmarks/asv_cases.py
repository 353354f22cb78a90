"""Front door 2, asv: one class a study, its parameter the case, and one for the cases whose execution is counted.

``PROFILE`` in the environment chooses the cases, as for pytest. asv runs ``setup`` before every timed call, so it
must cost nothing the second time: programs are compiled once and kept. Without it ``asv run --quick``, which does not
warm up, would time the compiler. ``version`` is set by hand, because asv's own hash covers the text of a method
alone. asv finds classes by looking at this module, so they are put into its namespace: a new study needs no line here.
"""

import os
import sys
from functools import lru_cache
from typing import Any

from benchmarks import cases, recorder, targets
from benchmarks.rulers import compiler, counts

PROFILE = os.environ.get("PROFILE", cases.PROFILES[0])
COMPILE_BUDGET = 8.0  # seconds
os.environ["JAX_PLATFORMS"] = "cpu"  # with a GPU's or a TPU's compiler installed, JAX would look for the device


@lru_cache(maxsize=1)
def _program(case: cases.Case) -> tuple[cases.Program, tuple[Any, ...]]:
    import jax

    jax.config.update("jax_enable_x64", case.dtype == "float64")
    program = cases.studies()[case.study].program(case)
    return program, jax.device_put(program.inputs())


@lru_cache(maxsize=1)
def _compiled(case: cases.Case) -> tuple[Any, list[cases.Number], tuple[Any, ...]]:
    program, inputs = _program(case)
    if not cases.studies()[case.study].methods[case.method].jitted:
        return program.run, [], inputs
    return *compiler.compile_program(program, targets.TARGETS["cpu"]), inputs


def _run(case_id: str) -> None:
    import jax

    compiled, _, inputs = _compiled(cases.case_from_id(case_id))
    jax.block_until_ready(compiled(*inputs))


def _planned(case_id: str, quantity: str) -> float:
    _, numbers, _ = _compiled(cases.case_from_id(case_id))
    return next((number.value for number in numbers if number.quantity == quantity), float("nan"))


class _Study:
    """What is measured of every case of a study."""

    param_names = ("case",)
    version = "1"
    timeout = 300.0
    number = 1

    def setup(self, case_id: str) -> None:
        _compiled(cases.case_from_id(case_id))

    def time_case(self, case_id: str) -> None:
        _run(case_id)

    def peakmem_case(self, case_id: str) -> None:
        """Highest resident memory of the process, with imports, inputs and compilation in it."""
        _run(case_id)

    def peakmem_baseline(self, case_id: str) -> None:
        """The same without the run."""

    def track_temp(self, case_id: str) -> float:
        return _planned(case_id, "temp")

    def track_compile_time(self, case_id: str) -> dict[str, Any] | float:
        """Several compilations, so that asv gives an interval; a slow one has fewer, and then none."""
        import jax

        case = cases.case_from_id(case_id)
        program, _ = _program(case)
        if not cases.studies()[case.study].methods[case.method].jitted:
            return float("nan")
        samples: list[float] = []
        while len(samples) < 8 and sum(samples) < COMPILE_BUDGET:
            jax.clear_caches()
            _, numbers = compiler.compile_program(program, targets.TARGETS["cpu"])
            samples += [number.value for number in numbers if number.ruler == "compile"]
        return {"samples": samples, "number": 1}

    def track_evaluations(self, case_id: str) -> float:
        """Layer evaluations; not a number where only the data know them."""
        case = cases.case_from_id(case_id)
        program, inputs = _program(case)
        study = cases.studies()[case.study]
        try:
            counted = counts.count(program.run, *inputs, loops=program.loops)
        except counts.DynamicTripCount:
            return float("nan")
        return float(counted[study.evaluates]) if study.evaluates else float("nan")

    track_temp.unit = "bytes"  # type: ignore[attr-defined]
    track_compile_time.unit = "seconds"  # type: ignore[attr-defined]
    track_evaluations.unit = "evaluations"  # type: ignore[attr-defined]


class _Executions:
    """Layer evaluations counted while a case runs, where its own trip counts are to be held against that."""

    param_names = ("case",)
    version = "1"
    timeout = 300.0

    def track_executed_evaluations(self, case_id: str) -> float:
        case = cases.case_from_id(case_id)
        executions = cases.studies()[case.study].executions
        return float(executions(case)) if executions else float("nan")

    track_executed_evaluations.unit = "evaluations"  # type: ignore[attr-defined]


def _benchmarks() -> dict[str, type]:
    found = {}
    try:
        cases.select("all", PROFILE)
    except ValueError as error:
        sys.exit(str(error))
    for name, study in cases.studies().items():
        available = [case for case in study.cases(PROFILE) if recorder.unavailable_extra(case) is None]
        witnesses = [case for case in available if study.witnesses(case) and study.program(case).loops]
        title = "".join(part.capitalize() for part in name.split("_"))
        for base, chosen in ((_Study, available), (_Executions, witnesses)):
            full = title + base.__name__.removeprefix("_Study").removeprefix("_")
            fields = {"params": [[case.id for case in chosen]], "__doc__": study.question, "__module__": __name__}
            if chosen:
                found[full] = type(full, (base,), fields)
    return found


globals().update(_benchmarks())
