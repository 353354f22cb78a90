"""What README says works, works: its Python is run, its commands and files exist."""

import contextlib
import json
import re
from collections import Counter
from functools import cache

import jax
import numpy as np
import pytest

import adcost
from adcost import TARGETS
from adcost.__main__ import main as adcost_main
from adcost.suite.vocabulary import Case
from analysis import coverage, frame, noise, studies
from analysis.__main__ import main
from analysis.versions import compared, in_brief
from benchmarks import ROOT, peaks
from benchmarks.studies import backprop
from tests.field import modes

README = (ROOT / "README.md").read_text()
H100 = TARGETS["nvidia-h100"]
OF_THE_RUN = jax.__version__ == "0.10.2"  # whose bytes README has
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(word):
    """The one block of Python that holds a word."""
    (found,) = (text for text in BLOCKS if word in text)
    return found


def words(text):
    return [line.split() for line in text.splitlines()]


def test_a_function_is_planned_and_advised_on_as_written():
    names = {}
    with jax.enable_x64(False):
        exec(block("adcost.largest("), names)
    carry = 512 * 256 * 4
    assert names["plan"].arguments == 256 * 256 * 4 + carry
    assert names["plan"].temp > 200 * carry
    assert names["advice"].best.plan.total <= 20 * 2**20 < names["plan"].total
    assert names["hessian"].plan.total <= 2 * 2**20
    assert names["hessian"].chunk < 300


@pytest.mark.skipif(not OF_THE_RUN or H100.unavailable() is not None, reason="another JAX plans other bytes")
def test_the_hessian_of_pairs_is_as_written():
    (said,) = re.findall(r"in one go \((\d+) MiB\), on an H100 within 2 GiB (\d+) columns .*? 700 MiB (\d+)\.", README)
    (case,) = (case for case in modes.SHAPES if case.name.startswith("sum of pair distances"))
    with jax.enable_x64(False):
        f, (r,) = case.make()
        shape = jax.ShapeDtypeStruct(r.shape, "float32")
        whole = adcost.hessian(f, shape)
        parts = [adcost.hessian(f, shape, memory=memory, target="nvidia-h100").chunk for memory in ("2 GiB", "700 MiB")]
    assert whole.chunk == whole.seeds
    assert [round(whole.plan.total / 2**20), *parts] == list(map(int, said))


@pytest.mark.skipif(not OF_THE_RUN or H100.unavailable() is not None, reason="another JAX plans other bytes")
@pytest.mark.parametrize(
    ("example", "needs", "asked"),
    [
        ("navier_stokes", "exponax", ("--target", "nvidia-h100", "--memory", "1 GiB")),
        ("sharded", "jax", ("--target", "nvidia-h100:8x32", "--memory", "16 GiB")),
    ],
)
def test_the_advice_for_an_example_is_as_written(example, needs, asked, capsys):
    pytest.importorskip(needs)
    target, memory = asked[1::2]
    (said,) = re.findall(rf"```text\n(A gradient within {memory} on {target}\n.*?)```", README, re.DOTALL)
    with jax.enable_x64(False), contextlib.chdir(ROOT):
        assert adcost_main(["advise", f"examples/{example}.py:loss", *asked]) == 0
    assert words(capsys.readouterr().out) == words(said)


def test_what_is_sharded_is_planned_and_advised_on_as_written():
    names = {}
    with jax.enable_x64(False):
        exec(block("adcost.mesh("), names)
    sharded = names["sharded"]
    assert sharded.arguments == (24 * 512 * 512 + 1024 * 512) * 4 / 8
    assert sharded.sent > 0
    assert sharded.device_flops * 8 == pytest.approx(sharded.flops, rel=0.02)


def test_the_loops_of_a_function_plan_what_is_said():
    names = {}
    with jax.enable_x64(False):
        exec(block("simulate"), names)
        for name in ("simulate", "small", "tiny"):
            compiled = jax.jit(jax.grad(names[name])).lower(0.1, names["u"]).compile()
            planned = compiled.memory_analysis().temp_size_in_bytes / 2**20
            (said,) = re.findall(rf"`{name}` (?:plans )?(\d+(?:\.\d+)?)", README)
            assert planned == pytest.approx(float(said), rel=0.02)


