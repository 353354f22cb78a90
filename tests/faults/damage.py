"""Results to be damaged, and what happens to files where there is no room."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

from adcost.suite.record import Record
from adcost.suite.vocabulary import Case, Missing, Number
from benchmarks import ROOT

TOYS = ROOT / "tests" / "toy_studies"


def record(method="vanilla", depth=4):
    case = Case("backprop", method, (("depth", depth), ("width", 32), ("batch", 1024)))
    numbers = (
        Number("clock", "cpu", "time", "s", 2.0, 1.0, 3.0, 30),
        Number("compiler", "cpu", "temp", "B", 4096.0),
        Number("check", "cpu", "gradient error", "1", 1e-7),
    )
    gaps = (Missing("process", "cpu", "the sampler of memory ended"),)
    return Record(case, "cpu", numbers, gaps, samples=((1.0, 2.0, 3.0),), again=((1.0, 2.0, 3.0),), seeds=(7,))


def content():
    """A result with two records, as JSON has it."""
    environment = {"jax": "0.10.2", "python": "3.11", "commit": "abc", "cpu": "a cpu", "cores": 2}
    records = [asdict(record(method)) for method in ("vanilla", "sqrt")]
    return json.loads(json.dumps({"schema": 1, "environment": environment, "records": records}))


def run(*command, shell_limit="", **environment):
    """A command in the project's root, in a shell with a limit if there is one."""
    words = [sys.executable, *map(str, command)]
    if shell_limit:
        words = ["bash", "-c", f'ulimit {shell_limit}; exec "$@"', "bash", *words]
    beside = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    return subprocess.run(words, cwd=ROOT, env=beside, capture_output=True, text=True, errors="replace", timeout=120)


def toys(folder, **environment):
    """The environment of a run of the toys, whose journals lie in a folder."""
    own = {"STUDIES_PATH": TOYS, "TOY_FLAG": folder / "flag", "STUDY": "toy", "TARGETS": "cpu", "PROFILE": "quick"}
    return {**own, "JOURNALS": folder / "journals", **environment}
