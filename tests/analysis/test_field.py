"""The claim ``mode-field``: advice that the clock bears out, advice that it refutes, and cells that cannot tell."""

import json
from dataclasses import asdict, replace

import pytest

from adcost.suite.record import Record
from adcost.suite.vocabulary import Case, Number
from analysis import frame, studies
from analysis.view import views

(CLAIM,) = (known for known in studies.CLAIMS if known.id == "mode-field")


def verdicts(tmp_path, advised, ratio, spread=0.02, modes=("jacfwd", "jacrev"), processes=5, possible=2):
    """Of one program, whose jacfwd takes so many times as long as its jacrev."""
    params = (("family", "field"), ("program", "gather"), ("inputs", 4096), ("outputs", 64))
    records = []
    for mode in modes:
        numbers = [Number("count", "any", "flops", "flop", 1.0), Number("compiler", "cpu", "temp", "B", 1.0)]
        if mode == "jacrev":
            numbers.append(Number("count", "any", "advised", "", advised))
            numbers.append(Number("count", "any", "possible modes", "modes", possible))
        else:
            low, high = ratio * (1 - spread), ratio * (1 + spread)
            numbers.append(Number("clock", "cpu", "time / jacrev", "1", ratio, low, high, 50, processes=processes))
        records.append(asdict(Record(Case("modes", mode, params), "cpu", tuple(numbers), ())))
    path = tmp_path / "field.json"
    path.write_text(json.dumps({"environment": {"machine": "m", "commit": "c"}, "records": records}))
    return studies.verdicts(frame.read([path]), [CLAIM])


@pytest.mark.parametrize(
    ("advised", "ratio", "verdict"),
    [
        (-1.0, 5.0, "confirmed"),  # reverse was said, and forward takes five times as long
        (-1.0, 0.2, "refuted"),
        (1.0, 0.2, "confirmed"),
        (1.0, 5.0, "refuted"),
        (1.0, 0.99, "inconclusive"),
        (0.0, 1.5, "confirmed"),
        (0.0, 0.5, "confirmed"),
        (0.0, 4.0, "refuted"),
    ],
)
def test_advice_is_held_against_the_clock(tmp_path, advised, ratio, verdict):
    (found,) = verdicts(tmp_path, advised, ratio)
    assert found.verdict == verdict, found
    assert found.low < found.measured < found.high


def test_where_one_mode_is_possible_it_must_be_the_one_advised(tmp_path):
    (right,) = verdicts(tmp_path, -1.0, 1.0, modes=("jacrev",), possible=1)
    (wrong,) = verdicts(tmp_path, 1.0, 1.0, modes=("jacrev",), possible=1)
    assert (right.verdict, wrong.verdict) == ("confirmed", "refuted")
    assert right.target == "any"


def test_a_mode_that_was_not_timed_is_not_one_that_is_refused(tmp_path):
    (found,) = verdicts(tmp_path, -1.0, 1.0, modes=("jacrev",))
    assert found.verdict == "not measured"


def test_one_process_alone_cannot_tell(tmp_path):
    (found,) = verdicts(tmp_path, -1.0, 5.0, processes=1)
    assert found.verdict == "inconclusive"


def test_a_count_that_is_a_bound_is_no_number(tmp_path):
    """A verdict about flops must not rest on "at least"."""
    case = Case("modes", "vjp", (("family", "dense"), ("inputs", 4), ("outputs", 1), ("depth", 8)))
    exact = Number("count", "any", "flops", "flop", 10.0)
    bound = replace(exact, flags=("at least: the cost of igamma is not known",))
    for number, known in ((exact, True), (bound, False)):
        path = tmp_path / f"{known}.json"
        records = [asdict(Record(case, "cpu", (number, Number("compiler", "cpu", "temp", "B", 1.0))))]
        path.write_text(json.dumps({"environment": {}, "records": records}))
        (view,) = views(frame.read([path]))
        found = view.along("inputs", family="dense", depth=8, outputs=1).series("vjp", "count", "flops")
        assert (len(found) == 1) == known
    assert "its count is a bound (at least: the cost of igamma is not known)" in view.reasons("count", "vjp")
