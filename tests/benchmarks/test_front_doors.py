"""Both front doors show the registry's cases, and work as their users expect."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adcost.suite import registry
from adcost.suite.effort import EFFORTS
from analysis import frame
from analysis.__main__ import main
from benchmarks import ROOT, all_studies

TINY = r"Backprop\.\w+\('(vanilla|sqrt)', 'depth4-|BackpropExecutions.*'sqrt', 'depth16-"


def select(names, profile):
    return registry.select(all_studies(), names, profile)


def run(*command, **environment):
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def collected(profile):
    out = run(sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-q", PROFILE=profile, STUDY="all").stdout
    return [line.split("[")[1].rstrip("]") for line in out.splitlines() if "::test_case[" in line]


ASV_PARAMS = """
import json
from benchmarks import asv_cases
public = [found for name, found in vars(asv_cases).items() if hasattr(found, "time_case") and name[0] != "_"]
skipped = [{tuple(pair) for pair in found.skip_params} for found in public]
asked = [
    f"{found.study}-{method}-{size}"
    for found, left_out in zip(public, skipped)
    for method in found.params[0]
    for size in found.params[1]
    if (method, size) not in left_out
]
print(json.dumps(asked))
"""


def asv_ids(profile):
    return json.loads(run(sys.executable, "-c", ASV_PARAMS, PROFILE=profile).stdout)


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_both_doors_hold_the_cases_of_the_registry(profile):
    registry = [case.id for case in select("all", profile)]
    assert collected(profile) == registry
    assert sorted(asv_ids(profile)) == sorted(registry)
    assert len(registry) > 100


def test_pytest_benchmark_writes_every_rulers_numbers(tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "-q", f"--benchmark-json={out}"]
    chosen = "(backprop-sqrt-depth4- or backprop-vanilla-depth4-)"
    chosen_by = ("--benchmark-group-by=param:method", "-k", chosen)
    done = run(*command, *chosen_by, STUDY="backprop", JOURNALS=str(tmp_path / "j"))
    assert done.returncode == 0, done.stdout
    assert "benchmark 'method=sqrt': 1 tests" in done.stdout
    content = json.loads(out.read_text())
    names = [benchmark["extra_info"]["case"]["method"] for benchmark in content["benchmarks"]]
    assert sorted(names) == ["sqrt", "vanilla"]
    for benchmark in content["benchmarks"]:
        info = benchmark["extra_info"]
        seconds = sorted(one for rounds in info["samples"] for one in rounds)
        assert len(info["samples"]) == info["processes"] == EFFORTS["quick"].processes
        assert benchmark["stats"]["rounds"] == len(seconds)
        assert benchmark["stats"]["median"] == pytest.approx(seconds[len(seconds) // 2], rel=0.5)
        assert {number["ruler"] for number in info["numbers"]} >= {"count", "compiler", "check", "process", "clock"}
        assert benchmark["group"].startswith("backprop depth4")
        own = {"study": "backprop", "depth": 4, "width": 32, "batch": 1024, "dtype": "float32"}
        assert benchmark["params"] == {**own, "method": info["case"]["method"]}
        assert benchmark["options"]["timer"].endswith("interleaved_rounds")
    assert content["machine_info"]["environment"]["jax"]
    results = frame.read([out])
    assert set(results.frame["method"]) >= {"vanilla", "sqrt"}
    assert any(results.timings["again"].map(len))
    assert not list((tmp_path / "j").iterdir()), "a complete run leaves no journal"


def test_a_run_in_which_nothing_is_timed_still_says_why(tmp_path):
    out = tmp_path / "out.json"
    toys = {"STUDIES_PATH": str(ROOT / "tests" / "toy_studies"), "TOY_FLAG": str(tmp_path / "flag"), "STUDY": "toy"}
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "-q", f"--benchmark-json={out}"]
    done = run(*command, "-k", "toy-raising-n4", JOURNALS=str(tmp_path / "j"), **toys)
    assert done.returncode == 1, done.stdout
    results = frame.read([out])
    assert list(results.missing["reason"]) == ["RuntimeError: this method"]
    assert list(results.missing["fault"]) == [True]
    assert len(results.frame) == 0
    assert main([str(out), "-o", str(tmp_path / "report")]) == 0
    top = (tmp_path / "report" / "index.html").read_text().split("</header>")[0]
    assert "exceptions that nobody foresaw" in top
    assert "RuntimeError: this method" in top


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"STUDY": "nonsense"}, "unknown study 'nonsense'; choose from:"),
        ({"PROFILE": "slow"}, "unknown profile 'slow'; choose one of:"),
        ({"TARGETS": "abacus"}, "unknown target 'abacus'; choose from:"),
    ],
)
def test_pytest_refuses_unknown_names_in_one_line(environment, message):
    done = run(sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "-q", **environment)
    assert done.returncode != 0
    assert f"ERROR: {message}" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("option", ["--benchmark-min-rounds=9", "--benchmark-warmup=on", "--benchmark-timer=time.time"])
def test_options_that_interleaved_rounds_cannot_honour_are_refused_in_one_line(option):
    done = run(sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "-q", option)
    assert done.returncode != 0
    said = (done.stdout + done.stderr).strip()
    assert f"ERROR: {option.split('=')[0]} has no effect on interleaved rounds" in said
    assert "Traceback" not in said


def test_an_interrupted_run_keeps_what_it_measured(tmp_path):
    """Ctrl-C while the second group is measured: the JSON holds the first, and the journal is there."""
    out, toys = tmp_path / "out.json", ROOT / "tests" / "toy_studies"
    places = {"STUDIES_PATH": str(toys), "TOY_FLAG": str(tmp_path / "flag"), "JOURNALS": str(tmp_path / "j")}
    # A background job of a script begins by ignoring the interrupt.
    hears = (
        "import signal, sys, pytest; signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(pytest.main())"
    )
    command = [sys.executable, "-c", hears, "benchmarks", "--benchmark-only", "-q", f"--benchmark-json={out}"]
    chosen = ["-k", "toy-plain-n4 or toy-dawdling-n8"]
    with subprocess.Popen(
        [*command, *chosen], cwd=ROOT, env={**os.environ, **places, "STUDY": "toy"}, stdout=subprocess.PIPE, text=True
    ) as running:
        for line in running.stdout:
            if line.startswith("toy n8") and "1 programs" not in line:
                running.send_signal(signal.SIGINT)
                break
        running.stdout.read()
    measured = frame.read([out]).frame
    assert "peak" in set(measured["quantity"][measured["n"] == 4])
    assert "dawdling" not in set(measured["method"]), "its group's other programs may have been measured"
    assert list((tmp_path / "j").iterdir())


@pytest.fixture(scope="module")
def asv(tmp_path_factory):
    """asv with this project's configuration, its results in a folder of the test's own."""
    folder = tmp_path_factory.mktemp("asv")
    config = json.loads((ROOT / "asv.conf.json").read_text())
    places = {name: str(folder / name) for name in ("env_dir", "results_dir", "html_dir")}
    config |= {"repo": str(ROOT), "benchmark_dir": str(ROOT / "benchmarks"), "branches": ["HEAD"], **places}
    path = folder / "asv.conf.json"
    path.write_text(json.dumps(config))

    def call(*arguments):
        tool = Path(sys.executable).parent / "asv"
        return run(str(tool), "--config", str(path), *arguments, HOME=str(folder))

    call("machine", "--yes", "--machine", "test")
    return call, folder


def test_asv_finds_its_benchmarks_in_order(asv):
    done = asv[0]("check", "-E", f"existing:{sys.executable}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_asv_runs_publishes_and_is_read_by_the_analysis(asv):
    call, folder = asv
    existing = ("-E", f"existing:{sys.executable}", "--set-commit-hash", "HEAD", "--machine", "test")
    done = call("run", *existing, "--quick", "-b", TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = frame.read([folder / "results_dir"]).frame
    maxima = {"process maximum", "process maximum before the run"}
    counts = {"evaluations", "executed evaluations", "activation", "slots"}
    assert {"temp", "compile time", "time", *maxima, *counts} == set(rows["quantity"])
    assert set(rows["method"]) == {"vanilla", "sqrt"}
    for quantity, value in (("evaluations", 6.0), ("executed evaluations", 28.0)):
        assert list(rows[(rows["method"] == "sqrt") & (rows["quantity"] == quantity)]["value"]) == [value]
    times = rows[rows["quantity"] == "time"]["value"]
    assert times.max() < rows[rows["quantity"] == "compile time"]["value"].min(), "the compiler was timed"
    published = call("publish")
    assert published.returncode == 0, published.stdout + published.stderr
    assert (folder / "html_dir" / "index.html").exists()


def test_every_study_is_a_file_that_says_what_it_asks():
    for name, study in all_studies().items():
        assert name == study.name
        assert study.question.endswith("?")
