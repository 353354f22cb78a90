"""A case that fails costs only itself, and a run that was cut short goes on from where it was."""

import json
from pathlib import Path

import pytest

import benchmarks.studies
from benchmarks import cases
from benchmarks.recorder import EXTRA, Effort, Journal, record_from_json, record_group
from benchmarks.targets import TARGETS

EFFORT = Effort(clock_seconds=0.1, rounds=6, process_runs=2, limit_seconds=6)


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """The registry with the toy study in it, in this process and in the probes."""
    folder = str(Path(__file__).parent / "toy_studies")
    monkeypatch.setenv("STUDIES_PATH", folder)
    monkeypatch.setenv("TOY_FLAG", str(tmp_path / "flag"))
    monkeypatch.setattr(benchmarks.studies, "__path__", [*benchmarks.studies.__path__, folder])
    cases.studies.cache_clear()
    yield lambda *methods: [cases.Case("toy", method, (("n", 4),)) for method in methods]
    cases.studies.cache_clear()


def record(group, path, fingerprint="same"):
    lines = []
    journal = Journal.open(path, fingerprint)
    record_group(group, TARGETS["cpu"], EFFORT, journal, lines.append)
    return {case.method: record for case, record in journal.records.items()}, journal, lines


def reasons(record):
    return " ".join(gap.reason for gap in record.missing)


def test_one_bad_case_costs_the_others_nothing(toy, tmp_path):
    methods = ("plain", "twin", "raising", "lying", "killed", "dying", "dawdling", "absent")
    records, journal, _ = record(toy(*methods), tmp_path / "journal.jsonl")
    for good in ("plain", "twin"):
        assert not records[good].missing
        assert len(records[good].samples) == 6
        rulers = {number.ruler for number in records[good].numbers}
        assert rulers == {"count", "compiler", "compile", "check", "process", "clock"}
    assert reasons(records["raising"]) == "RuntimeError: this method"
    assert "its gradient is off by 2.0e-02" in reasons(records["lying"])
    assert records["lying"].numbers == ()
    assert "was killed (signal 9), most likely for want of memory" in reasons(records["killed"])
    assert "ended its process with code 3" in reasons(records["dying"])
    assert records["dying"].numbers == (), "a number counts only after its gradient was checked"
    assert "no answer within its limit of 6 s" in reasons(records["dawdling"])
    assert records["absent"].missing[0].ruler == EXTRA
    assert "pip install -e '.[peers]'" in reasons(records["absent"])
    journal.close(toy(*methods))
    assert journal.path.exists(), "what is missing can be measured by another run"


def test_the_noise_floor_is_the_baseline_timed_twice(toy, tmp_path):
    records, _, _ = record(toy("twin"), tmp_path / "journal.jsonl")
    assert len(records["plain"].again) == len(records["plain"].samples) == 6
    quantities = {number.quantity for number in records["twin"].numbers}
    assert {"time", "time / plain"} <= quantities
    assert "time / plain again" in {number.quantity for number in records["plain"].numbers}


def test_a_second_run_measures_only_what_is_missing(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    first, _, _ = record(toy("plain", "twin", "once_dead"), path)
    assert not first["once_dead"].samples
    second, journal, lines = record(toy("plain", "twin", "once_dead"), path)
    assert second["once_dead"].samples
    assert second["twin"] == first["twin"]
    assert "2 programs" in lines[0]  # the missing one and its baseline
    journal.close([*toy("plain", "twin"), cases.Case("toy", "plain", (("n", 8),))])
    assert path.exists(), "a run that was cut short is not complete"
    journal.close(toy("plain", "twin", "once_dead"))
    assert not path.exists()


def test_a_complete_journal_is_not_measured_again(toy, tmp_path):
    record(toy("plain", "twin"), tmp_path / "journal.jsonl")
    _, _, lines = record(toy("plain", "twin"), tmp_path / "journal.jsonl")
    assert lines == []


def test_a_journal_of_other_sources_or_cut_short_is_seen_as_such(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    records, _, _ = record(toy("plain"), path)
    whole = path.read_text().count("\n")
    with path.open("a") as file:
        file.write('{"case": {"study"')  # the process was killed while it wrote
    assert Journal.open(path, "same").records[toy("plain")[0]] == records["plain"]
    Journal.open(path, "same").put(records["plain"])
    lines = path.read_text().splitlines()
    assert len(lines) == whole + 2
    assert json.loads(lines[-1])["case"]["method"] == "plain"
    assert Journal.open(path, "other").records == {}


def test_a_record_survives_json(toy, tmp_path):
    from dataclasses import asdict

    records, _, _ = record(toy("plain"), tmp_path / "journal.jsonl")
    assert record_from_json(json.loads(json.dumps(asdict(records["plain"])))) == records["plain"]


def test_a_narrow_run_leaves_the_rest_of_a_wide_one_in_the_journal(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    other = cases.Case("toy", "plain", (("n", 8),))
    record([other], path)
    _, journal, _ = record(toy("plain"), path)
    journal.close(toy("plain"))
    assert list(Journal.open(path, "same").records) == [other]
