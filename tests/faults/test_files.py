"""Files and reports are whole or not there, and what others put beside them stays."""

import json
import os
import signal
import subprocess
import sys

import pytest

import adcost
from adcost.whole import write_whole
from analysis.__main__ import main
from analysis.whole_folder import whole_folder
from benchmarks import ROOT
from tests.faults.damage import content, run


def test_a_full_disk_leaves_what_was_there(tiny_disk):
    path = tiny_disk(16) / "found.json"
    write_whole(path, "old")
    with pytest.raises(OSError, match=r"found\.json was not written: No space left on device$"):
        write_whole(path, "new" * 10_000)
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["found.json"], "half a file is not left"


WRITES = """
import sys
from pathlib import Path
from adcost.whole import write_whole
try:
    write_whole(Path(sys.argv[1]), "new" * 100_000)
except OSError as error:
    sys.exit(str(error))
"""


def test_a_limit_on_the_size_of_files_leaves_what_was_there(tmp_path):
    path = tmp_path / "found.json"
    path.write_text("old")
    done = run("-c", WRITES, path, shell_limit="-f 12")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("was not written: File too large")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["found.json"]


KEEPS_WRITING = """
import sys
from pathlib import Path
from adcost.whole import write_whole
print("ready", flush=True)
while True:
    for letter in "ab":
        write_whole(Path(sys.argv[1]), letter * 1_000_000)
"""


def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_file(tmp_path):
    path = tmp_path / "found.json"
    with subprocess.Popen([sys.executable, "-c", KEEPS_WRITING, path], cwd=ROOT, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        while not path.exists():
            pass
        child.kill()
    text = path.read_text()
    assert len(text) == 1_000_000
    assert len(set(text)) == 1


def test_a_link_stays_a_link_and_a_folder_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "place")
    write_whole(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "place").read_text() == "text"
    with pytest.raises(OSError, match="it is a folder"):
        write_whole(tmp_path, "text")


def test_what_has_no_letters_is_written_all_the_same(tmp_path):
    write_whole(tmp_path / "text", "byte \udcff")
    assert (tmp_path / "text").read_text() == "byte \\udcff"


@pytest.fixture
def result(tmp_path):
    path = tmp_path / "found.json"
    path.write_text(json.dumps(content()))
    return path


def test_somebodys_files_stay_in_the_folder_of_a_report(result, tmp_path):
    folder = tmp_path / "report"
    assert main([str(result), "-o", str(folder)]) == 0
    (folder / "figures" / "mine.svg").write_text("mine")
    (folder / "notes").mkdir()
    (folder / "notes" / "thought.txt").write_text("mine")
    (folder / "figures" / "backprop-of-another-workload.svg").write_text("mine as well: it is in no list")
    assert main([str(result), "-o", str(folder)]) == 0
    assert (folder / "figures" / "mine.svg").read_text() == "mine"
    assert (folder / "notes" / "thought.txt").read_text() == "mine"
    assert (folder / "figures" / "backprop-of-another-workload.svg").exists()
    assert not list(tmp_path.glob(".report.*"))


def test_a_report_leaves_no_figure_of_the_last_one(result, tmp_path):
    folder = tmp_path / "report"
    assert main([str(result), "-o", str(folder)]) == 0
    made = (folder / ".made-by-adcost").read_text().splitlines()
    (folder / "figures" / "old.svg").write_text("of another workload")
    (folder / ".made-by-adcost").write_text("\n".join([*made, "figures/old.svg"]))
    assert main([str(result), "-o", str(folder)]) == 0
    assert not (folder / "figures" / "old.svg").exists()


def test_a_report_of_an_adcost_before_there_was_a_list_is_replaced(result, tmp_path):
    folder = tmp_path / "report"
    (folder / "figures").mkdir(parents=True)
    for name in ("index.html", "verdicts.json", "frame.csv", "summary.md", "figures/backprop-time.svg"):
        (folder / name).write_text("old")
    (folder / "figures" / "mine.svg").write_text("mine")
    assert main([str(result), "-o", str(folder)]) == 0
    assert (folder / "index.html").read_text(encoding="utf-8") != "old"
    assert not (folder / "figures" / "backprop-time.svg").exists()
    assert (folder / "figures" / "mine.svg").read_text() == "mine"


def test_a_folder_of_somebody_is_no_place_for_a_report(result, tmp_path, capsys):
    (tmp_path / "thesis" / "figures").mkdir(parents=True)
    (tmp_path / "thesis" / "figures" / "one.svg").write_text("mine")
    assert main([str(result), "-o", str(tmp_path / "thesis")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "holds what no report of adcost made (figures/one.svg): name another folder" in line
    assert (tmp_path / "thesis" / "figures" / "one.svg").read_text() == "mine"


@pytest.mark.parametrize("named", ["", ".", "file", "file/below"])
def test_what_is_no_folder_for_a_report_is_said_in_one_line(named, result, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    before = sorted(os.listdir())
    assert main([str(result), "-o", named]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("analysis: ")
    assert sorted(os.listdir()) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_leaves_the_last_report(result, tiny_disk, capsys):
    folder = tiny_disk(64) / "report"
    folder.mkdir()
    for name in ("index.html", "verdicts.json", "frame.csv"):
        (folder / name).write_text("old")
    assert main([str(result), "-o", str(folder)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == f"analysis: the report in {folder} was not written: No space left on device"
    assert sorted(os.listdir(folder)) == ["frame.csv", "index.html", "verdicts.json"]
    assert os.listdir(folder.parent) == ["report"]


def test_a_disk_of_its_own_is_no_folder_for_a_report(result, tiny_disk, capsys):
    folder = tiny_disk(600)
    assert main([str(result), "-o", str(folder)]) == 2
    assert capsys.readouterr().err.strip() == f"analysis: {folder} is a disk of its own: name a folder in it"
    assert not os.listdir(folder)


def test_an_exception_leaves_the_last_report(tmp_path):
    folder = tmp_path / "report"
    with whole_folder(folder) as new:
        (new / "index.html").write_text("old")

    def fails():
        with whole_folder(folder) as new:
            (new / "index.html").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert (folder / "index.html").read_text() == "old"
    assert os.listdir(tmp_path) == ["report"]


HALF = """
import os, signal, sys
from pathlib import Path
from analysis.whole_folder import whole_folder
with whole_folder(Path(sys.argv[1])) as new:
    (new / "index.html").write_text("new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_leaves_the_last_report(tmp_path):
    folder = tmp_path / "report"
    with whole_folder(folder) as new:
        (new / "index.html").write_text("old")
    assert run("-c", HALF, folder).returncode == -signal.SIGKILL
    assert (folder / "index.html").read_text() == "old"


def test_an_ascii_locale_writes_the_same_report(result, tmp_path):
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = run("-m", "analysis", result, "-o", tmp_path / "report", **plain)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "✓" in page or "–" in page


def test_an_undecodable_byte_in_a_reason_costs_nothing(tmp_path):
    found = content()
    found["records"][0]["missing"][0]["reason"] = "file \udcff is not there"
    path = tmp_path / "found.json"
    path.write_text(json.dumps(found))
    done = run("-m", "analysis", path, "-o", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert r"file \udcff is not there" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_a_plan_is_saved_whole_or_not_at_all(tiny_disk):
    found = adcost.plan(lambda x: x * 2, 1.0)
    folder = tiny_disk(8)
    (folder / "fill").write_bytes(bytes(5_000))
    (folder / "plan.json").write_text("")
    with pytest.raises(OSError, match="No space left on device"):
        found.save(folder / "plan.json")
    assert (folder / "plan.json").read_text() == ""
