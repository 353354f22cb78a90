"""Runs that are disturbed: what was measured stays, what was not has its true reason, and nothing runs on."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from adcost.processes import how_it_ended
from adcost.suite import environment, registry
from adcost.suite.campaign import Campaign, Ended, Suite
from adcost.suite.effort import EFFORTS
from adcost.suite.journal import Journal
from adcost.suite.messages import Find, Gap, Lay, Took
from adcost.suite.probes import probes
from adcost.suite.vocabulary import Case
from adcost.targets import TARGETS
from analysis import frame
from analysis.__main__ import main as report
from benchmarks import ROOT
from tests.faults.damage import TOYS, run, toys

CPU = TARGETS["cpu"]
HEARS = (  # a background job of a script begins by ignoring the interrupt
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.path.insert(0, '.');"
    "from benchmarks.__main__ import main; sys.exit(main(*sys.argv[1:]))",
)
PLAIN = "toy-plain-n4"


def bench(result, *options, chosen=PLAIN, **environment):
    """``python -m benchmarks`` with the toys that are chosen."""
    return run("-m", "benchmarks", result, "-k", chosen, *options, **environment)


def said(done):
    return done.stdout + done.stderr


def test_a_result_that_cannot_be_written_leaves_the_last_one_and_the_journal(tmp_path, tiny_disk):
    """And the next run has nothing to measure."""
    place = tiny_disk(16) / "latest.json"
    place.write_text("old")
    done = bench(place, **toys(tmp_path))
    assert done.returncode == 3, said(done)
    assert "latest.part.json was not written: No space left on device; what was measured is in" in said(done)
    assert "Traceback" not in said(done)
    assert os.listdir(place.parent) == ["latest.json"]
    assert place.read_text() == "old"
    done = bench(tmp_path / "latest.json", **toys(tmp_path))
    assert done.returncode == 0, said(done)
    assert "going on with the run of" in done.stdout
    assert "on the clock" not in done.stdout
    assert set(frame.read([tmp_path / "latest.json"]).frame["method"]) == {"plain"}
    assert not list((tmp_path / "journals").glob("*.jsonl")), "what is safe is forgotten"


def test_flags_that_xla_does_not_know_are_found_once(tmp_path):
    (tmp_path / "latest.json").write_text("old")
    done = bench(tmp_path / "latest.json", chosen="toy", XLA_FLAGS="--xla_no_such_flag=1", **toys(tmp_path))
    assert done.returncode == 3
    assert said(done).count("xla_no_such_flag") == 2, "by pytest and at the end, and not for every case"
    last = said(done).strip().splitlines()[-1]
    assert last.startswith("benchmarks: the run ended early: JAX does not start for cpu:")
    assert "Unknown flag in XLA_FLAGS: --xla_no_such_flag=1" in last
    assert (tmp_path / "latest.json").read_text() == "old"
    results = frame.read([tmp_path / "latest.part.json"])
    assert len(results.cases) == len(results.missing) == 21, "every case of the plan has its reason"
    assert results.missing["reason"].str.contains("JAX does not start for cpu").all()


def test_two_runs_in_one_checkout(tmp_path):
    environment = {**os.environ, **{k: str(v) for k, v in toys(tmp_path).items()}}
    command = [sys.executable, "-m", "benchmarks", str(tmp_path / "first.json"), "-k", "toy-plain-n4"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as first:
        for line in first.stdout:
            if "compiled and checked" in line:
                break
        second = bench(tmp_path / "second.json", **toys(tmp_path))
        first.stdout.read()
    assert second.returncode == 3
    assert f"another run measures in {tmp_path / 'journals'} (process {first.pid}, since" in said(second)
    assert "Traceback" not in said(second)
    assert first.returncode == 0
    assert not (tmp_path / "second.json").exists()
    assert set(frame.read([tmp_path / "first.json"]).frame["method"]) == {"plain"}


FORKS = """
import os, time
from tests.toy_studies.toy import *
from adcost.suite.vocabulary import Method
def forks():
    def effect():
        if os.fork() == 0:
            time.sleep(600)
        time.sleep(600)
    return at_run(effect)()
