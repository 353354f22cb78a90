"""A case that fails costs only itself, and a run that was cut short goes on from where it was."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from adcost.suite import campaign, registry
from adcost.suite.campaign import Campaign, Suite, clock_of, record_group
from adcost.suite.effort import Effort
from adcost.suite.journal import Journal
from adcost.suite.messages import AGAIN, AtDeath, Find, Lay, Took
from adcost.suite.probes import SAMPLER, ProbeDied
from adcost.suite.record import EXTRA
from adcost.suite.schema import record_of
from adcost.suite.vocabulary import Case, Missing, Number
from adcost.targets import TARGETS

EFFORT = Effort(
    processes=2,
    clock_seconds=0.1,
    least_rounds=3,
    rounds=3,
    process_runs=2,
    limit_seconds=6,
    compiles_all=True,
    all_lines=True,
    fits=False,
)
CPU, H100 = TARGETS["cpu"], TARGETS["nvidia-h100"]
TOYS = Path(__file__).parents[1] / "toy_studies"


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Cases of the toy study."""
    monkeypatch.setenv("TOY_FLAG", str(tmp_path / "flag"))
    return lambda *methods: [Case("toy", method, (("n", 4),)) for method in methods]


def suite_of(path, lines=None):
    """A campaign's suite: the toys, and a journal at the path."""
    say = [].append if lines is None else lines.append
    return Suite([TOYS], registry.load(TOYS, say=say), EFFORT, Journal.open(path), say)


def record(group, path):
    lines = []
    suite = suite_of(path, lines)
    with campaign.measuring(CPU, suite.folders) as ask, clock_of(suite, CPU) as clock:
        record_group(clock, group, ask)
        for _ in range(EFFORT.processes):
            clock.run()
        clock.finish()
    return {case.method: record for (case, _), record in suite.journal.records.items()}, suite.journal, lines


def compiled(group, suite, target=H100):
    with campaign.probes(target, suite.folders) as ask:
        campaign.record_compiled(suite, group, target, ask)


def wanted(cases):
    return [(case, "cpu") for case in cases]


def reasons(record):
    return " ".join(gap.reason for gap in record.missing)


def test_one_bad_case_costs_the_others_nothing(toy, tmp_path):
    methods = ("plain", "twin", "raising", "lying", "killed", "dying", "dawdling", "absent")
    records, journal, _ = record(toy(*methods), tmp_path / "journal.jsonl")
    for good in ("plain", "twin"):
        assert not records[good].missing
        assert list(map(len, records[good].samples)) == [3, 3]
        rulers = {number.ruler for number in records[good].numbers}
        assert rulers == {"count", "compiler", "compile", "check", "process", "clock"}
    assert reasons(records["raising"]) == "RuntimeError: this method"
    assert [name for name, found in records.items() if any(gap.fault for gap in found.missing)] == ["raising"]
    assert "its result is off by 2.0e-02" in reasons(records["lying"])
    assert records["lying"].numbers == ()
    assert "was killed (signal 9), most likely for want of memory" in reasons(records["killed"])
    assert "ended with code 3" in reasons(records["dying"])
    assert records["dying"].numbers == (), "a number counts only after its gradient was checked"
    assert "no answer within its limit of 6 s" in reasons(records["dawdling"])
    assert records["absent"].missing[0].ruler == EXTRA
    assert "pip install -e '.[peers]'" in reasons(records["absent"])
    journal.close(wanted(toy(*methods)))
    assert journal.path.exists(), "what is missing can be measured by another run"


