"""What README says works, works: its Python is run, its commands and files exist."""

import json
import re
from functools import cache

import jax
import numpy as np
import pytest

from analysis import claims, frame
from analysis.__main__ import main
from benchmarks.cases import Case
from benchmarks.environment import ROOT
from benchmarks.studies import backprop

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_checkpointing_example_runs():
    names = {}
    exec(BLOCKS[1], names)
    assert names["gradient"].shape == (100, 8, 8)


def test_the_advice_is_as_written():
    names = {}
    exec(BLOCKS[0], names)
    assert names["advice"].mode == "reverse"


def test_a_method_is_one_function_and_one_line():
    function, line = BLOCKS[2:]
    assert len(line.strip().splitlines()) == 1
    names = dict(vars(backprop))
    names["METHODS"] = dict(backprop.METHODS)
    exec(function, names)
    exec(line, names)
    (added,) = set(names["METHODS"]) - set(backprop.METHODS)
    case = Case("backprop", added, (("depth", 7), ("width", 4), ("batch", 3)), "float64")
    chain = names["METHODS"][added].build(backprop.layer, 7)
    gradient = jax.grad(lambda weights, x: backprop.loss(chain(weights, x)))(*backprop.inputs(case))
    np.testing.assert_allclose(gradient, backprop.reference(case), rtol=1e-10)


@pytest.mark.parametrize("target", re.findall(r"^(?:\w+=\w+ )?make (\w+)", README, re.MULTILINE))
def test_make_knows_the_commands(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_linked_files_exist(path):
    assert (ROOT / path).exists()


def test_the_table_is_that_of_the_committed_run():
    assert (ROOT / "results" / "reference" / "summary.md").read_text().strip() in README


@pytest.mark.parametrize("study", ["backprop", "remat"])
def test_the_tables_across_targets_are_those_of_the_committed_runs(study, tmp_path):
    folder = ROOT / "results" / "reference" / "targets"
    tables = (folder / f"{study}.md").read_text().strip()
    assert all(table in README for table in tables.split("\n\n"))
    assert main([str(folder / f"{study}.json"), "-o", str(tmp_path)]) == 0
    assert tables in (tmp_path / "summary.md").read_text()


QUOTED = [
    ("jacfwd / jacrev", "c in d = c m by time, dense"),
    ("jacfwd / jacrev", "c in d = c m by time, elementwise"),
    ("jacfwd / jacrev", "c in d = c m by time, ode"),
    ("jacfwd / jacrev", "share of cells in which the advice was right"),
    ("rev_rev", "time / fwd_rev at d = 128, network (at least)"),
    ("rev_fwd", "time / fwd_rev at d = 128, network (at least)"),
    ("rev_fwd", "exponent of flops / f in d, network"),
]


def test_what_is_said_of_derivatives_is_that_of_the_committed_run():
    verdicts = claims.verdicts(frame.read([ROOT / "results" / "reference" / "derivatives.json"]))
    rows = {(v.method, v.quantity): v for v in verdicts if v.measured is not None}
    for quoted in QUOTED:
        v = rows[quoted]
        assert f"{v.measured:.2f} [{v.low:.2f}, {v.high:.2f}]" in README, quoted


TRACES = [
    ("estimates", "exponent of the error in V, rademacher"),
    ("estimates", "variance / theory, rademacher"),
    ("estimates", "variance / theory, gaussian"),
    ("estimates", "variance / theory, sphere"),
    ("hutchpp", "error / Hutchinson's at 96 products"),
    ("xtrace", "error / Hutchinson's at 96 products"),
    ("fwd_rev_chunked", "time of V = d = 388 probes / d exact products"),
]


def test_what_is_said_of_traces_is_that_of_the_committed_run():
    verdicts = claims.verdicts(frame.read([ROOT / "results" / "reference" / "trace.json"]))
    rows = {(v.method, v.quantity): v for v in verdicts if v.target == "cpu"}
    for quoted in TRACES:
        v = rows[quoted]
        assert f"{v.measured:.2f} [{v.low:.2f}, {v.high:.2f}]" in README, quoted


SOLVES = ("kept_lu", "jax_solve", "kept_inverse", "factorised_again", "jax_inverse", "jax_lu_factor")
SVDS = (
    ("lecture", "backward / forward (thin)"),
    ("jax_values", "backward / forward (thin)"),
    ("lecture", "backward / forward (values)"),
    ("lecture", "both passes / forward (values)"),
    ("jax_values", "both passes / forward (values)"),
)


@cache
def linear_algebra():
    """The verdicts of the committed run on all cores."""
    verdicts = claims.verdicts(frame.read([ROOT / "results" / "reference" / "linear_algebra.json"]))
    return {(v.method, v.quantity): v for v in verdicts if v.target == "cpu" and v.measured is not None}


def linear_algebra_tables():
    """The tables of solves and SVDs in Markdown."""
    rows = linear_algebra()

    def line(method, quantity, orders):
        found = [rows.get((method, f"{quantity} at n = {n}")) for n in orders]
        cells = ["" if v is None else f"{v.measured:.2f} [{v.low:.2f}, {v.high:.2f}]" for v in found]
        return f"| `{method}`{f', {quantity}' if orders[1] == 512 else ''} | " + " | ".join(
            [*cells, f"{found[0].predicted:.2g}"]
        )

    solve = ["| backward / forward | n = 256 | n = 1024 | n = 2048 | predicted at 256 |", "|---|--:|--:|--:|--:|"]
    solve += [line(method, "backward / forward", (256, 1024, 2048)) + " |" for method in SOLVES]
    svd = ["| SVD, nuclear norm | n = 256 | n = 512 | n = 1024 | predicted |", "|---|--:|--:|--:|--:|"]
    svd += [line(method, quantity, (256, 512, 1024)) + " |" for method, quantity in SVDS]
    return "\n".join(solve) + "\n\n" + "\n".join(svd)


def test_the_tables_of_solves_and_svds_are_those_of_the_committed_run():
    for table in linear_algebra_tables().split("\n\n"):
        assert table in README
    gap = linear_algebra()["jax_thin", "exponent of the error in 1 / gap, vectors"]
    assert f"{gap.measured:.2f} [{gap.low:.2f}, {gap.high:.2f}]" in README


def test_the_committed_run_gives_the_committed_verdicts():
    reference = ROOT / "results" / "reference"
    verdicts = claims.verdicts(frame.read([reference / "latest.json"]))
    committed = json.loads((reference / "verdicts.json").read_text())
    assert [v.verdict for v in verdicts] == [row["verdict"] for row in committed]
    for verdict, row in zip(verdicts, committed, strict=True):
        assert verdict.measured == pytest.approx(row["measured"], rel=1e-6)
