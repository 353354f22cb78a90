"""How often rules are wrong, where that is known beforehand; and a judge that ignores intervals is found out."""

import numpy as np
import pandas as pd
import pytest

from analysis import false_rates
from analysis.frame import Results
from analysis.rules import exponent, share
from analysis.verdict import Test, around, at_least, at_most, within
from analysis.view import Found

SHAPE = np.random.default_rng(0).standard_normal(4000)


def of(band, found, **more):
    return Test(
        "m", "clock", more.pop("quantity", "time / x"), band, found, predicted=more.pop("predicted", 1.0), **more
    )


def rates(test, rows=None):
    return false_rates.simulated(test, timed([], 0.0) if rows is None else rows, SHAPE, np.random.default_rng(1))


@pytest.mark.parametrize("half", [0.01, 0.05, 0.09])
@pytest.mark.parametrize("band", [within(1.0, 0.1, ""), at_most(1.1, "")])
def test_a_ratio_is_rarely_called_what_it_is_not(band, half):
    _, refuted, *confirmed = rates(of(band, Found(1.0, np.exp(-half), np.exp(half), 1, 5)))
    assert refuted <= 0.03
    assert max(confirmed) <= 0.05


def test_a_judge_that_ignores_the_interval_is_found_out(monkeypatch):
    """With the point alone every second truth just outside the band would be confirmed."""
    monkeypatch.setattr(
        false_rates, "judge", lambda low, high, value, *_: "confirmed" if low <= value <= high else "refuted"
    )
    _, _, outside, *_ = rates(of(within(1.0, 0.1, ""), Found(1.0, 0.9, 1.1, 1, 5)))
    assert outside > 0.3


def timed(sizes, deviation):
    """Rows of a quantity that was timed in five processes."""
    row = {
        "ruler": "clock",
        "method": "m",
        "quantity": "time",
        "between": deviation,
        "processes": 5,
        "low": 1,
        "high": 1,
    }
    return pd.DataFrame([row | {"n": n} for n in sizes], columns=[*row, "n"])


@pytest.mark.parametrize("deviation", [0.01, 0.1])
def test_an_exponent_is_rarely_called_what_it_is_not(deviation):
    sizes = [8, 16, 32, 64, 128, 256, 512, 1024]
    test = exponent(Test("m", "clock", "exponent", predicted=1.0), pd.Series(map(float, sizes), sizes), "s")
    _, refuted, *confirmed = rates(test, timed(sizes, deviation))
    assert refuted <= 0.05
    assert max(confirmed) <= 0.05


def test_a_share_is_drawn_as_what_it_is():
    """Of 84 rows all must be right: where 94.8% are, that happens in 0.948^84 of cases; of 5 nothing can be told."""
    band = at_least(0.95, "")
    _, refuted, *confirmed = rates(share(Test("m", "clock", "share", band, beside=1.0), 84, 84))
    assert refuted == 0
    assert max(confirmed) <= 0.05
    assert rates(share(Test("m", "clock", "share", band, beside=1.0), 5, 5))[1:] == (0, 0, 0, 0)


def test_an_estimate_has_the_noise_of_its_own_interval():
    band = within(1.0, 0.02, "")
    test = Test("m", "estimate", "mean / exact", band, Found(1.0, 0.99, 1.01), predicted=1.0)
    _, refuted, outside, *_ = rates(test)
    assert refuted <= 0.02
    assert 0.002 < outside <= 0.05


def test_a_number_made_of_several_has_the_noise_of_each():
    """What is off by ten times as much is found ten times as far from its truth."""
    seen = {}
    for deviation in (0.001, 0.01):
        drawn = seen[deviation] = []

        def again(truth, noise, drawn=drawn):
            drawn.append(np.log(noise.factors(8)))
            return Found(truth, truth, truth)

        rates(of(within(1.0, 0.1, ""), Found(1.0, 0.9, 1.1, 1, 5), again=again), timed(range(8), deviation))
    first, second = (np.std(seen[deviation]) for deviation in (0.001, 0.01))
    assert second / first == pytest.approx(10, rel=0.1)
    assert first == pytest.approx(0.001 / 5**0.5, rel=0.1)


def test_truths_lie_outside_the_band():
    made = of(within(2.0, 0.1, ""), Found(2.0, 1.9, 2.1, 1, 5))
    truth, outside = false_rates.truths(made)
    assert truth == pytest.approx(2.0)
    assert outside == pytest.approx([2.0 * 1.1**factor for factor in (1.02, 2, 5)])
    made = of(around(1.0, 0.1, ""), Found(1.0, 0.9, 1.1, 1, 5), quantity="exponent", linear=True)
    assert false_rates.truths(made)[1] == pytest.approx([1.102, 1.2, 1.5])


def test_the_noise_of_a_run_has_unit_deviation_whatever_its_size():
    rng = np.random.default_rng(0)
    rows = []
    for i, between in enumerate([0.001, 0.3] * 100):
        for size in (0.0, between):
            samples = tuple((float(t),) for t in np.exp(size * rng.standard_normal(5)))
            rows.append({"study": "s", "target": "cpu", "source": "f", "seeds": (i,), "samples": samples})
    shape = false_rates.shape_of_noise(pd.DataFrame(rows))
    assert len(shape) == 1000
    assert shape.std() == pytest.approx(1.0, rel=0.05)


def test_noise_belongs_to_its_own_size_however_rows_are_ordered():
    rows = timed([512, 8, 64], 0.0)
    rows.loc[rows["n"] == 64, "between"] = 1.0
    test = of(within(1.0, 0.1, ""), Found(1.0, 0.9, 1.1), again=lambda truth, noise: Found(truth, truth, truth))
    assert list(false_rates._deviations(test, rows) > 0) == [False, True, False]


def test_results_of_one_process_are_refused_in_a_line(capsys, monkeypatch):
    timings = pd.DataFrame([{"study": "s", "target": "cpu", "source": "f", "seeds": (), "samples": ((1.0, 2.0),)}])
    monkeypatch.setattr(false_rates.frame, "read", lambda paths: Results(pd.DataFrame(), pd.DataFrame(), timings, {}))
    assert false_rates.main(["one.json"]) == 2
    assert "needs times of three processes or more" in capsys.readouterr().err