METHODS.clear()
METHODS["plain"] = Method(plain)
METHODS["forks"] = Method(forks)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_a_run_however_it_ends(end, tmp_path):
    """Not the probe, nor the sampler, nor what a method forked."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "toy.py").write_text(FORKS)
    mark = {"STUDIES_PATH": tmp_path / "studies", "PYTHONPATH": ROOT, "MARK_OF_THE_TEST": tmp_path}
    given = {**os.environ, **{k: str(v) for k, v in toys(tmp_path, **mark).items()}}
    asked = [str(tmp_path / "out.json"), "-k", "toy-forks-n4"]
    with subprocess.Popen([*HEARS, *asked], cwd=ROOT, env=given, stdout=subprocess.DEVNULL, stderr=-1) as parent:
        wait_for(lambda: len(of_the_test(tmp_path)) >= 4)  # the parent, the probe, its fork, the sampler
        parent.send_signal(end)
        parent.wait(30)
    wait_for(lambda: not of_the_test(tmp_path))


def of_the_test(mark):
    """The processes that live and bear the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK_OF_THE_TEST") == str(mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(done, seconds=60):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_ctrl_c_leaves_one_line_and_the_journal(tmp_path):
    given = {**os.environ, **{k: str(v) for k, v in toys(tmp_path).items()}}
    asked = [str(tmp_path / "out.json"), "-k", "toy-dawdling-n4 or toy-plain-n8"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*HEARS, *asked], cwd=ROOT, env=given, **streams) as running:
        text = ""
        for line in running.stdout:
            text += line
            if line.startswith("toy n4"):
                break
        time.sleep(1)
        running.send_signal(signal.SIGINT)
        running.send_signal(signal.SIGINT)
        text += running.stdout.read()
    assert running.returncode != 0
    assert "Traceback" not in text
    assert not (tmp_path / "out.json").exists()


def suite_of(tmp_path, folder=TOYS):
    lines = []
    studies = registry.load(folder, say=lines.append)
    return Suite([folder], studies, EFFORTS["quick"], Journal.open(tmp_path / "journal.jsonl"), lines.append), lines


def cases(*methods):
    return [Case("toy", method, (("n", 4),)) for method in methods]


