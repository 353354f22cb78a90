"""The report's first screen: every claim on one line, and advice that comes from the numbers."""

import pandas as pd
import pytest

from adcost.targets import ANY
from analysis import overview
from analysis.advice import frontier, least
from analysis.verdict import Claim, Verdict
from analysis.view import View

CLAIMS = [Claim(name, "backprop", f"{name} is said", "1", lambda view: iter(())) for name in ("one", "two", "three")]
VIEW = View(None, "backprop", "cpu")


def verdict(claim, target, kind, measured=1.0, method="sqrt"):
    return Verdict(claim, "backprop", method, "clock", target, "time", 1.0, measured, measured, measured, kind, 1, "")


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


def test_methods_that_intervals_cannot_tell_apart_are_named_together():
    candidates = {"a": (1.0, 1.0, 1.0), "sqrt": (0.9, 0.8, 1.1), "c": (1.3, 1.2, 1.4), "d": None}
    (said,) = least(VIEW, "which?", candidates, "of a")
    assert said.use == "checkpoints every sqrt(n) layers (sqrt) or a"
    assert said.measured == "sqrt 0.90 [0.80, 1.10]; a 1.00; c 1.30 [1.20, 1.40] of a"
    assert list(least(VIEW, "which?", {"a": (1.0, 1.0, 1.0), "b": None}, "")) == [], "one alone is no choice"


@pytest.mark.parametrize(
    ("time", "use"),
    [
        ((1.5, 1.4, 1.6), "plain, half, tenth"),  # another is faster and takes less
        ((1.05, 1.02, 1.08), "plain, other, half, tenth"),
        ((1.1, 1.0, 2.0), "other, half, tenth"),  # not to be told from the fastest, and it takes less
    ],
)
def test_a_frontier_names_the_least_memory_at_each_speed_that_the_clock_can_tell(time, use):
    memory = pd.Series({"plain": 100.0, "half": 50.0, "tenth": 10.0, "other": 60.0})
    ratios = {"plain": (1.0, 1.0, 1.0), "half": (1.2, 1.1, 1.3), "tenth": (2.0, 1.8, 2.2)}
    ratios["other"] = time
    (said,) = frontier(VIEW, "how?", memory, ratios, "carries", "plain")
    assert said.use == use
    assert "half 50.0 carries, 1.20 [1.10, 1.30]" in said.measured
