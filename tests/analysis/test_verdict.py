"""The judge: bands and intervals of all kinds, chance, power; and every committed verdict made again from its row."""

import json
import re
from dataclasses import replace
from functools import cache
from math import inf, isnan, log, nan

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import fit, frame, studies
from analysis.rules import exact, exponent
from analysis.verdict import (
    Claim,
    Test,
    at_least,
    at_most,
    by_chance,
    exactly,
    judge,
    verdicts,
    within,
)
from analysis.view import Found, View, views, widened
from benchmarks import ROOT

REFERENCE = ROOT / "results" / "reference"
VIEW = View(None, "backprop", "cpu", (("width", 32),))


def put(*tests):
    """The verdicts of a claim whose rule yields these tests."""

    def rule(_):
        yield from tests

    return verdicts([Claim("claim", "backprop", "says", "1", rule)], [VIEW])


def timed(found, band, predicted=None, **more):
    return Test("method", "clock", "time / other", band, found, predicted=predicted, **{"gap": "no number", **more})


def measured(value, share, processes=5):
    """A ratio with an interval of so much to either side."""
    return Found(value, value / (1 + share), value * (1 + share), 1, processes)


@pytest.mark.parametrize(
    ("band", "found", "kind"),
    [
        (at_most(10.0, ""), exact(9.99), "confirmed"),
        (at_most(10.0, ""), exact(10.01), "refuted"),
        (at_least(2.0, ""), exact(1e9), "confirmed"),
        (at_least(2.0, ""), exact(1.99), "refuted"),
        (at_least(2.0, ""), exact(inf), "confirmed"),
        (at_most(2.0, ""), Found(1.0, -inf, inf), "inconclusive"),
        (exactly(7.0), exact(7.0), "confirmed"),
        (exactly(7.0), exact(8.0), "refuted"),
        (at_most(10.0, ""), exact(nan), "refuted"),
        (within(1.0, 0.1, ""), None, "not measured"),
        (None, exact(1.0), "not measured"),
    ],
)
def test_bands_of_one_side_and_of_two(band, found, kind):
    (verdict,) = put(timed(found, band))
    assert verdict.verdict == kind


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (timed(exact(3.0), at_most(10.0, ""), beside=0.5), "at most 10 (flops: 0.5)"),
        (timed(exact(3.0), at_least(2.0, "")), "at least 2"),
        (timed(exact(3.0), within(1.5, 0.1, ""), 1.5), "1.5"),
        (timed(exact(3.0), within(1.0, 1.0, "")), "0.5 to 2"),
        (timed(None, None), ""),
    ],
)
def test_what_is_said_is_written_as_it_is_meant(test, said):
    (verdict,) = put(test)
    assert verdict.said == said


def test_a_verdict_is_stamped_with_what_was_measured_and_where_the_rule_stands():
    (verdict,) = put(timed(exact(1.0), within(1.0, 0.1, "a reason"), 1.0, at="n=4"))
    assert (verdict.claim, verdict.study, verdict.target, verdict.dtype) == ("claim", "backprop", "cpu", "float32")
    assert (verdict.workload, verdict.named) == ("width 32", "time / other at n=4")
    assert verdict.band_why.endswith("a reason")
    line = (ROOT / verdict.rule.split(":")[0]).read_text().splitlines()[int(verdict.rule.split(":")[1]) - 1]
    assert "yield from tests" in line


def test_a_refutation_without_a_cause_says_that_it_is_unknown():
    found = put(timed(exact(2.0), within(1.0, 0.1, "")), timed(exact(1.0), within(1.0, 0.1, ""), at="n=4"))
    assert [verdict.cause for verdict in found] == ["unknown", None]


def test_the_chance_of_an_interval_that_touches_its_band_is_five_in_a_hundred():
    touching = 1.1 * 1.05
    (verdict,) = put(timed(Found(touching, 1.1, touching * 1.05, 1, 5), within(1.0, 0.1, "")))
    assert verdict.p == pytest.approx(0.05)
    (inside,) = put(timed(measured(1.0, 0.05), within(1.0, 0.1, "")))
    assert inside.p == 1.0


def test_few_processes_make_the_same_distance_less_certain():
    five, many = (put(timed(measured(1.5, 0.1, processes), within(1.0, 0.1, "")))[0].p for processes in (5, 50))
    assert many < five < 0.05


