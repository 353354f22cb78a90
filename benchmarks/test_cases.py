"""Door 1, pytest-benchmark: every case is a test, its times those of the interleaved rounds.

``PROFILE``, ``STUDY`` and ``TARGETS`` in the environment choose what is measured, ``-k`` narrows it down. All rulers'
numbers are in ``extra_info``. pytest-benchmark is given the seconds of rounds that were run before: a program timed
alone, after the others instead of among them, would be measured with the machine's drift.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest

from adcost.suite.campaign import Ended
from adcost.suite.record import Record
from adcost.suite.vocabulary import Case
from benchmarks.conftest import NOT_SAVED

_clock = 0.0


def interleaved_rounds() -> float:
    """The clock: it stands still while a program runs and moves on by the seconds of its next recorded round."""
    return _clock


def _play(samples: Iterator[float]) -> None:
    global _clock
    _clock += next(samples, 0.0)


@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
@pytest.mark.benchmark(timer=interleaved_rounds, disable_gc=True)
def test_case(case: Case, recorded: Callable[[Case], Record], benchmark: Any) -> None:
    if benchmark.disabled:
        pytest.skip("--benchmark-disable leaves nothing to measure")
    try:
        record = recorded(case)
    except Ended as error:
        if error.at_once:  # it would be said of every case
            pytest.exit(str(error), returncode=NOT_SAVED)
        pytest.fail(f"{case.id}: {error}", pytrace=False)
    wrong = [gap.reason for gap in record.missing if gap.ruler == "check" or gap.fault]
    if wrong:
        pytest.fail(f"{case.id}: {wrong[0]}", pytrace=False)
    if not record.samples:
        reasons = "; ".join(f"{gap.ruler}: {gap.reason}" for gap in record.missing)
        if not record.missing:
            pytest.skip("no time was asked for: its study has none, or TARGETS names no attached device")
        (pytest.skip if record.unavailable else pytest.fail)(
            f"not measured: {reasons or 'it was left out of its group'}"
        )
    global _clock
    _clock = 0.0  # small numbers keep their digits
    benchmark.group = f"{case.study} {case.size}"
    benchmark.params = {"study": case.study, "method": case.method, **dict(case.params), "dtype": case.dtype}
    benchmark.extra_info.update(asdict(record))
    seconds = [one for rounds in record.samples for one in rounds]
    benchmark.pedantic(_play, args=(iter(seconds),), rounds=len(seconds))
