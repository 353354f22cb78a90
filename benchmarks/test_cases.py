"""Front door 1, pytest-benchmark: every case is a test, its times those of the interleaved rounds.

``PROFILE``, ``STUDY`` and ``TARGETS`` in the environment choose what is measured, ``-k`` narrows it down. All rulers'
numbers are in ``extra_info``. pytest-benchmark's clock shows the seconds of the round that is replayed, because a
program timed alone, after the others instead of among them, would be measured with the machine's drift.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest

from benchmarks.cases import Case
from benchmarks.recorder import EXTRA, Record


class Replay:
    """A clock that moves on by one recorded sample each time it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def play(self, samples: Iterator[float]) -> None:
        self.now += next(samples, 0.0)


replay = Replay()


@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
@pytest.mark.benchmark(timer=replay, disable_gc=True)
def test_case(case: Case, recorded: Callable[[Case], Record], benchmark: Any) -> None:
    if benchmark.disabled:
        pytest.skip("--benchmark-disable leaves nothing to measure")
    record = recorded(case)
    wrong = [gap.reason for gap in record.missing if gap.ruler == "check"]
    if wrong:
        pytest.fail(f"{case.id}: {wrong[0]}", pytrace=False)
    if not record.samples:
        reasons = "; ".join(f"{gap.ruler}: {gap.reason}" for gap in record.missing)
        if not record.missing:
            pytest.skip("TARGETS names no attached device: programs are compiled, none is timed")
        extra = any(gap.ruler == EXTRA for gap in record.missing)
        (pytest.skip if extra else pytest.fail)(f"not measured: {reasons or 'it was left out of its group'}")
    benchmark.group = f"{case.study} {case.size}"
    benchmark.extra_info.update(asdict(record))
    replay.now = 0.0
    benchmark.pedantic(replay.play, args=(iter(record.samples),), rounds=len(record.samples))