def test_the_checkpointing_example_runs():
    names = {}
    exec(block("checkpointed_chain"), names)
    assert names["gradient"].shape == (100, 8, 8)


def test_the_advice_is_as_written():
    names = {}
    exec(block("which_mode"), names)
    assert names["advice"].mode == "reverse"


def test_a_method_is_one_function_and_one_line():
    function, line = block("def jax_remat_dots"), block("Method(jax_remat_dots)")
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


REFERENCE = ROOT / "results" / "reference"
RUNS = sorted(REFERENCE.glob("*.json.xz"))
TABLES = [table.strip() for table in re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE)]
OF_WORDS = "| verdict | meaning |"


def named(row):
    return f"{row['quantity']} at {row['at']}" if row["at"] else row["quantity"]


@cache
def said():
    """The committed verdicts on the CPU, by method and quantity; of several workloads the first."""
    rows = json.loads((REFERENCE / "verdicts.json").read_text())
    return {(row["method"], named(row)): row for row in reversed(rows) if row["target"] in ("cpu", "any")}


def interval(row):
    return f"{row['measured']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def test_every_table_is_one_of_a_committed_run():
    committed = [path.read_text() for path in (REFERENCE / "summary.md", *(REFERENCE / "targets").glob("*.md"))]
    sources = "\n".join([*committed, linear_algebra_tables()])
    for table in TABLES:
        assert table in sources or table.startswith(OF_WORDS), table.splitlines()[0]


@pytest.mark.parametrize("tables", sorted((REFERENCE / "targets").glob("*.md")), ids=lambda path: path.stem)
def test_the_tables_across_targets_are_those_of_the_committed_runs(tables, tmp_path):
    (run,) = tables.parent.glob(f"{tables.stem}.json*")
    assert main([str(run), "-o", str(tmp_path)]) == 0
    written = (tmp_path / "summary.md").read_text()
    for table in tables.read_text().strip().split("\n\n"):
        assert table in written


