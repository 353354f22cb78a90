"""The claims of the study ``loops``: what confirms them, and that each can fail."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from adcost.suite.record import Record
from adcost.suite.vocabulary import Case, Number, described
from analysis import frame, studies
from benchmarks import all_studies

CARRY, STEPS, PROCESSES = 2**18, 256, 5
BUDGETS = range(1, 17)


def size(family="solver", rows=1024, width=64, steps=STEPS, budget=0):
    return {"family": family, "rows": rows, "width": width, "steps": steps, "budget": budget}


def record(method, params, planned, time=None, **counts):
    """A case that plans so many carries and takes so many seconds, twenty rounds in each of five processes."""
    numbers = [
        Number("count", "any", "activation", "B", CARRY),
        Number("compiler", "cpu", "temp", "B", planned * CARRY),
        *(Number("count", "any", name.replace("_", " "), "", float(value)) for name, value in counts.items()),
    ]
    samples = ()
    if time is not None:
        numbers.append(Number("clock", "cpu", "time", "s", time, time * 0.99, time * 1.01, 100, processes=PROCESSES))
        rng = np.random.default_rng(len(method))
        samples = tuple(map(tuple, time * np.exp(0.01 * rng.standard_normal((PROCESSES, 20)))))
    if method == "tenth":
        ratio = time / PLAIN
        numbers.append(
            Number("clock", "cpu", "time / plain", "1", ratio, ratio * 0.99, ratio * 1.01, 100, processes=PROCESSES)
        )
    case = Case("loops", method, tuple(params.items()))
    return asdict(Record(case, "cpu", tuple(numbers), (), samples, (), tuple(range(PROCESSES)), PROCESSES))


PLAIN = 0.1


def verdicts(tmp_path, claim, *records):
    environment = {"machine": "m", "commit": "c"}
    path = tmp_path / "loops.json"
    told = described(all_studies().values())
    path.write_text(json.dumps({"environment": environment, "studies": told, "records": records}))
    (tested,) = (known for known in studies.CLAIMS if known.id == claim)
    return {(v.method, v.quantity): v for v in studies.verdicts(frame.read([path]), [tested])}


@pytest.mark.parametrize(
    ("planned", "time", "by_memory", "by_time"),
    [
        (259, 0.05, "confirmed", "confirmed"),
        (261, 0.2, "refuted", "refuted"),
        (260, 0.1, "confirmed", "inconclusive"),
    ],
)
def test_a_method_is_held_against_its_peer(tmp_path, planned, time, by_memory, by_time):
    peer, mine = record("remat", size(), 260, 0.1), record("like_remat", size(), planned, time)
    found = verdicts(tmp_path, "loop-peers", peer, mine)
    assert found["like_remat / remat", "most temp over the peer's"].verdict == by_memory
    timed = found["like_remat / remat", "time over the peer's"]
    assert timed.verdict == by_time
    assert timed.at == "solver, width 64"
    assert f"With {planned / 260:.2f}" in timed.why


def test_the_worst_of_all_loops_is_shown(tmp_path):
    narrow, wide = size(), size(rows=64, width=1024)
    records = [record("remat", narrow, 260), record("like_remat", narrow, 200)]
    records += [record("remat", wide, 100), record("like_remat", wide, 120)]
    row = verdicts(tmp_path, "loop-peers", *records)["like_remat / remat", "most temp over the peer's"]
    assert (row.verdict, row.at, row.measured, row.cause) == ("refuted", "solver, width 1024", 1.2, "likely")


@pytest.mark.parametrize(
    ("planned", "executed", "by_memory", "by_count"),
    [(80, 503, "confirmed", "confirmed"), (80.5, 503, "refuted", "confirmed"), (70, 504, "confirmed", "refuted")],
)
def test_a_schedule_takes_what_it_says(tmp_path, planned, executed, by_memory, by_count):
    counts = {"scheduled_evaluations": 503, "evaluations": 503, "executed_evaluations": executed}
    mine = record("two_passes", size(), planned, predicted_memory=75, **counts)
    found = verdicts(tmp_path, "loop-schedules", mine)
    words = "loops that evaluate more or fewer steps than the schedule says"
    assert found["two_passes", words].verdict == by_count
    words = "most temp beyond slots and residuals of a loop, in carries"
    assert found["two_passes", words].verdict == by_memory


@pytest.mark.parametrize(("planned", "time", "kinds"), [(99, 0.09, "confirmed"), (101, 0.12, "refuted")])
def test_small_carries_are_held_against_plain_backprop(tmp_path, planned, time, kinds):
    small = size(rows=1, width=256, steps=1000)
    plain = record("plain", small, 1000, PLAIN)
    forward, mine = record("forward", small, 4, 0.03), record("tenth", small, planned, time, evaluations=1900)
    found = verdicts(tmp_path, "small-carries", plain, forward, mine)
    assert {v.verdict for v in found.values()} == {kinds}
    assert "By its evaluations alone 1.27: 0.90 forward passes more." in found["tenth", "time / plain"].why


@pytest.mark.parametrize(
    ("spoiled", "refuted"),
    [
        ({}, set()),
        ({4: {"evaluations": 900}}, {"budgets that cost more evaluations than the next smaller"}),
        ({5: {"planned": 66}}, {"most temp beyond the budget, in carries"}),
        ({5: {"planned": 30}}, {"least share of a budget in the temp"}),
        ({16: {"planned": 30}}, set()),  # plain backprop needs no more
    ],
)
def test_budgets_are_used_and_descend(tmp_path, spoiled, refuted):
    records = []
    for k in BUDGETS:
        told = {"planned": 10 * k, "evaluations": 256 * 17 - 256 * k, "budget": 10 * k} | spoiled.get(k, {})
        records.append(record("budget", size(budget=k), **told))
    found = verdicts(tmp_path, "blocks-descend", *records)
    assert len(found) == 3
    assert {quantity for (_, quantity), v in found.items() if v.verdict == "refuted"} == refuted
    assert {v.verdict for v in found.values()} <= {"confirmed", "refuted"}