def test_holm_corrects_the_noisy_and_leaves_the_exact_alone():
    band = within(1.0, 0.1, "")
    noisy = [timed(measured(1.0, 0.01), band, at=f"n={i}") for i in range(60)]
    weak = timed(Found(1.2, 1.11, 1.3, 1, 5), band, at="weak")
    strong = timed(measured(3.0, 0.001), band, at="strong")
    counted = Test("method", "count", "flops", exactly(1.0), exact(2.0), predicted=1.0, why="counted")
    found = {verdict.at: verdict for verdict in put(*noisy, weak, strong, counted)}
    assert (found["weak"].verdict, found["weak"].holds) == ("refuted", False)
    assert (found["strong"].verdict, found["strong"].holds) == ("refuted", True)
    assert (found[""].p, found[""].holds) == (None, True)
    chance = by_chance(found.values())
    assert (chance.decided, chance.refuted, chance.holding) == (62, 2, 1)
    assert chance.false == pytest.approx(0.05 * 62)


def test_holm_is_holms():
    values = np.array([0.001, 0.011, 0.02, 0.04])
    factor = np.exp(stats.t.isf(values / 2, 4) / stats.t.ppf(0.975, 4) * log(1.05))
    found = put(
        *(timed(Found(1.1 * f, 1.1 * f / 1.05, 1.1 * f * 1.05, 1, 5), within(1.0, 0.1, ""), at=f"{f}") for f in factor)
    )
    assert [verdict.p for verdict in found] == pytest.approx(list(values), rel=1e-6)
    assert [verdict.adjusted for verdict in found] == pytest.approx([0.004, 0.033, 0.04, 0.04], rel=1e-6)


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0.01, 0.99, 1.0), (0.06, 0.8, 0.99), (0.09, 0.1, 0.5), (0.2, 0.0, 0.0)]
)
def test_power_falls_with_noise(share, least, most):
    (verdict,) = put(timed(measured(1.0, share), within(1.0, 0.1, ""), 1.0))
    assert least <= verdict.power <= most


def test_power_is_the_share_of_runs_that_confirm():
    rng, deviation, processes = np.random.default_rng(0), 0.035, 10
    quantile = stats.t.ppf(0.975, processes - 1)
    half = quantile * deviation / processes**0.5
    (verdict,) = put(timed(Found(1.0, np.exp(-half), np.exp(half), 1, processes), within(1.0, 0.1, ""), 1.0))
    means = deviation / processes**0.5 * rng.standard_normal(4000)
    confirmed = np.mean([judge(1 / 1.1, 1.1, 1.0, np.exp(m - half), np.exp(m + half)) == "confirmed" for m in means])
    assert verdict.power == pytest.approx(confirmed, abs=0.02)


def test_what_cannot_decide_says_so():
    (verdict,) = put(timed(measured(1.0, 0.3), within(1.0, 0.1, ""), 1.0))
    assert verdict.verdict == "inconclusive"
    assert "Cannot decide here: with this noise a quantity as predicted is confirmed in 0% of runs." in verdict.why


def test_the_laws_own_error_widens_the_measurement_and_not_the_band():
    found = widened(measured(1.0, 0.04), 0.9, 1.2)
    assert found.low == pytest.approx(np.exp(-np.hypot(log(1.04), log(1.2))))
    assert found.high == pytest.approx(np.exp(np.hypot(log(1.04), log(0.9))))


N = np.array([4, 8, 16, 32, 64, 128, 256, 512])


@pytest.mark.parametrize(
    ("power", "verdict"), [(0.0, "confirmed"), (-0.5, "refuted"), (0.5, "refuted"), (-1.0, "refuted")]
)
def test_a_rule_of_exponent_0_sees_a_fall_as_it_sees_growth(power, verdict):
    values = pd.Series(100 * N.astype(float) ** power, index=N)
    (found,) = put(exponent(Test("m", "compiler", "exponent", predicted=0.0), values, "bytes", resolution=0.01))
    assert (found.verdict, found.measured) == (verdict, pytest.approx(power, abs=1e-3))