def test_the_committed_run_of_asv_says_what_changed(tmp_path):
    assert main([str(REFERENCE / "versions"), "-o", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text()
    assert "What changed between JAX versions" in page
    versions, rows = compared(frame.read([REFERENCE / "versions"]))
    for line in in_brief(versions, rows):
        assert line in page
        assert line in README


QUOTED = [
    ("sqrt", "time / vanilla at n=1024"),
    ("sqrt", "time / vanilla / the law's at n from 36"),
    ("fresh", "seconds a byte of a new buffer, above 32 MiB / below"),
    ("kept_columns", "exponent of backward / forward in n, time"),
    ("rev_rev", "time / fwd_rev at d=512; family=network"),
    ("rev_rev", "time / fwd_rev at d=512; family=cubed"),
    ("fwd_fwd", "time / fwd_rev at d=512; family=network"),
    ("fwd_rev_chunked", "time of V = d probes / d exact products at V=388"),
    ("jacfwd / jacrev", "c in d = c m by time at family=dense"),
    ("jacfwd / jacrev", "c in d = c m by time at family=elementwise"),
    ("jacfwd / jacrev", "c in d = c m by time at family=ode"),
    ("jacfwd / jacrev", "share of cells in which the advice was right"),
    ("estimates", "exponent of the error in V at kind=rademacher"),
    ("estimates", "variance / theory at kind=rademacher"),
    ("estimates", "variance / theory at kind=gaussian"),
    ("estimates", "variance / theory at kind=sphere"),
    ("jax_thin", "exponent of the error in 1 / gap at loss=vectors"),
    ("segments", "best number of segments at network=mlp"),
    ("segments", "best number of segments at network=transformer"),
    ("nothing", "time of a step / plain at network=mlp"),
    ("nothing", "time of a step / plain at network=transformer"),
    ("nothing", "time of a step / plain at network=broadmlp"),
]


def test_the_verdicts_are_counted_as_committed():
    kinds = [row["verdict"] for row in json.loads((REFERENCE / "verdicts.json").read_text())]
    counts = {kind: kinds.count(kind) for kind in ("confirmed", "refuted", "inconclusive", "not measured")}
    words = "Of its {} verdicts {} are confirmed, {} refuted, {} inconclusive and {} not measured."
    assert words.format(len(kinds), *counts.values()) in README


@pytest.mark.parametrize("quoted", QUOTED)
def test_what_is_quoted_is_what_the_committed_run_says(quoted):
    assert interval(said()[quoted]) in README


def test_the_law_with_traffic_is_quoted_as_the_committed_run_has_it():
    rows = json.loads((REFERENCE / "verdicts.json").read_text())
    row = next(row for row in rows if row["claim"] == "work-and-traffic")
    assert f"{interval(row)} of the {row['points']} methods and depths lie within 15% of the law" in README
    alone = re.search(r"By evaluations alone (\d+%) are as near", row["why"])[1]
    assert f"evaluations alone bring {alone} so near" in README
    assert f"(`work-and-traffic`: `{row['verdict']}`" in README


def test_the_rates_of_memory_are_those_of_the_committed_run():
    numbers = frame.read(RUNS).frame
    fresh = numbers[(numbers["method"] == "fresh") & (numbers["quantity"] == "time") & (numbers["ruler"] == "clock")]
    seconds = fresh.set_index("mib")["value"]
    large, small = (mib * 2**20 / seconds[mib] / 1e9 for mib in (64, 30))
    assert f"a new buffer of 64 MiB is written at {large:.1f} GB/s, one of 30 MiB at {small:.1f}" in README


SOLVES = ("kept_lu", "jax_solve", "kept_inverse", "factorised_again", "jax_inverse", "jax_lu_factor")
SVDS = (
    ("lecture", "backward / forward (thin)"),
    ("jax_values", "backward / forward (thin)"),
    ("lecture", "backward / forward (values)"),
    ("lecture", "both passes / forward (values)"),
    ("jax_values", "both passes / forward (values)"),
)


def linear_algebra_tables():
    """The tables of solves and SVDs in Markdown."""

    def line(method, quantity, orders):
        found = [said().get((method, f"{quantity} at n={n}")) for n in orders]
        cells = ["" if row is None else interval(row) for row in found]
        return f"| `{method}`{f', {quantity}' if orders[1] == 512 else ''} | " + " | ".join([*cells, due(found[0])])

    def due(row):
        """What is said at the first order: a value, or one side with what flops would give."""
        if row["predicted"] is not None:
            return f"{row['predicted']:.2g}"
        most = row["band_low"] == "-inf"
        bound = f"at {'most' if most else 'least'} {row['band_high' if most else 'band_low']:.2g}"
        return f"{bound} (flops: {row['beside']:.2g})"

    solve = ["| backward / forward | n = 256 | n = 1024 | n = 2048 | predicted at 256 |", "|---|--:|--:|--:|--:|"]
    solve += [line(method, "backward / forward", (256, 1024, 2048)) + " |" for method in SOLVES]
    svd = ["| SVD, nuclear norm | n = 256 | n = 512 | n = 1024 | predicted |", "|---|--:|--:|--:|--:|"]
    svd += [line(method, quantity, (256, 512, 1024)) + " |" for method, quantity in SVDS]
    return "\n".join(solve) + "\n\n" + "\n".join(svd)


def test_the_committed_run_gives_the_committed_verdicts():
    verdicts = studies.verdicts(frame.read(RUNS))
    committed = json.loads((REFERENCE / "verdicts.json").read_text())
    assert [v.verdict for v in verdicts] == [row["verdict"] for row in committed]
    for verdict, row in zip(verdicts, committed, strict=True):
        if row["measured"] is None:
            assert verdict.measured is None
        else:
            assert verdict.measured == pytest.approx(float(row["measured"]), rel=1e-6, nan_ok=True)


def test_what_is_said_of_the_field_is_what_the_committed_run_says():
    rows = [v for v in json.loads((REFERENCE / "verdicts.json").read_text()) if v["claim"] == "mode-field"]
    kinds = [row["verdict"] for row in rows if row["target"] != "nvidia-h100"]
    counts = (kinds.count(kind) for kind in ("confirmed", "refuted", "inconclusive"))
    assert "the advice was confirmed for {},\n  refuted for {} and inconclusive for {}".format(*counts) in README
    (smallest,) = (row for row in rows if row["at"] == "program=smallest")
    (gather,) = (row for row in rows if row["at"] == "program=gather")
    assert f"{interval(smallest)} of the time of forward mode, a gather {interval(gather)}" in README


DOCS = (ROOT / "docs" / "verdicts.md").read_text()
ADVICE = (ROOT / "docs" / "advice.md").read_text()


def test_the_page_on_advice_says_what_the_committed_run_says():
    tables = re.findall(r"(?:^\|.*\n?)+", ADVICE, re.MULTILINE)
    assert len(tables) == 2
    summary = (REFERENCE / "summary.md").read_text()
    for table in tables:
        assert table.strip() in summary
    (slower,) = re.findall(r"adaptive solver takes (\S+ \[.*?\])", ADVICE)
    assert f"| {slower} | " in next(line for line in tables[0].splitlines() if line.startswith("| adaptive, 75%"))
    rows = [v for v in json.loads((REFERENCE / "verdicts.json").read_text()) if v["study"] == "advice"]

    def of(claim, method="", target="cpu"):
        return [v for v in rows if v["claim"] == claim and method in v["method"] and v["target"] == target]

    apart = {v["at"]: v["measured"] for v in of("plan-is-the-peak")}
    beyond = {name: apart.pop(name) for name in ("perceptron", "convolutions")}
    assert f"within {max(apart.values()):.1%} in six of the eight programs" in ADVICE
    assert len(apart) == 6
    for name, value in beyond.items():
        assert f"`{name}` ({value:.1%})" in ADVICE
    assert f"at most {max(beyond.values()):.1%} of plans of 64 MiB or more" in README
    fits, jobs = of("advice-fits")
    (absent,) = of("advice-fits", target="nvidia-h100")
    assert f"in {fits['points']} of 48 cells on the CPU and in {absent['points']} of 48 on the H100" in ADVICE
    assert jobs["measured"] == 0
    for text in (ADVICE, README):
        assert f"{jobs['points']} jobs" in text
        for how in ("by plans alone", "with the clock"):
            (row,) = of("advice-is-best", how)
            assert interval(row) in text
    (clock,) = of("advice-is-best", "with the clock")
    assert f"in {re.search(r'in ([0-9]+) the clock', clock['why'])[1]}\n  the clock cannot tell" in ADVICE
    assert f"at most {max(v['measured'] for v in of('checkpointed-gradients')):.1f} times" in ADVICE
    *alone, law = of("work-predicts-time")
    refuted = sum(v["verdict"] == "refuted" for v in alone)
    assert f"{refuted} of {len(alone)} rows are refuted" in ADVICE
    assert f"{interval(law)} of {law['points']} rows" in " ".join(ADVICE.split())
    assert f"evaluations alone in {re.search(r'alone (.*?) are as near', law['why'])[1]}" in ADVICE


def test_the_page_on_clusters_says_what_its_committed_run_says():
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    tables = [table.strip() for table in re.findall(r"(?:^\|.*\n?)+", page, re.MULTILINE)]
    committed = (REFERENCE / "targets" / "sharded.md").read_text()
    assert sum(table in committed for table in tables) == 3
    seconds = {}
    results = frame.read([REFERENCE / "targets" / "sharded.json.xz"])
    for target, rows in results.frame[results.frame["quantity"] == "compile time"].groupby("target")["value"]:
        seconds[target] = f"| {target} | {len(rows)} | {rows.median():.2f} | {rows.max():.1f} |"
    assert len(seconds) == 9
    for line in seconds.values():
        assert line in page
    found = studies.verdicts(results)
    kinds = Counter((v.claim, v.verdict) for v in found)
    of = {kind: sum(n for (_, verdict), n in kinds.items() if verdict == kind) for kind in ("confirmed", "refuted")}
    said = f"Of {len(found)} verdicts of the run {of['confirmed']} are confirmed, {of['refuted']} refuted and 1 not"
    assert said in page
    for claim, words in (
        ("sharded-activations", "{confirmed} confirmed, {refuted} refuted: in all"),
        ("sharded-slots", "{confirmed} of {all} confirmed, exactly"),
        ("sharded-memory-constant", "{confirmed} confirmed; {refuted} refuted, all on H100s"),
        ("sharded-recompute-gathers", "{refuted} of {all} refuted, for a reason"),
        ("sharded-gathers-shared", "{confirmed} of {all} confirmed, to a thousandth"),
        ("sharded-work", "{confirmed} of {all}."),
        ("sharded-gradients", "{confirmed} of {all}."),
    ):
        each = {verdict: n for (name, verdict), n in kinds.items() if name == claim}
        each = {"refuted": 0, **each, "all": each.get("confirmed", 0) + each.get("refuted", 0)}
        (line,) = (line for line in page.split("\n- ") if f"(`{claim}`" in line.split(":")[0] or f"`{claim}`)" in line)
        assert words.format(**each) in " ".join(line.split()), claim


LINES = (ROOT / "docs" / "lines.md").read_text()
RESIDUALS = sorted((REFERENCE / "residuals").glob("*.json.xz"))


def test_what_the_chain_holds_is_what_the_committed_runs_say():
    (claim,) = (claim for claim in studies.CLAIMS if claim.id == "activations-stored")
    rows = {}
    for path in RESIDUALS:
        for v in studies.verdicts(frame.read([path]), [claim]):
            if v.at == "n=144":
                mark = "" if v.verdict == "confirmed" else " (refuted)"
                rows.setdefault((v.method, f"{v.predicted:.0f}"), []).append(f"{v.measured:.0f}{mark}")
    assert len(rows) == 14
    for (method, predicted), cells in rows.items():
        assert f"| `{method}` | {predicted} | {' | '.join(cells)} |" in LINES


@pytest.mark.skipif(not OF_THE_RUN or H100.unavailable() is not None, reason="of JAX 0.10.2 and two targets")
@pytest.mark.parametrize("program", ["vorticity", "lstm"])
def test_the_rows_of_the_field_are_as_written(program):
    pytest.importorskip("exponax")
    with jax.enable_x64(False):
        for target in ("cpu", "nvidia-h100"):
            assert "\n".join(peaks.peak_lines(program, target)).strip() in LINES


def test_the_rates_of_false_verdicts_are_those_of_the_committed_run():
    assert (REFERENCE / "false_rates.md").read_text().strip() in DOCS


def test_the_coverage_between_runs_is_that_of_the_committed_run(capsys):
    assert coverage.main([str(path) for path in RUNS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    for line in lines:
        assert f"- {line}" in DOCS


def test_the_noise_between_and_within_processes_is_that_of_the_committed_run():
    results = frame.read(RUNS)
    against, spread = noise.against_itself(results.timings), noise.spread(results.frame, results.timings)
    words = " ".join(DOCS.split())
    excluding = f"{against.excluding} exclude 1, where {against.by_chance:.0f} are expected"
    assert f"of {against.sets} ratios of a program to itself {excluding}" in words
    assert f"is {spread.between:.1%} between processes and {spread.within:.1%} between the rounds of one" in words


def test_the_rows_of_the_law_are_those_of_the_committed_run():
    rows = [
        v for v in json.loads((REFERENCE / "verdicts.json").read_text()) if v["claim"].startswith("work-and-traffic")
    ]
    near = {
        (v["claim"], v["at"], v["workload"]): (round(v["measured"] * v["points"]), v["points"])
        for v in rows
        if v["measured"] is not None
    }
    others = {key: near.pop(key) for key in list(near) if "other libraries" in key[1]}
    ((right, of),) = others.values()
    assert f"do not ({right} of {of})" in DOCS
    right, of = map(sum, zip(*near.values(), strict=True))
    assert f"together {right} of {of}" in DOCS
