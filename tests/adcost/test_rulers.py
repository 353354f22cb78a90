"""The process ruler and the clock, against truths that are known."""

import subprocess
import sys

import numpy as np
import pytest

from adcost.rulers import clock, process
from benchmarks import ROOT

TOUCH = """
import numpy as np
from adcost.rulers.process import resident_peaks
for mib in (64, 200):
    (value, low, high, _), _ = resident_peaks(lambda: np.ones(mib * 2**17), 3)
    print(mib, value / 2**20, low / 2**20, high / 2**20)
def twice():
    np.ones(100 * 2**17)  # freed before the next
    return np.ones(64 * 2**17)
(value, low, high, _), _ = resident_peaks(twice, 3)
print(100, value / 2**20, low / 2**20, high / 2**20)
freed = [bytearray(100_000) for _ in range(1000)]
above = freed.pop()  # what was freed below a block that lives stays in the heap, and resident
freed.clear()
(value, low, high, _), _ = resident_peaks(lambda: [np.ones(2**17) for _ in range(64)], 3)
print(64, value / 2**20, low / 2**20, high / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the process ruler reads Linux's /proc")
def test_the_process_ruler_sees_what_a_program_touches():
    import os

    environment = {**os.environ, **process.ALLOCATOR}
    out = subprocess.run(
        [sys.executable, "-c", TOUCH], capture_output=True, text=True, env=environment, cwd=ROOT, check=True
    )
    lines = out.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        truth, value, low, high = map(float, line.split())
        assert abs(value / truth - 1) < 0.02
        assert low <= value <= high


def test_every_program_runs_once_a_round_in_an_order_of_its_own():
    order = []
    programs = {name: lambda name=name: order.append(name) for name in "abcd"}
    assert len(list(clock.rounds(programs, count=6, seed=1))) == 6
    rounds = [tuple(order[i : i + 4]) for i in range(0, len(order), 4)]
    assert all(sorted(names) == list("abcd") for names in rounds)
    assert len(set(rounds)) > 3


@pytest.mark.parametrize(("budget", "once", "count"), [(1.0, 0.3, 3), (1.0, 2.0, 2), (1.0, 1e-6, 8)])
def test_the_number_of_rounds_is_known_before_the_first(budget, once, count):
    assert clock.rounds_within(budget, once, least=2, most=8) == count


def processes(rng, count, rounds, between, within, draw):
    """Log-ratios of a truth of 0: each process has its own distance from it, and each round noise of its own."""
    return [between * rng.standard_normal() + within * draw(rounds) for _ in range(count)]


@pytest.mark.parametrize("count", [5, 10])
@pytest.mark.parametrize("noise", ["normal", "heavy"])
def test_the_interval_over_processes_covers_the_truth_as_often_as_it_says(count, noise):
    rng = np.random.default_rng(count)
    draw = rng.standard_normal if noise == "normal" else lambda n: rng.standard_t(3, n)
    found = [clock.over_processes(processes(rng, count, 6, 0.03, 0.05, draw)).interval for _ in range(1000)]
    covered = sum(low <= 0 <= high for _, low, high in found)
    assert 0.93 <= covered / 1000 <= 0.97


def test_the_interval_of_one_process_does_not_know_the_others():
    """What the intervals of before 0.4 got wrong: noise between processes shows in none of them."""
    rng = np.random.default_rng(0)
    found = [clock.over_processes(processes(rng, 1, 20, 0.05, 0.02, rng.standard_normal)).interval for _ in range(400)]
    assert sum(low <= 0 <= high for _, low, high in found) / 400 < 0.5


def test_both_deviations_are_found():
    rng = np.random.default_rng(0)
    timed = clock.over_processes(processes(rng, 400, 50, 0.3, 0.1, rng.standard_normal))
    assert timed.within == pytest.approx(0.1, rel=0.05)
    assert timed.between == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("rounds", [6, 9, 15, 30])
def test_order_statistics_cover_a_median(rounds):
    rng = np.random.default_rng(rounds)
    found = [clock.ordered_interval(rng.standard_t(3, rounds)) for _ in range(1000)]
    assert sum(low <= 0 <= high for _, low, high in found) / 1000 >= 0.94


def test_six_rounds_are_bounded_by_the_smallest_and_the_largest():
    assert clock.ordered_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (3.5, 1.0, 6.0)
    assert clock.ordered_interval([1.0, 2.0, 3.0, 4.0, 5.0])[1:] == (-np.inf, np.inf)


def test_pairing_cancels_the_drift_of_the_machine():
    rng = np.random.default_rng(0)
    drift = np.exp(np.cumsum(rng.normal(0, 0.3, (4, 20)), axis=1))  # the machine, slower and faster
    logs = clock.log_ratios(1.5 * drift * np.exp(rng.normal(0, 0.003, (4, 20))), drift)
    ratio, low, high = clock.exponentiated(clock.over_processes(logs).interval)
    assert abs(ratio - 1.5) < 0.01
    assert high - low < 0.02


def test_a_process_in_which_one_of_two_was_not_timed_says_nothing_of_their_ratio():
    logs = clock.log_ratios([[2.0, 2.0], [], [2.0]], [[1.0, 1.0], [1.0], [1.0]])
    assert [len(found) for found in logs] == [2, 1]
