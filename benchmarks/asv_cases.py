"""Door 2, asv: a class a study, with method and size as parameters, and one for the cases whose execution is counted.

``PROFILE`` in the environment chooses the cases, as for pytest. asv runs ``setup`` before every timed call, so it
must cost nothing the second time: programs are compiled once and kept. Without it ``asv run --quick``, which does not
warm up, would time the compiler. ``version`` is set by hand, because asv's own hash covers the text of a method
alone. asv finds classes by looking at this module, so they are put into its namespace: a new study needs no line here.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # with a GPU's or a TPU's compiler installed, JAX would look for the device

import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import benchmarks
from adcost.rulers import count as counts
from adcost.rulers import subject, table
from adcost.suite import campaign, probe, registry, vocabulary
from adcost.targets import TARGETS

PROFILE = os.environ.get("PROFILE", vocabulary.PROFILES[0])
COMPILE_BUDGET = 8.0  # seconds


def _case(study: str, method: str, size: str) -> vocabulary.Case:
    return vocabulary.case_from_id(f"{study}-{method}-{size}")


@lru_cache(maxsize=1)
def _subject(case: vocabulary.Case) -> subject.Subject:
    made = subject.Subject(case, benchmarks.all_studies()[case.study], TARGETS["cpu"])
    probe.configure(case, made.method)
    return made


def _require(case: vocabulary.Case) -> None:
    """asv takes this error for a case that is not asked for. The list of cases is the same in every environment."""
    reason = campaign.unavailable(benchmarks.all_studies()[case.study], case)
    if reason is not None:
        raise NotImplementedError(reason)


class _Study:
    """What is measured of every case of a study."""

    study = ""
    param_names = ("method", "size")
    version = "2"
    timeout = 300.0
    number = 1

    def setup(self, method: str, size: str) -> None:
        case = _case(self.study, method, size)
        _require(case)
        _subject(case).call  # noqa: B018, as good as a call: it is compiled and kept

    def time_case(self, method: str, size: str) -> None:
        import jax

        jax.block_until_ready(_subject(_case(self.study, method, size)).call())

    def peakmem_case(self, method: str, size: str) -> None:
        """Highest resident memory of the process, with imports, inputs and compilation in it."""
        self.time_case(method, size)

    def peakmem_baseline(self, method: str, size: str) -> None:
        """The same without the run."""

    def track_temp(self, method: str, size: str) -> float:
        planned = table.RULERS["compiler"].take(_subject(_case(self.study, method, size)))
        return next((number.value for number in planned if number.quantity == "temp"), float("nan"))

    def track_compile_time(self, method: str, size: str) -> dict[str, Any] | float:
        """Several compilations, so that asv gives an interval; a slow one has fewer, and then none."""
        import jax

        case = _case(self.study, method, size)
        if not _subject(case).method.jitted:
            return float("nan")
        samples: list[float] = []
        while len(samples) < 8 and sum(samples) < COMPILE_BUDGET:
            jax.clear_caches()
            _subject.cache_clear()
            samples += [number.value for number in table.RULERS["compile"].take(_subject(case))]
        return {"samples": samples, "number": 1}

    def track_evaluations(self, method: str, size: str) -> float:
        """Layer evaluations; not a number where only the data know them."""
        asked = _subject(_case(self.study, method, size))
        try:
            counted = counts.count(asked.program.run, *asked.shapes)
        except counts.DynamicTripCount:
            return float("nan")
        unit = None if counted.early else asked.study.evaluates
        return float("nan") if unit is None else float(counted[unit])

    track_temp.unit = "bytes"  # type: ignore[attr-defined]
    track_compile_time.unit = "seconds"  # type: ignore[attr-defined]
    track_evaluations.unit = "evaluations"  # type: ignore[attr-defined]


class _Executions:
    """Layer evaluations counted while a case runs, where its own trip counts are to be held against that."""

    study = ""
    param_names = ("method", "size")
    version = "2"
    timeout = 300.0

    def setup(self, method: str, size: str) -> None:
        _require(_case(self.study, method, size))

    def track_executed_evaluations(self, method: str, size: str) -> float:
        asked = _subject(_case(self.study, method, size))
        executions = asked.study.executions
        return float(executions(asked.case)) if executions else float("nan")

    track_executed_evaluations.unit = "evaluations"  # type: ignore[attr-defined]


def _benchmarks() -> dict[str, type]:
    found = {}
    try:
        registry.select(benchmarks.all_studies(), "all", PROFILE)
    except ValueError as error:
        sys.exit(str(error))
    for name, study in benchmarks.all_studies().items():
        cases = list(study.cases(PROFILE))
        witnesses = [case for case in cases if study.witnesses(case) and study.methods[case.method].schedule]
        title = "".join(part.capitalize() for part in name.split("_"))
        for base, chosen in ((_Study, cases), (_Executions, witnesses)):
            full = title + base.__name__.removeprefix("_Study").removeprefix("_")
            if chosen:
                about = {"study": name, "__doc__": study.question, "__module__": __name__}
                found[full] = type(full, (base,), {**about, **_parameters(chosen)})
    return found


def _parameters(cases: Sequence[vocabulary.Case]) -> dict[str, Any]:
    """Methods and sizes, and those pairs of them that are no case."""
    methods, sizes = (list(dict.fromkeys(words)) for words in zip(*((c.method, c.size) for c in cases), strict=True))
    asked = {(case.method, case.size) for case in cases}
    return {"params": [methods, sizes], "skip_params": [pair for pair in product(methods, sizes) if pair not in asked]}


globals().update(_benchmarks())
