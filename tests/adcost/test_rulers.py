"""The process ruler and the clock, against truths that are known."""

import itertools
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
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the process ruler reads Linux's /proc")
def test_the_process_ruler_sees_what_a_program_touches():
    import os

    environment = {**os.environ, **process.ALLOCATOR}
    out = subprocess.run(
        [sys.executable, "-c", TOUCH], capture_output=True, text=True, env=environment, cwd=ROOT, check=True
    )
    lines = out.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        truth, value, low, high = map(float, line.split())
        assert abs(value / truth - 1) < 0.02
        assert low <= value <= high


def test_every_program_runs_once_a_round_and_each_order_is_followed_by_its_reverse():
    order = []
    programs = {name: lambda name=name: order.append(name) for name in "abcd"}
    done = list(clock.rounds(programs, budget=0, least=6, most=20, seed=1))
    assert len(done) == 6
    rounds = (
        list(itertools.batched(order, 4))
        if hasattr(itertools, "batched")
        else [tuple(order[i : i + 4]) for i in range(0, len(order), 4)]
    )
    assert all(sorted(names) == list("abcd") for names in rounds)
    assert rounds[1] == rounds[0][::-1]
    assert len(set(rounds[::2])) > 1


def test_rounds_end_at_their_number():
    assert len(list(clock.rounds({"a": lambda: None}, budget=1e9, least=6, most=9, seed=0))) == 9


@pytest.mark.parametrize("rounds", [6, 9, 15, 30])
@pytest.mark.parametrize("noise", ["normal", "heavy"])
def test_the_interval_covers_the_truth_at_least_as_often_as_it_says(rounds, noise):
    rng = np.random.default_rng(rounds)
    draw = rng.standard_normal if noise == "normal" else lambda n: rng.standard_t(3, n)
    trials = 150
    covered = 0
    for _ in range(trials):
        _, low, high = clock.median_interval(2.0 * np.exp(0.05 * draw(rounds)))
        covered += low <= 2.0 <= high
    assert covered / trials >= 0.92  # 0.95 less two standard errors of 150 trials


def test_pairing_cancels_the_drift_of_the_machine():
    rng = np.random.default_rng(0)
    drift = np.exp(np.cumsum(rng.normal(0, 0.3, 20)))  # the machine, slower and faster
    ratio, low, high = clock.paired_ratio(1.5 * drift * np.exp(rng.normal(0, 0.003, 20)), drift)
    assert abs(ratio - 1.5) < 0.01
    assert high - low < 0.02


def test_too_few_rounds_have_no_interval():
    assert clock.median_interval([1.0, 2.0, 3.0])[1:] == (0.0, float("inf"))


def test_equal_samples_have_an_interval_of_no_width():
    assert clock.median_interval([2.0] * 8) == pytest.approx((2.0, 2.0, 2.0))
