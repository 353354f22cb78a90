"""Damaged journals: a line costs a line, and nothing that was measured is lost for want of room."""

import json
import os
import subprocess
import sys
import zlib

import pytest

from adcost.suite.journal import Journal
from adcost.suite.lock import AnotherRuns, alone
from benchmarks import ROOT
from tests.faults.damage import record

OF = "sources"


def filled(path, count=4):
    """A journal with so many records."""
    journal = Journal.open(path, {"started": "then", "jax": "0.10.2"}, OF)
    for depth in range(1, count + 1):
        journal.put(record(depth=depth))
    return path


def replaced(number, line):
    def damage(content):
        lines = content.split(b"\n")
        lines[number] = line(lines[number])
        return b"\n".join(lines)

    return damage


def with_its_sum(fields):
    text = json.dumps(fields)
    return f"{zlib.crc32(text.encode()):08x} {text}".encode()


def fields_of(line):
    return json.loads(line.partition(b" ")[2])


def of_another(line):
    return with_its_sum({**fields_of(line), "of": "other sources"})


def without(*names):
    return lambda line: with_its_sum({k: v for k, v in fields_of(line).items() if k not in names})


def timeless(line):
    fields = fields_of(line)
    fields["numbers"][0]["value"] = 0.0
    return with_its_sum(fields)


def joined(content):
    lines = content.split(b"\n")
    return b"\n".join([lines[0], lines[1] + lines[2], *lines[3:]])


DAMAGES = {  # and how many of the four records are left
    "the environment is lost": (replaced(0, lambda line: b"{"), 4),
    "the environment is no mapping": (replaced(0, lambda line: b'{"of": "sources", "environment": 3}'), 4),
    "a record is cut": (replaced(2, lambda line: line[:40]), 3),
    "the last record is cut": (lambda content: content[:-30], 3),
    "a record is a list": (replaced(2, lambda line: b"[1, 2]"), 3),
    "a record is null": (replaced(2, lambda line: b"null"), 3),
    "a record is a number": (replaced(2, lambda line: b"17"), 3),
    "a record is not UTF-8": (replaced(2, lambda line: line.replace(b"vanilla", b"\xff\xfe")), 3),
    "a record is zeros": (replaced(2, lambda line: bytes(len(line))), 3),
    "a record is of other sources": (replaced(2, of_another), 3),
    "a record says not of what it is": (replaced(2, without("of")), 3),
    "a record has no case": (replaced(2, without("case")), 3),
    "a record has a time of 0": (replaced(2, timeless), 3),
    "a digit is another": (replaced(2, lambda line: line.replace(b'"value": 2.0', b'"value": 2.5')), 3),
    "two records in one line": (joined, 2),
    "blank lines": (lambda content: content.replace(b"\n", b"\n\n"), 4),
    "nothing is left": (lambda content: b"\xff\xff\xff", 0),
}


@pytest.mark.parametrize("fault", DAMAGES)
def test_a_damaged_line_costs_what_stood_in_it(fault, tmp_path):
    damage, left = DAMAGES[fault]
    path = filled(tmp_path / "journal.jsonl")
    before = path.read_bytes()
    path.write_bytes(damage(before))
    journal = Journal.open(path, {"started": "now"}, OF)
    assert len(journal.records) == left
    if fault != "blank lines":
        assert journal.unread >= 1
        assert journal.aside.read_bytes().strip(), "what could not be read is kept"
        assert any("could not be read" in line for line in journal.said())
    journal.put(record(depth=9))
    again = Journal.open(path, {}, OF)
    assert again.unread == 0
    assert len(again.records) == len(journal.records)


def test_a_link_is_not_written_through(tmp_path):
    theirs = tmp_path / "thesis.txt"
    theirs.write_text("years of work")
    (tmp_path / "journal.jsonl").symlink_to(theirs)
    with pytest.raises(OSError, match=r"is a link.*remove it"):
        Journal.open(tmp_path / "journal.jsonl", {}, OF)
    assert theirs.read_text() == "years of work"


def test_a_journal_that_is_a_folder_is_said_in_one_line(tmp_path):
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(OSError, match=r"cannot be read or written: Is a directory$"):
        Journal.open(tmp_path / "journal.jsonl", {}, OF)


def test_a_full_disk_costs_no_record_that_was_written(tiny_disk):
    path = tiny_disk(16) / "journal.jsonl"
    journal = Journal.open(path, {"started": "then"}, OF)

    def fill():
        for depth in range(1, 1000):
            journal.put(record(depth=depth))

    with pytest.raises(OSError, match=r"cannot be written: No space left on device; what it holds stays"):
        fill()
    again = Journal.open(path, {}, OF)
    assert again.unread == 0
    assert len(again.records) == len(journal.records) - 1 > 3


PUTS = """
import sys
from pathlib import Path
from adcost.suite.journal import Journal
from tests.faults.damage import record
journal = Journal.open(Path(sys.argv[1]), {}, "sources")
print("ready", flush=True)
for depth in range(1, 10**6):
    journal.put(record(depth=depth))
"""


def test_a_process_that_is_killed_while_it_writes_leaves_whole_records(tmp_path):
    path = tmp_path / "journal.jsonl"
    with subprocess.Popen([sys.executable, "-c", PUTS, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        while path.read_bytes().count(b"\n") < 20:
            pass
        child.kill()
    journal = Journal.open(path, {}, OF)
    assert journal.unread <= 1
    assert len(journal.records) >= 18


HOLDS = """
import sys, time
from pathlib import Path
from adcost.suite.lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_run_at_a_time_and_a_dead_one_is_no_run(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(AnotherRuns, match=rf"process {other.pid}, since .* wait for its end"), alone(tmp_path):
            pass
        other.kill()
    with alone(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / ".running").read_text()
    assert not (tmp_path / ".running").exists()


def test_the_lock_of_a_dead_process_that_stayed_is_taken(tmp_path):
    (tmp_path / ".running").write_text("process 1, since long ago\n")
    with alone(tmp_path):
        pass


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("kept")
    (tmp_path / ".running").symlink_to(theirs)
    with pytest.raises(OSError, match="cannot be written"), alone(tmp_path):
        pass
    assert theirs.read_text() == "kept"
