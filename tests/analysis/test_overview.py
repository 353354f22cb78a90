"""The report's first screen: every claim on one line, and advice that comes from the numbers."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from adcost.suite.vocabulary import described
from adcost.targets import ANY
from analysis import frame, overview, studies
from analysis.advice import frontier, least
from analysis.frame import Results
from analysis.verdict import Claim, Verdict
from analysis.view import View
from benchmarks import ROOT, all_studies

CLAIMS = [Claim(name, "backprop", f"{name} is said", "1", lambda view: iter(())) for name in ("one", "two", "three")]

TOLD = described(all_studies().values())


def verdict(claim, target, kind, measured=1.0, adjusted=0.001):
    return Verdict(
        claim=claim, study="backprop", method="sqrt", ruler="clock", target=target, dtype="float32", workload="",
        quantity="time", at="", predicted=1.0, beside=None, band_low=0.9, band_high=1.1, band_why="why",
        measured=measured, low=measured, high=measured, verdict=kind, points=1, processes=5, p=adjusted,
        adjusted=adjusted, power=None, cause=None, why="", rule="", rows=(),
    )  # fmt: skip


def test_a_line_holds_the_verdicts_of_its_claim_by_target():
    verdicts = [
        verdict("two", "cpu", "not measured", None),
        verdict("two", "cpu", "confirmed", 2.0),
        verdict("two", "cpu", "refuted", 3.0),
        verdict("one", ANY, "confirmed"),
        verdict("two", "nvidia-h100", "not measured", None),
    ]
    assert overview.targets(verdicts) == [ANY, "cpu", "nvidia-h100"]
    one, two = overview.lines(verdicts, CLAIMS)  # of the third nothing is said
    assert [cell and dict(cell.counts) for cell in one.cells] == [{"confirmed": 1}, None, None]
    assert dict(two.cells[1].counts) == {"not measured": 1, "confirmed": 1, "refuted": 1}
    assert two.cells[1].shown.measured == 2.0, "the first that was measured"
    assert two.cells[2].shown.measured is None


def test_the_first_screen_calls_refuted_what_chance_does_not_explain():
    found = [verdict("one", "cpu", "refuted"), verdict("one", "cpu", "refuted", adjusted=0.2)]
    assert overview.counted(found) == {"refuted": 1, overview.BY_CHANCE: 1}
    ((line,),) = ([cell.counts for cell in line.cells] for line in overview.lines(found, CLAIMS))
    assert line == {"refuted": 1, overview.BY_CHANCE: 1}


def timed(times, noise=0.01, processes=5, rounds=4):
    """A view in which methods were timed in the same rounds: times by method, over those of the first."""
    rng = np.random.default_rng(0)
    columns = {"study": "backprop", "target": "cpu", "depth": 8}
    seeds = tuple(range(processes))
    rows = []
    for method, time in times.items():
        samples = tuple(map(tuple, time * np.exp(noise * rng.standard_normal((processes, rounds)))))
        rows.append({**columns, "method": method, "samples": samples, "again": (), "seeds": seeds})
    return View(Results(pd.DataFrame({"study": []}), pd.DataFrame(), pd.DataFrame(rows), {}, TOLD), "backprop", "cpu")


def of_times(view):
    return lambda name, other: view.compared(name, other, 8)


def test_the_least_is_named_alone_where_the_clock_can_tell():
    view = timed({"a": 1.0, "sqrt": 0.8, "c": 1.3})
    (said,) = least(view, "which?", ["a", "sqrt", "c"], of_times(view), "of a")
    assert said.use == "checkpoints every sqrt(n) layers (sqrt)"
    assert said.measured.startswith("sqrt 0.80 [")


def test_methods_that_are_as_fast_as_each_other_are_said_to_be():
    view = timed({"a": 1.0, "b": 1.005})
    (said,) = least(view, "which?", ["a", "b"], of_times(view), "of a")
    assert said.use.endswith("within 10% of it")


def test_where_the_clock_cannot_tell_that_is_the_answer():
    view = timed({"a": 1.0, "b": 1.1}, noise=0.8)
    (said,) = least(view, "which?", ["a", "b"], of_times(view), "of a")
    assert said.use.startswith("cannot tell: ")
    assert list(least(view, "which?", ["a", "absent"], of_times(view), "")) == [], "one alone is no choice"


def test_candidates_are_compared_directly_and_not_through_a_third():
    """The third drifts: each ratio to it is noisy, and their own is not."""
    rng = np.random.default_rng(0)
    drift = np.exp(rng.normal(0, 1, (5, 4)))
    columns = {"study": "backprop", "target": "cpu", "depth": 8, "again": (), "seeds": (1, 2, 3, 4, 5)}
    rows = [
        {**columns, "method": name, "samples": tuple(map(tuple, samples))}
        for name, samples in {"third": np.ones((5, 4)), "a": drift, "b": 1.2 * drift}.items()
    ]
    view = View(Results(pd.DataFrame({"study": []}), pd.DataFrame(), pd.DataFrame(rows), {}, TOLD), "backprop", "cpu")
    assert view.compared("a", "third", 8).low < 0.7
    assert view.compared("b", "a", 8)[:3] == pytest.approx((1.2, 1.2, 1.2))


def test_rounds_of_other_processes_are_no_pairs():
    view = timed({"a": 1.0, "b": 1.1})
    view.results.timings.at[1, "seeds"] = (9, 9, 9, 9, 9)
    assert View(view.results, "backprop", "cpu").compared("a", "b", 8) is None


MEMORY = pd.Series({"plain": 100.0, "other": 60.0, "half": 50.0, "tenth": 10.0})


@pytest.mark.parametrize(
    ("other", "noise", "use"),
    [
        (1.5, 0.01, "plain, half, tenth"),  # another is faster and takes less
        (1.02, 0.005, "other, half, tenth"),  # as fast as the fastest, and it takes less
        (1.3, 0.01, "plain, half, tenth"),  # slower in every round than one that takes less
    ],
)
def test_a_frontier_names_the_least_memory_at_each_speed(other, noise, use):
    view = timed({"plain": 1.0, "half": 1.2, "tenth": 2.0, "other": other}, noise)
    (said,) = frontier(view, "how?", MEMORY, 8, "plain", "carries", "plain")
    assert said.use == use
    assert "half 50.0 carries, 1.2" in said.measured


def test_a_method_whose_time_is_not_known_is_advised_for_nothing():
    view = timed({"plain": 1.0, "half": 0.5})
    (said,) = frontier(view, "how?", MEMORY, 8, "plain", "carries", "plain")
    assert said.use == "half"


@pytest.fixture(scope="module")
def advised():
    """Each advice of the committed run on a trade of memory for time, with the samples that it rests on."""
    return frame.read([ROOT / "results" / "reference" / "latest.json.xz"])


def test_no_advised_method_was_slower_in_every_round_than_one_that_takes_no_more_memory(advised, monkeypatch):
    asked = []

    def noted(view, question, memory, at, base, unit, over):
        found = list(frontier(view, question, memory, at, base, unit, over))
        asked.append((view, memory, at, found))
        return found

    for room in studies.ROOMS.values():
        if hasattr(room, "frontier"):
            monkeypatch.setattr(room, "frontier", noted)
    studies.advice(advised)
    assert len(asked) >= 3
    for view, memory, at, (said,) in asked:
        used = [name for name in memory.index if f"{name} {memory[name]:.1f}" in said.measured]
        assert used
        for name, other in permutations(memory.index, 2):
            if name in used and memory[other] <= memory[name]:
                assert not view.slower(name, other, at), (said.question, name, other)
