"""A case that fails costs only itself, and a run that was cut short goes on from where it was."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import benchmarks.studies
from benchmarks import cases, recorder
from benchmarks.environment import ROOT
from benchmarks.recorder import EXTRA, Effort, Journal, record_from_json, record_group
from benchmarks.targets import TARGETS

EFFORT = Effort(
    clock_seconds=0.1, least_rounds=6, rounds=6, process_runs=2, limit_seconds=6, compiles_all=True, fits=False
)
CPU = TARGETS["cpu"]


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


def record(group, path):
    lines = []
    journal = Journal.open(path)
    with recorder.measuring(CPU) as ask:
        record_group(group, CPU, ask, EFFORT, journal, lines.append)
    return {case.method: record for (case, _), record in journal.records.items()}, journal, lines


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
    assert "its result is off by 2.0e-02" in reasons(records["lying"])
    assert records["lying"].numbers == ()
    assert "was killed (signal 9), most likely for want of memory" in reasons(records["killed"])
    assert "ended its process with code 3" in reasons(records["dying"])
    assert records["dying"].numbers == (), "a number counts only after its gradient was checked"
    assert "no answer within its limit of 6 s" in reasons(records["dawdling"])
    assert records["absent"].missing[0].ruler == EXTRA
    assert "pip install -e '.[peers]'" in reasons(records["absent"])
    journal.close([(case, CPU) for case in toy(*methods)])
    assert journal.path.exists(), "what is missing can be measured by another run"


def test_a_case_that_fails_in_two_runs_is_given_up(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    first, journal, _ = record(toy("plain", "raising"), path)
    journal.close([(case, CPU) for case in toy("plain", "raising")])
    second, journal, _ = record(toy("plain", "raising"), path)
    assert (first["raising"].tries, second["raising"].tries) == (1, 2)
    assert second["plain"] == first["plain"]
    journal.close([(case, CPU) for case in toy("plain", "raising")])
    assert not path.exists(), "the next run measures everything afresh"


def test_a_journal_keeps_the_environment_in_which_it_began(tmp_path):
    path = tmp_path / "folder" / "journal.jsonl"
    Journal.open(path, {"load at start": 0.5})
    assert Journal.open(path, {"load at start": 2.0}).environment == {"load at start": 0.5}


def test_a_measured_case_whose_executable_cannot_be_made_again_says_so(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    records, journal, _ = record(toy("plain", "dies_later"), path)
    assert not records["dies_later"].missing
    journal.put(
        recorder._without_clock(journal.records[toy("dies_later")[0], "cpu"])
    )  # as if cut short before the clock
    records, _, _ = record(toy("plain", "dies_later"), path)
    assert "ended its process with code 5" in reasons(records["dies_later"])
    assert records["dies_later"].numbers, "what was measured stays"


def test_an_executable_that_cannot_be_loaded_costs_only_itself(toy, tmp_path):
    group = toy("plain", "twin")
    _, journal, _ = record(group, tmp_path / "journal.jsonl")
    with recorder.measuring(CPU) as ask:
        recorder.measure(group, CPU, ask, EFFORT, journal, tmp_path)
    (tmp_path / group[1].id).write_bytes(b"no executable")
    samples = recorder.timed_in_rounds(group, CPU, EFFORT, journal, tmp_path)
    assert set(samples) == {group[0].id, group[0].id + " again"}
    assert journal.records[group[0], "cpu"].samples
    assert "UnpicklingError" in reasons(journal.records[group[1], "cpu"])


def test_a_compilers_target_gets_no_time_and_says_what_it_lacks(toy, tmp_path):
    absent = replace(TARGETS["nvidia-h100"], extra=("targets-gpu", "no_such_module"))
    journal = Journal.open(tmp_path / "journal.jsonl")
    recorder.record_compiled(toy("plain"), absent, EFFORT, journal, lambda line: None)
    (found,) = journal.records.values()
    assert (found.target, found.numbers) == ("nvidia-h100", ())
    assert reasons(found) == "no_such_module is not installed: pip install -e '.[targets-gpu]'"


@pytest.mark.skipif(TARGETS["nvidia-h100"].unavailable() is not None, reason="needs the extra targets-gpu")
def test_a_compilers_target_is_asked_in_one_process_and_a_bad_case_costs_only_itself(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    journal, h100 = Journal.open(path), TARGETS["nvidia-h100"]
    recorder.record_compiled(toy("raising", "plain", "twin"), h100, EFFORT, journal, lambda line: None)
    records = {case.method: found for (case, _), found in journal.records.items()}
    assert reasons(records["raising"]) == "RuntimeError: this method"
    for good in ("plain", "twin"):
        assert not records[good].missing
        assert {number.ruler for number in records[good].numbers} == {"compiler", "compile"}
        assert {number.target for number in records[good].numbers} == {"nvidia-h100"}
    before = path.read_text()
    recorder.record_compiled(toy("plain", "twin"), h100, EFFORT, journal, lambda line: None)
    assert path.read_text() == before, "what is known is not compiled again"


def test_without_an_attached_target_gradients_are_checked_on_the_cpu(toy, tmp_path):
    journal = Journal.open(tmp_path / "journal.jsonl")
    with recorder.measuring(CPU) as ask:
        recorder.record_correct(toy("plain", "lying"), CPU, ask, EFFORT, journal)
    records = {case.method: found for (case, _), found in journal.records.items()}
    assert {number.ruler for number in records["plain"].numbers} == {"count", "check"}
    assert not records["lying"].correct


def test_the_sampler_sees_another_process_and_imports_no_jax():
    touch = "import sys, time; print(); sys.stdin.readline(); a = b'1' * 2**26; time.sleep(0.1); print(); input()"
    check = "import sys; from benchmarks.rulers import sampler; assert 'jax' not in sys.modules; sampler.main({pid})"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-u", "-c", touch], **pipes) as other:
        other.stdout.readline()
        with subprocess.Popen([sys.executable, "-u", "-c", check.format(pid=other.pid)], **pipes, cwd=ROOT) as sampler:
            print(file=sampler.stdin)
            sampler.stdout.readline()
            print(file=other.stdin)
            other.stdout.readline()
            print(file=sampler.stdin)
            rise = json.loads(sampler.stdout.readline())["rise"]
            sampler.stdin.close()
        print(file=other.stdin)
    assert abs(rise / 2**26 - 1) < 0.02


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
    journal.close([(case, CPU) for case in [*toy("plain", "twin"), cases.Case("toy", "plain", (("n", 8),))]])
    assert path.exists(), "a run that was cut short is not complete"
    journal.close([(case, CPU) for case in toy("plain", "twin", "once_dead")])
    assert not path.exists()


def test_a_complete_journal_is_not_measured_again(toy, tmp_path):
    record(toy("plain", "twin"), tmp_path / "journal.jsonl")
    _, _, lines = record(toy("plain", "twin"), tmp_path / "journal.jsonl")
    assert lines == []


def test_a_journal_that_was_cut_short_goes_on(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    records, _, _ = record(toy("plain"), path)
    whole = path.read_text().count("\n")
    with path.open("a") as file:
        file.write('{"case": {"study"')  # the process was killed while it wrote
    assert Journal.open(path).records[toy("plain")[0], "cpu"] == records["plain"]
    Journal.open(path).put(records["plain"])
    lines = path.read_text().splitlines()
    assert len(lines) == whole + 2
    assert json.loads(lines[-1])["case"]["method"] == "plain"


def test_a_record_survives_json(toy, tmp_path):
    from dataclasses import asdict

    records, _, _ = record(toy("plain"), tmp_path / "journal.jsonl")
    assert record_from_json(json.loads(json.dumps(asdict(records["plain"])))) == records["plain"]


def test_a_narrow_run_leaves_the_rest_of_a_wide_one_in_the_journal(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    other = cases.Case("toy", "plain", (("n", 8),))
    record([other], path)
    _, journal, _ = record(toy("plain"), path)
    journal.close([(case, CPU) for case in toy("plain")])
    assert list(Journal.open(path).records) == [(other, "cpu")]
