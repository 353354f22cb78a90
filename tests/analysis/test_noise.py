"""What the clock cannot tell: A/A across compilations and processes, where noise lies, coverage between runs."""

import numpy as np
import pandas as pd
import pytest

from analysis.coverage import coverage
from analysis.coverage import main as coverage_main
from analysis.noise import against_itself, spread

ORIGIN = {"study": "s", "target": "cpu", "source": "f"}


def times(rng, processes, rounds, between, within, truth=1.0):
    """Seconds by process and round: each process has its own distance from the truth."""
    own = between * rng.standard_normal((processes, 1))
    return tuple(map(tuple, truth * np.exp(own + within * rng.standard_normal((processes, rounds)))))


def twice(rng, sets, between, bias=0.0, processes=5):
    """Programs that were compiled twice; each compilation has its own draw in each process, and the second a bias."""
    return pd.DataFrame(
        {
            **ORIGIN,
            "method": f"m{i}",
            "samples": times(rng, processes, 6, between, 0.01),
            "again": times(rng, processes, 6, between, 0.01, np.exp(bias)),
            "seeds": (i,),
        }
        for i in range(sets)
    )


def test_the_same_program_differs_from_itself_as_often_as_chance_has_it():
    found = against_itself(twice(np.random.default_rng(0), 200, 0.02))
    assert (found.sets, found.by_chance) == (200, pytest.approx(10))
    assert 3 <= found.excluding <= 18
    assert found.p > 0.05


def test_a_bias_of_the_second_compilation_is_seen():
    found = against_itself(twice(np.random.default_rng(1), 100, 0.02, bias=0.03))
    assert found.excluding > 30
    assert found.p < 0.01


def test_results_of_one_process_have_no_such_line():
    assert against_itself(twice(np.random.default_rng(0), 5, 0.02, processes=1)) is None
    assert against_itself(pd.DataFrame()) is None


def test_both_deviations_and_the_outliers_are_told():
    rng = np.random.default_rng(0)
    rows = {"ruler": "clock", "quantity": "time / x", "processes": 5, "between": [0.02, 0.04, 0.03], "within": 0.01}
    timings = pd.DataFrame([{"samples": ((*rng.normal(1, 0.01, 40), 9.0),)}])
    found = spread(pd.DataFrame(rows), timings)
    assert (found.ratios, found.rounds) == (3, 41)
    assert found.between == pytest.approx(np.exp(0.03) - 1)
    assert 1 <= found.outliers <= 4


def runs(rng, between, sets=60):
    """Two programs a set, timed in the rounds of ten processes; their ratio is 1.2 on the whole."""
    rows = []
    for i in range(sets):
        base = times(rng, 10, 6, 0.0, 0.01)
        other = times(rng, 10, 6, between, 0.01, 1.2)
        rows += [{**ORIGIN, "samples": samples, "again": (), "seeds": (i,)} for samples in (base, other)]
    return pd.DataFrame(rows)


def test_intervals_over_processes_cover_between_runs_and_those_of_one_process_do_not():
    (found, everything) = coverage(runs(np.random.default_rng(0), 0.05))
    assert (found.study, everything.study, found.intervals) == ("s", "all", 120)
    assert 0.93 <= found.share <= 1.0
    assert found.once / found.intervals < 0.5


def test_too_few_processes_tell_nothing_of_coverage(tmp_path, capsys):
    assert (
        coverage(runs(np.random.default_rng(0), 0.05).assign(samples=lambda t: t["samples"].map(lambda s: s[:9]))) == []
    )
    assert coverage_main([str(tmp_path / "nothing.json")]) == 2
    assert "does not exist" in capsys.readouterr().err