@pytest.mark.parametrize(("power", "verdict"), [(-1.0, "confirmed"), (-0.6, "refuted"), (-1.4, "refuted")])
def test_a_falling_exponent(power, verdict):
    values = pd.Series(3 * N.astype(float) ** power, index=N)
    (found,) = put(exponent(Test("m", "clock", "exponent", predicted=-1.0), values, "x"))
    assert (found.verdict, found.measured) == (verdict, pytest.approx(power, abs=1e-3))


def test_values_below_the_rulers_resolution_are_censored_and_that_is_said():
    values = pd.Series(np.where(N < 9, 7.0, N.astype(float)), index=N)  # the first two are noise
    test = Test("m", "process", "exponent", predicted=1.0)
    (few,) = put(exponent(test, values, "MiB", censored=8.0))
    assert (few.verdict, few.why) == (
        "not measured",
        "an exponent needs 8 sizes, there are 6. Left out, below the ruler's resolution: 2.",
    )
    more = pd.concat([values, pd.Series([1024.0, 2048.0], index=[1024, 2048])])
    (found,) = put(exponent(test, more, "MiB", censored=8.0))
    assert (found.verdict, found.measured) == ("confirmed", pytest.approx(1.0, abs=1e-3))
    assert found.why.endswith("Left out, below the ruler's resolution: 2.")


def test_an_end_of_the_search_grid_bounds_nothing():
    found = fit.exponent(N, np.exp(N / 40.0))
    assert (found.value, found.high) == (fit.LARGEST_EXPONENT, inf)


# The committed run.


@cache
def committed():
    return json.loads((REFERENCE / "verdicts.json").read_text())


def number(value):
    return None if value is None else float(value)


@pytest.mark.parametrize(
    "row", committed(), ids=lambda row: f"{row['claim']}-{row['method']}-{row['quantity']}-{row['at']}"
)
def test_every_verdict_can_be_made_again_from_its_own_row(row):
    ends = (row[name] for name in ("band_low", "band_high", "measured", "low", "high"))
    assert judge(*map(number, ends)) == row["verdict"]
    assert row["band_why"] or row["verdict"] == "not measured"
    assert (row["cause"] is not None) == (row["verdict"] == "refuted")
    path, _ = re.fullmatch(r"(analysis/\S+\.py):(\d+)", row["rule"]).groups()
    assert (ROOT / path).exists()
    assert row["rows"] or row["verdict"] == "not measured" or row["claim"] in ("worked-example", "schedule-animation")
    assert row["p"] is None or row["adjusted"] >= row["p"]


@pytest.fixture(scope="module")
def run():
    return frame.read(sorted(REFERENCE.glob("*.json.xz")))


def chosen():
    """The first verdict with a number of each claim, ruler and target."""
    first = {}
    for row in committed():
        if row["measured"] is not None and row["rows"]:
            first.setdefault((row["claim"], row["ruler"], row["target"]), row)
    return list(first.values())


@pytest.mark.parametrize("row", chosen(), ids=lambda row: f"{row['claim']}-{row['ruler']}-{row['target']}")
def test_the_rows_that_a_verdict_names_are_all_that_it_needs(run, row):
    """All other rows spoiled, the rule gives the same number."""
    (claim,) = (claim for claim in studies.CLAIMS if claim.id == row["claim"])
    others = run.frame.copy()
    spoiled = ~others["id"].isin(row["rows"]) & ~others["quantity"].isin(["advised", "possible modes"])
    for column in ("value", "low", "high"):
        others.loc[spoiled, column] *= 1.7
    found = verdicts([claim], [view for view in views(replace(run, frame=others)) if view.study == row["study"]])
    same = ("method", "ruler", "target", "dtype", "workload", "quantity", "at")
    (again,) = (v for v in found if all(getattr(v, name) == row[name] for name in same))
    expected = number(row["measured"])
    assert again.measured == pytest.approx(expected, rel=1e-6, nan_ok=isnan(expected))  # fits end elsewhere by a CPU


def test_other_rows_do_matter_to_other_verdicts(run):
    """What the test above spoils would be seen."""
    (claim,) = (claim for claim in studies.CLAIMS if claim.id == "sqrt-memory")
    others = run.frame.copy()
    others["value"] *= 1.0 + others["depth"].fillna(0.0)
    before, after = (
        [v.measured for v in verdicts([claim], views(replace(run, frame=table)))] for table in (run.frame, others)
    )
    assert before != after
