"""How often rules are wrong, where that is known beforehand; and a judge that ignores intervals is found out."""

import numpy as np
import pandas as pd
import pytest

from analysis import false_rates
from analysis.verdict import Claim, Test, around, at_most, verdicts, within
from analysis.view import Found, View

SHAPE = np.random.default_rng(0).standard_normal(4000)


def verdict(band, found, **more):
    test = Test(
        "m", "clock", more.pop("quantity", "time / x"), band, found, predicted=more.pop("predicted", 1.0), **more
    )
    (made,) = verdicts([Claim("c", "s", "", "", lambda _: (found for found in [test]))], [View(None, "s", "cpu")])
    return made


def simulated(made):
    return false_rates._simulated(made, pd.DataFrame(), SHAPE, np.random.default_rng(1))


@pytest.mark.parametrize("half", [0.01, 0.05, 0.09])
@pytest.mark.parametrize("band", [within(1.0, 0.1, ""), at_most(1.1, "")])
def test_a_ratio_is_rarely_called_what_it_is_not(band, half):
    refuted, *confirmed = simulated(verdict(band, Found(1.0, np.exp(-half), np.exp(half), 1, 5)))
    assert refuted <= 0.03
    assert max(confirmed) <= 0.05


def test_a_judge_that_ignores_the_interval_is_found_out(monkeypatch):
    """With the point alone every second truth just outside the band would be confirmed."""
    monkeypatch.setattr(
        false_rates, "judge", lambda low, high, value, *_: "confirmed" if low <= value <= high else "refuted"
    )
    _, outside, *_ = simulated(verdict(within(1.0, 0.1, ""), Found(1.0, 0.9, 1.1, 1, 5)))
    assert outside > 0.3


def test_truths_lie_outside_the_band():
    made = verdict(within(2.0, 0.1, ""), Found(2.0, 1.9, 2.1, 1, 5))
    truth, outside = false_rates._truths(made, linear=False)
    assert truth == pytest.approx(2.0)
    assert outside == pytest.approx([2.0 * 1.1**factor for factor in (1.02, 2, 5)])
    made = verdict(around(1.0, 0.1, ""), Found(1.0, 0.9, 1.1, 1, 5), quantity="exponent", linear=True)
    assert false_rates._truths(made, linear=True)[1] == pytest.approx([1.102, 1.2, 1.5])


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


def test_results_of_one_process_are_refused_in_a_line(capsys):
    assert false_rates.main(["results/reference/latest.json.xz"]) == 2
    assert "know one process alone" in capsys.readouterr().err
