"""A disk that is full; and, of ``make faults``, how many injections of each kind were survived."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

KINDS = {
    "test_files": "files and reports: full disks, limits, killed writers, folders and links of others",
    "test_journal": "journals: damaged lines, full disks, killed writers, two runs at once",
    "test_results": "results: damaged, foreign, of other forms, with what cannot be",
    "test_runs": "runs: killed, interrupted, without room, without files, with broken flags and studies",
    "test_library": "the library: compilers that die, hang or are asked by many, files that fail",
    "test_make": "make: half-made environments",
}


def pytest_terminal_summary(terminalreporter, config):
    """The table of docs/results.md, where the faults alone were asked for."""
    if [Path(str(asked)).name for asked in config.args] != ["faults"]:
        return
    found = Counter()
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            found[Path(report.nodeid.split("::")[0]).stem, outcome] += 1
    terminalreporter.write_line("| injected into | injections | survived |\n|---|--:|--:|")
    for file, told in KINDS.items():
        each = {outcome: found[file, outcome] for outcome in ("passed", "failed", "error")}
        terminalreporter.write_line(f"| {told} | {sum(each.values())} | {each['passed']} |")


@pytest.fixture
def tiny_disk(tmp_path):
    """A function that gives a folder on a disk of so many KiB: a real one, where this process may mount it."""
    mounted = []

    def make(kib):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        size = ["-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
        try:
            subprocess.run(["mount", *size], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a disk that is full needs the right to mount one")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