def test_an_exception_in_the_parent_is_the_reason_of_every_case_that_was_not_reached(tmp_path, monkeypatch):
    suite, _ = suite_of(tmp_path)
    chosen = cases("plain", "twin")

    def fails(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("adcost.suite.campaign._measure_all", fails)
    run = Campaign(suite, chosen, [CPU])
    for case in chosen:
        with pytest.raises(Ended, match=r"not reached: the run ended early: \[Errno 24\] Too many open files"):
            run.record(case)
    assert [record.case for record in run.records()] == chosen
    assert {gap.reason for record in run.records() for gap in record.missing} == {
        "not reached: the run ended early: [Errno 24] Too many open files"
    }
    run.forget()
    assert (tmp_path / "journal.jsonl").exists()


@pytest.mark.parametrize("most", [16, 24])
def test_few_open_files_cost_no_case_its_true_reason(most, tmp_path):
    done = run("-m", "benchmarks", tmp_path / "out.json", "-k", "toy-plain", shell_limit=f"-n {most}", **toys(tmp_path))
    assert done.returncode != 0
    assert not (tmp_path / "out.json").exists()
    results = frame.read([tmp_path / "out.part.json"])
    assert len(results.cases) == 2
    assert set(results.missing["method"] + results.missing["n"].astype(str)) == {"plain4", "plain8"}
    assert results.missing["reason"].str.contains("Too many open files").all()


def test_what_was_compiled_and_not_timed_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FLAG", str(tmp_path / "flag"))
    suite, _ = suite_of(tmp_path)

    def fails(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("adcost.suite.campaign.Clock.run", fails)
    run = Campaign(suite, cases("plain"), [CPU])
    found = [run.record(case) for case in run.cases] + run.records()
    for record in found:
        assert record.numbers
        assert [gap.reason for gap in record.missing] == [
            "not reached: the run ended early: [Errno 24] Too many open files"
        ]


def test_a_fault_in_the_parent_is_shown_once_with_its_traceback(tmp_path, monkeypatch):
    suite, lines = suite_of(tmp_path)
    monkeypatch.setattr("adcost.suite.campaign._measure_all", lambda *_: 1 / 0)
    run = Campaign(suite, cases("plain", "twin"), [CPU])
    for case in run.cases:
        with pytest.raises(Ended, match="ZeroDivisionError: division by zero"):
            run.record(case)
    assert sum("Traceback" in line for line in lines) == 1


def test_a_sampler_that_dies_is_a_gap_with_its_reason_and_the_next_case_has_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FLAG", str(tmp_path / "flag"))
    first, second = cases("plain", "twin")

    def lay(ask, case):
        return list(ask(Lay(case, "cpu", ("process",), 2), 60))

    with probes(CPU, [TOYS]) as ask:
        list(ask(Find("cpu"), 60))
        (sampler,) = (p for p in psutil.Process().children() if any("sampler.py" in word for word in p.cmdline()))
        sampler.kill()
        gaps = [reply.missing for reply in lay(ask, first) if isinstance(reply, Gap)]
        assert [(gap.ruler, gap.reason) for gap in gaps] == [
            ("process", "the sampler of memory ended, or gave no answer")
        ]
        for case in (second, first):
            replies = lay(ask, case)
            assert not any(isinstance(reply, Gap) for reply in replies)
            assert sum(isinstance(r, Took) and r.number.quantity == "sampled peak" for r in replies) == 1


def test_a_reason_is_that_of_its_own_case(tmp_path, monkeypatch):
    """What an earlier case wrote to the standard error explains no later death."""
    monkeypatch.setenv("TOY_FLAG", str(tmp_path / "flag"))
    folder = tmp_path / "studies"
    folder.mkdir()
    loud = "def loud():\n    import sys\n    print('of the first', file=sys.stderr, flush=True)\n    return plain()\n"
    more = 'METHODS["loud"] = Method(loud)\n'
    (folder / "toy.py").write_text(
        (TOYS / "toy.py").read_text().replace("STUDY = Study(", f"{loud}{more}STUDY = Study(")
    )
    with probes(CPU, [folder]) as ask:
        list(ask(Lay(cases("loud")[0], "cpu", ("compiler",), 1), 60))
        with pytest.raises(RuntimeError, match=r"ended with code 3") as death:
            list(ask(Lay(cases("dying")[0], "cpu", ("process",), 1), 60))
    assert "of the first" not in str(death.value)


@pytest.mark.parametrize(
    ("code", "wrote", "words"),
    [
        (-signal.SIGKILL, b"", "was killed (signal 9), most likely for want of memory"),
        (-signal.SIGSEGV, b"", "ended by signal 11 (Segmentation fault)"),
        (-signal.SIGABRT, b"first\nlast\n", "ended by signal 6 (Aborted): last"),
        (-signal.SIGTERM, b"", "ended by signal 15 (Terminated)"),
        (3, b"why\n", "ended with code 3: why"),
        (1, b"\xff\n", "ended with code 1: \ufffd"),
    ],
)
def test_signals_are_named_in_words(code, wrote, words):
    assert how_it_ended(code, wrote) == words


def test_what_makes_a_number_another_is_taken_away_and_the_rest_is_recorded(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/cache")
    monkeypatch.setenv("JAX_DISABLE_JIT", "1")
    before = environment.fingerprint()
    assert not {"JAX_COMPILATION_CACHE_DIR", "JAX_DISABLE_JIT"} & {*environment.undisturbed(), *environment.settings()}
    for name in ("XLA_FLAGS", "OMP_NUM_THREADS", "JAX_DEFAULT_MATMUL_PRECISION", "LD_PRELOAD", "JAX_SOME_DAY"):
        with monkeypatch.context() as given:
            given.setenv(name, "something")
            assert environment.settings()[name] == "something"
            assert environment.fingerprint() != before


def test_a_probe_sees_no_cache_of_compiled_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FLAG", str(tmp_path / "flag"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    with probes(CPU, [TOYS]) as ask:
        list(ask(Lay(cases("plain")[0], "cpu", ("compiler",), 1), 60))
    assert not (tmp_path / "cache").exists()


BROKEN = {
    "of another syntax": "def (",
    "that raises": "raise ValueError('two\\nlines')",
    "that exits": "import sys; sys.exit(3)",
    "that imports what is not there": "import no_such_module",
    "that defines none": "x = 1",
    "that is not UTF-8": b"# \xff\xfe\n",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_study_costs_itself(fault, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FLAG", str(tmp_path / "flag"))
    folder = tmp_path / "studies"
    folder.mkdir()
    text = BROKEN[fault]
    (folder / "broken.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "toy.py").write_text((TOYS / "toy.py").read_text())
    lines = []
    assert list(registry.load(folder, say=lines.append)) == ["toy"]
    (line,) = lines
    assert line.startswith(f"{folder / 'broken.py'} ")
    assert "is left out" in line
    assert "\n" not in line


def test_a_study_of_a_name_that_there_is_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text((TOYS / "toy.py").read_text().replace('name="toy"', 'name="backprop"'))
    done = bench(tmp_path / "out.json", **toys(tmp_path, STUDIES_PATH=tmp_path, STUDY="backprop"))
    assert done.returncode != 0
    assert "mine.py is the second study of the name 'backprop'; rename one" in said(done)
    assert "Traceback" not in said(done)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TARGETS", "tpu-v99", "unknown target 'tpu-v99'"),
        ("TARGETS", "cpu,,", "unknown target ''"),
        ("STUDY", "nonsense", "unknown study 'nonsense'"),
        ("PROFILE", "slow", "unknown profile 'slow'"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_is_installed(name, value, words):
    done = run("-m", "benchmarks", **{name: value})
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("benchmarks: "))
    assert words in line


@pytest.mark.parametrize("names", ["toy,all", "all", " toy , all ", "toy,"])
def test_all_among_others_is_all(names, tmp_path):
    assert run("-m", "benchmarks", **toys(tmp_path, STUDY=names)).returncode == 0


def test_sources_within_somebodys_repository_have_no_commit_of_it(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    sources = tmp_path / "unpacked"
    sources.mkdir()
    (sources / "file.py").write_text("x = 1")
    assert environment.describe(sources)["commit"] is None
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    assert environment.describe(sources)["commit"]


def test_measure_that_cannot_write_keeps_what_it_measured(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "toy.py").write_text(f"{FORKS}del METHODS['forks']\n")
    output = tmp_path / "found.json"
    output.mkdir()
    command = ("-m", "adcost", "measure", folder, "--profile", "full", "--processes", "1", "-o", output)
    done = run(*command, TOY_FLAG=tmp_path / "flag", PYTHONPATH=ROOT)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == f"adcost: {output} was not written: it is a folder"
    (journal,) = tmp_path.glob(".found.json-*.jsonl")
    assert len(json.loads(journal.read_text().splitlines()[-1].partition(" ")[2])["numbers"]) > 1


def test_a_broken_study_stands_on_the_page(tmp_path):
    """The others are measured, and who reads the report knows what is not in it."""
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "broken.py").write_text("import no_such_module")
    (folder / "toy.py").write_text((TOYS / "toy.py").read_text())
    done = bench(tmp_path / "out.json", **toys(tmp_path, STUDIES_PATH=folder))
    assert done.returncode == 0, said(done)
    told = f"{folder / 'broken.py'} fails and is left out: ModuleNotFoundError: No module named 'no_such_module'"
    assert said(done).count(told) == 1
    assert report([str(tmp_path / "out.json"), "-o", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "1 study file was left out" in page
    assert "No module named &#39;no_such_module&#39;" in page
    assert "1 case was to be measured: each has its numbers here" in page