def test_a_case_that_fails_in_two_runs_is_given_up(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    first, journal, _ = record(toy("plain", "raising"), path)
    journal.close(wanted(toy("plain", "raising")))
    second, journal, _ = record(toy("plain", "raising"), path)
    assert (first["raising"].tries, second["raising"].tries) == (1, 2)
    assert second["plain"] == first["plain"]
    journal.close(wanted(toy("plain", "raising")))
    assert not path.exists(), "the next run measures everything afresh"


def test_a_journal_keeps_the_environment_in_which_it_began(tmp_path):
    path = tmp_path / "folder" / "journal.jsonl"
    Journal.open(path, {"load at start": 0.5})
    assert Journal.open(path, {"load at start": 2.0}).environment == {"load at start": 0.5}


def test_a_measured_case_whose_executable_cannot_be_made_again_says_so(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    records, journal, _ = record(toy("plain", "dies_later"), path)
    assert not records["dies_later"].missing
    journal.put(journal.records[toy("dies_later")[0], "cpu"].without_clock())  # as if cut short before the clock
    records, _, _ = record(toy("plain", "dies_later"), path)
    assert "ended with code 5" in reasons(records["dies_later"])
    assert records["dies_later"].numbers, "what was measured stays"


def test_an_executable_that_cannot_be_loaded_costs_only_itself(toy, tmp_path):
    group = toy("plain", "twin")
    suite = suite_of(tmp_path / "journal.jsonl")
    with campaign.measuring(CPU, suite.folders) as ask, clock_of(suite, CPU, tmp_path) as clock:
        record_group(clock, group, ask)
    (tmp_path / group[1].id).write_bytes(b"no executable")
    clock.run()
    assert len(suite.known(group[0], CPU).samples) == len(suite.known(group[0], CPU).again) == 1
    assert not suite.known(group[1], CPU).samples
    assert "UnpicklingError" in reasons(suite.known(group[1], CPU))


def test_a_second_compilation_that_cannot_be_loaded_costs_no_case(toy, tmp_path):
    suite = suite_of(tmp_path / "journal.jsonl")
    with campaign.measuring(CPU, suite.folders) as ask, clock_of(suite, CPU, tmp_path) as clock:
        record_group(clock, toy("plain", "twin"), ask)
    (tmp_path / (toy("plain")[0].id + AGAIN)).write_bytes(b"no executable")
    clock.run()
    assert [suite.known(case, CPU).again for case in toy("plain", "twin")] == [(), ()]
    assert all(len(suite.known(case, CPU).samples) == 1 for case in toy("plain", "twin"))


def test_programs_that_were_not_timed_in_the_same_rounds_begin_again(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    record(toy("plain"), path)
    alone = suite_of(path).known(toy("plain")[0], CPU)
    records, _, _ = record(toy("plain", "twin"), path)
    assert records["plain"].seeds == records["twin"].seeds
    assert len(set(records["plain"].seeds)) == EFFORT.processes, "each process has an order of its own"
    assert not set(alone.seeds) & set(records["plain"].seeds)


def test_a_run_that_was_cut_short_between_processes_goes_on_with_the_next(toy, tmp_path):
    suite = suite_of(tmp_path / "journal.jsonl")
    with campaign.measuring(CPU, suite.folders) as ask, clock_of(suite, CPU, tmp_path) as clock:
        record_group(clock, toy("plain", "twin"), ask)
        clock.run()
    first = suite.known(toy("twin")[0], CPU)
    assert (len(first.samples), first.settled) == (1, False)
    assert "time / plain" in {number.quantity for number in first.numbers}, "what one process says is known"
    records, _, _ = record(toy("plain", "twin"), tmp_path / "journal.jsonl")
    assert records["twin"].samples[0] == first.samples[0]
    assert len(records["twin"].samples) == 2


def test_a_compilers_target_gets_no_time_and_says_what_it_lacks(toy, tmp_path):
    suite = suite_of(tmp_path / "journal.jsonl")
    compiled(toy("plain"), suite, replace(H100, extra=("targets-gpu", "no_such_module")))
    (found,) = suite.journal.records.values()
    assert (found.target, found.numbers) == ("nvidia-h100", ())
    assert reasons(found) == "no_such_module is not installed: pip install -e '.[targets-gpu]'"


@pytest.mark.skipif(H100.unavailable() is not None, reason="needs the extra targets-gpu")
def test_a_compilers_target_is_asked_in_one_process_and_a_bad_case_costs_only_itself(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    suite = suite_of(path)
    compiled(toy("raising", "plain", "twin"), suite)
    records = {case.method: found for (case, _), found in suite.journal.records.items()}
    assert reasons(records["raising"]) == "RuntimeError: this method"
    for good in ("plain", "twin"):
        assert not records[good].missing
        assert {number.ruler for number in records[good].numbers} == {"compiler", "compile"}
        assert {number.target for number in records[good].numbers} == {"nvidia-h100"}
    before = path.read_text()
    compiled(toy("plain", "twin"), suite)
    assert path.read_text() == before, "what is known is not compiled again"


def test_without_an_attached_target_gradients_are_checked_on_the_cpu(toy, tmp_path):
    suite = suite_of(tmp_path / "journal.jsonl")
    with campaign.measuring(CPU, suite.folders) as ask:
        campaign.record_correct(suite, toy("plain", "lying"), CPU, ask)
    records = {case.method: found for (case, _), found in suite.journal.records.items()}
    assert {number.ruler for number in records["plain"].numbers} == {"count", "check"}
    assert not records["lying"].correct


def test_a_death_that_was_foretold_is_a_number_and_costs_no_other():
    peak, died = (Number(ruler, "cpu", what, "1", 0.0) for ruler, what in (("process", "peak"), ("limited", "lived")))

    def dying_after(*replies):
        def ask(*_):
            yield from replies
            raise ProbeDied("ended with code -6", "a program")

        return campaign._answer(ask, Lay(Case("toy", "plain", ()), "cpu", ()), 1.0, "compiler")

    assert dying_after(Took(peak), AtDeath(died)) == ((peak, died), ())
    numbers, (gap,) = dying_after(AtDeath(died), Took(peak))
    assert numbers == (peak,)
    assert "code -6" in gap.reason


def test_a_probe_that_is_done_leaves_no_pipe_open():
    """With a probe for every request, as where the device's own peak is taken, a thousand would not be allowed."""
    with campaign.probes(CPU, [TOYS], fresh=True) as ask:
        open_files = []
        for _ in range(3):
            list(ask(Find("cpu"), 60))
            open_files.append(len(os.listdir("/proc/self/fd")))
    assert open_files[-1] <= open_files[0]


def test_the_sampler_sees_another_process_and_imports_no_jax():
    touch = "import sys, time; print(); sys.stdin.readline(); a = b'1' * 2**26; time.sleep(0.1); print(); input()"
    check = (
        "import runpy, sys; sampler = runpy.run_path(sys.argv[1]); "
        "assert 'jax' not in sys.modules; sampler['main'](int(sys.argv[2]))"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-u", "-c", touch], **pipes) as other:
        other.stdout.readline()
        command = [sys.executable, "-u", "-P", "-c", check, str(SAMPLER), str(other.pid)]
        with subprocess.Popen(command, **pipes) as sampler:
            print(file=sampler.stdin)
            sampler.stdout.readline()
            print(file=other.stdin)
            other.stdout.readline()
            print(file=sampler.stdin)
            rise = float(sampler.stdout.readline())
            sampler.stdin.close()
        print(file=other.stdin)
    assert abs(rise / 2**26 - 1) < 0.02


def test_the_noise_floor_is_the_baseline_timed_twice(toy, tmp_path):
    records, _, _ = record(toy("twin"), tmp_path / "journal.jsonl")
    assert list(map(len, records["plain"].again)) == list(map(len, records["plain"].samples)) == [3, 3]
    quantities = {number.quantity for number in records["twin"].numbers}
    assert {"time", "time / plain"} <= quantities
    assert "time / plain again" in {number.quantity for number in records["plain"].numbers}


def test_a_second_run_measures_only_what_is_missing(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    first, _, _ = record(toy("plain", "twin", "once_dead"), path)
    assert not first["once_dead"].samples
    second, journal, lines = record(toy("plain", "twin", "once_dead"), path)
    assert second["once_dead"].samples
    kept = [replace(found["twin"].without_clock(), tries=0) for found in (first, second)]
    assert kept[0] == kept[1], "only its time is taken again, in the rounds of the one that was missing"
    assert second["twin"].seeds == second["once_dead"].seeds
    assert "3 programs" in lines[0]
    journal.close(wanted([*toy("plain", "twin"), Case("toy", "plain", (("n", 8),))]))
    assert path.exists(), "a run that was cut short is not complete"
    journal.close(wanted(toy("plain", "twin", "once_dead")))
    assert not path.exists()


def test_a_complete_journal_is_not_measured_again(toy, tmp_path):
    record(toy("plain", "twin"), tmp_path / "journal.jsonl")
    _, _, lines = record(toy("plain", "twin"), tmp_path / "journal.jsonl")
    assert lines == []


def test_a_journal_that_was_cut_short_goes_on(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    records, _, _ = record(toy("plain"), path)
    whole = path.read_bytes()
    with path.open("a") as file:
        file.write('{"case": {"study"')  # the process was killed while it wrote
    journal = Journal.open(path)
    assert journal.records[toy("plain")[0], "cpu"] == records["plain"]
    assert journal.aside.read_text() == '{"case": {"study"\n'
    assert any("1 line of" in line for line in journal.said())
    journal.put(records["plain"])
    assert Journal.open(path).unread == 0
    assert path.read_bytes().splitlines()[-1] == whole.splitlines()[-1]


def test_a_record_survives_json(toy, tmp_path):
    records, _, _ = record(toy("plain"), tmp_path / "journal.jsonl")
    assert record_of(json.loads(json.dumps(asdict(records["plain"])))) == records["plain"]


def test_a_narrow_run_leaves_the_rest_of_a_wide_one_in_the_journal(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    other = Case("toy", "plain", (("n", 8),))
    record([other], path)
    _, journal, _ = record(toy("plain"), path)
    journal.close(wanted(toy("plain")))
    assert list(Journal.open(path).records) == [(other, "cpu")]


def test_a_narrow_run_keeps_other_methods_of_its_size(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    record(toy("plain", "twin"), path)
    run = Campaign(suite_of(path), toy("plain"), [CPU])
    run.record(toy("plain")[0])
    run.forget()
    assert list(Journal.open(path).records) == [(toy("twin")[0], "cpu")]


def test_a_campaign_measures_everything_when_its_first_case_is_asked_for(toy, tmp_path):
    path = tmp_path / "journal.jsonl"
    cases = [*toy("plain", "twin"), Case("toy", "plain", (("n", 8),))]
    suite = suite_of(path)
    run = Campaign(suite, cases, [CPU])
    assert not suite.journal.records
    assert all(len(run.record(case).samples) == EFFORT.processes for case in cases)
    assert [found.case for found in run.records()] == cases
    assert path.exists(), "until it is told to forget, the journal stays"
    run.forget()
    assert not path.exists()


def test_settings_that_this_jax_does_not_know_are_named(toy, tmp_path, monkeypatch):
    suite = suite_of(tmp_path / "journal.jsonl")
    method = replace(suite.studies["toy"].methods["plain"], flags={"jax_no_such": True})
    monkeypatch.setitem(suite.studies["toy"].methods, "plain", method)
    assert "has no jax_no_such" in campaign.unavailable(suite.studies["toy"], toy("plain")[0])


@pytest.mark.usefixtures("toy")
def test_measure_writes_what_the_analysis_reads(tmp_path, capsys):
    from adcost.__main__ import main
    from analysis import frame

    folder = tmp_path / "studies"
    folder.mkdir()
    text = (TOYS / "toy.py").read_text().replace('"killed": Method', '"left_out": Method')
    kept = ("plain", "twin", "raising")
    (folder / "toy.py").write_text(f"{text}\nfor name in set(METHODS) - set({kept}):\n    del METHODS[name]\n")
    out = tmp_path / "found.json"
    assert main(["measure", str(folder), "--profile", "full", "-o", str(out)]) == 0
    assert "not measured, 1 times: RuntimeError: this method" in capsys.readouterr().out
    found = frame.read([out])
    assert set(found.frame["method"]) == {"plain", "twin"}
    assert list(found.missing["method"]) == ["raising"]
    assert main(["measure", str(tmp_path / "nowhere")]) == 2
    assert "holds no study" in capsys.readouterr().err


def test_an_input_that_programs_share_is_saved_once(toy, tmp_path):
    suite = suite_of(tmp_path / "journal.jsonl")
    with campaign.measuring(CPU, suite.folders) as ask:
        campaign.measure(suite, toy("plain", "twin"), CPU, ask, tmp_path, rulers=())
    (kept,) = tmp_path.glob("array-*.npy")
    np.testing.assert_array_equal(np.load(kept), np.ones(4, np.float32))


def test_a_program_that_killed_the_clock_does_not_cost_its_peers_their_processes(toy, tmp_path):
    suite = suite_of(tmp_path / "journal.jsonl")
    group = toy("plain", "twin")
    with campaign.measuring(CPU, suite.folders) as ask, clock_of(suite, CPU, tmp_path) as clock:
        record_group(clock, group, ask)
        clock.run()
        killed = suite.known(group[1], CPU).without_clock()
        suite.journal.put(replace(killed, missing=(Missing("clock", "cpu", "was killed"),)))
        before = suite.known(group[0], CPU)
    with clock_of(suite, CPU, tmp_path) as again:  # as a run does that goes on
        again.add(group)
        assert suite.known(group[0], CPU).samples == before.samples
        again.run()
    assert len(suite.known(group[0], CPU).samples) == EFFORT.processes


def test_the_second_compilation_stays_in_step_with_the_first(toy, tmp_path):
    suite = suite_of(tmp_path / "journal.jsonl")
    (case,) = toy("plain")
    with campaign.measuring(CPU, suite.folders) as ask, clock_of(suite, CPU, tmp_path) as clock:
        record_group(clock, [case], ask)
    clock.run()
    (tmp_path / (case.id + AGAIN)).unlink()
    clock.run()
    assert [len(found) > 0 for found in suite.known(case, CPU).again] == [True, False]
    assert len(suite.known(case, CPU).samples) == 2


def test_what_was_measured_stays_when_its_target_is_gone(toy, tmp_path):
    records, _, _ = record(toy("plain"), tmp_path / "journal.jsonl")
    suite = suite_of(tmp_path / "journal.jsonl")
    campaign.record_absent(suite, toy("plain", "twin"), CPU, "no CPU is attached")
    assert suite.known(toy("plain")[0], CPU) == records["plain"]
    assert reasons(suite.known(toy("twin")[0], CPU)) == "no CPU is attached"


def test_what_was_not_installed_is_measured_once_it_is(toy, tmp_path, monkeypatch):
    suite = suite_of(tmp_path / "journal.jsonl")
    (case,) = toy("plain")
    campaign.record_absent(suite, [case], CPU, "lineax is not installed")
    assert not suite.settled(case, CPU)
    monkeypatch.setattr(campaign, "unavailable", lambda study, case: "lineax is not installed")
    assert suite.settled(case, CPU)


def test_no_process_at_all_is_refused(toy, tmp_path, capsys):
    from adcost.__main__ import main

    assert toy
    assert main(["measure", str(TOYS), "--processes", "0", "-o", str(tmp_path / "out.json")]) == 2
    assert "programs are timed in one at least" in capsys.readouterr().err
