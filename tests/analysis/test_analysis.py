"""The analysis, on synthetic data whose truth is known: right and wrong exponents, right and wrong ratios."""

import json
import lzma
import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from asv import results as asv_results
from asv.runner import BenchmarkResult

from adcost.suite.vocabulary import described
from adcost.targets import ANY
from analysis import devices, fit, frame, law, memory, report, studies, style, theory
from analysis.__main__ import main
from analysis.frame import Results
from analysis.studies.backprop import animation
from analysis.studies.remat import readings
from analysis.verdict import judge
from analysis.versions import compared, in_brief
from analysis.view import View, views
from benchmarks import ROOT, all_studies

DEPTHS = (4, 8, 16, 25, 36, 64, 100, 144, 256, 1024)
ORIGIN = {"dtype": "float32", "source": "synthetic", "commit": "0", "jax": "0", "machine": "none"}
TOLD = described(all_studies().values())
UNIT = 2**27  # bytes: much more than the process ruler resolves


def synthetic(temp=None, ratio=None, evaluations=None, executed=None, missing=()):
    """A run in which everything is as predicted, but for what is passed."""
    temps = {"vanilla": lambda n: 3 * n + 3, "store_all": lambda n: n + 4, "sqrt": lambda n: 2 * np.sqrt(n) + 4}
    temps |= {
        "memory_poor": lambda n: 5,
        "binomial_3": lambda n: 7,
        "binomial_10": lambda n: 14,
        "binomial_sqrt": lambda n: 14,
    }
    temps |= temp or {}
    counts = {"vanilla": lambda n: n, "store_all": lambda n: n, "sqrt": theory.sqrt_evaluations}
    counts |= {"memory_poor": theory.memory_poor_evaluations}
    slots = {"binomial_3": 3, "binomial_10": 10, "binomial_sqrt": 10}
    counts |= {name: lambda n, s=s: theory.optimal_evaluations(n, s) for name, s in slots.items()}
    counts |= evaluations or {}
    b = 2.0
    rows, timings = [], []
    for method, stored in temps.items():
        for n in DEPTHS:
            case = {"study": "backprop", "method": method, "depth": n, "width": 32, "batch": 1024, "dtype": "float32"}

            def number(ruler, quantity, value, low=None, high=None, case=case, flags=()):
                target = ANY if ruler == "count" else "cpu"
                fields = {
                    "ruler": ruler,
                    "target": target,
                    "quantity": quantity,
                    "unit": "",
                    "value": value,
                    "low": low,
                }
                processes = 5 if ruler == "clock" else None
                rows.append(
                    {**case, **fields, "high": high, "repeats": 1, "processes": processes, "flags": flags, **ORIGIN}
                )

            number("count", "activation", UNIT)
            number("count", "evaluations", counts[method](n), flags=("trip counts from the schedule",))
            if n in (16, 144, 1024):
                number("count", "executed evaluations", (executed or counts)[method](n))
            if method in slots:
                number("count", "slots", slots[method])
            number("compiler", "temp", stored(n) * UNIT)
            number("compiler", "outputs", 0)
            number("process", "peak", stored(n) * UNIT)
            number("clock", "time", n * 1e-4, n * 0.99e-4, n * 1.01e-4)
            law = theory.time_ratio(counts[method](n), n, b) * (ratio or 1.0)
            for baseline in ("vanilla", "store_all"):
                if method == baseline:
                    number("clock", "time / forward", 1 + b, 1 + b, 1 + b)
                else:
                    number("clock", f"time / {baseline}", law, law * 0.99, law * 1.01)
    rng = np.random.default_rng(0)
    for n in DEPTHS:
        first, second = (tuple(map(tuple, np.exp(0.01 * rng.standard_normal((5, 8))))) for _ in range(2))
        case = {"study": "backprop", "target": "cpu", "depth": n, "width": 32, "batch": 1024, **ORIGIN}
        timings.append({**case, "method": "vanilla", "samples": first, "again": second, "seeds": ()})
    return Results(frame._frame(rows), pd.DataFrame(list(missing)), pd.DataFrame(timings), {}, TOLD)


def kinds(results, claim):
    return {(v.method, v.quantity, v.ruler): v.verdict for v in studies.verdicts(results) if v.claim == claim}


@pytest.mark.parametrize(("p", "a"), [(0.5, 0.0), (0.5, 20.0), (1.0, 5.0), (1.0, 500.0), (2.0, 1.0), (0.333, 3.0)])
def test_an_exponent_is_found_under_a_fixed_cost(p, a):
    n = np.array(DEPTHS)
    fitted = fit.exponent(n, a + 3 * n**p)
    assert fitted.low - 1e-3 <= p <= fitted.high + 1e-3
    assert fitted.high - fitted.low < 0.02


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_the_interval_of_a_noisy_exponent_covers_it(p):
    rng = np.random.default_rng(1)
    n = np.array(DEPTHS)
    trials = 40
    covered = 0
    for _ in range(trials):
        fitted = fit.exponent(n, (5 + 3 * n**p) * np.exp(0.02 * rng.standard_normal(len(n))))
        covered += fitted.low <= p <= fitted.high
    assert covered / trials >= 0.88  # 0.95 less two standard errors of the trials


def test_growth_below_the_resolution_is_no_growth():
    fitted = fit.exponent(DEPTHS, [5 + 0.0001 * n for n in DEPTHS], resolution=0.5)
    assert fitted.value == 0.0
    assert -fitted.low == fitted.high
    assert 0 < fitted.high < 0.02


def test_seven_sizes_are_too_few():
    with pytest.raises(ValueError, match="an exponent needs 8 sizes, there are 7"):
        fit.exponent(DEPTHS[:7], DEPTHS[:7])


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.95, 1.05, "confirmed"),
        (1.2, 1.3, "refuted"),
        (0.5, 0.8, "refuted"),
        (0.8, 1.0, "inconclusive"),
        (0, 9, "inconclusive"),
    ],
)
def test_a_verdict_comes_from_the_interval_against_the_band(low, high, verdict):
    assert judge(0.9, 1.1, (low + high) / 2, low, high) == verdict


def test_a_run_as_predicted_confirms_everything():
    found = studies.verdicts(synthetic())
    few = {"work-and-traffic", "allocator-break"}  # too few rows for a share to be known, all above 32 MiB
    assert {v.verdict for v in found if v.claim not in few} == {"confirmed"}
    mine = {claim.id for claim in studies.CLAIMS if claim.study == "backprop"}
    assert {v.claim for v in found} == {name for name in mine if not name.startswith("published")}


@pytest.mark.parametrize(
    ("claim", "method", "wrong"),
    [
        ("vanilla-memory-linear", "vanilla", lambda n: n**1.5),
        ("memory-poor-constant-memory", "memory_poor", lambda n: 5 + n),
        ("sqrt-memory", "sqrt", lambda n: n / 2 + 4),
        ("sqrt-memory", "sqrt", lambda n: np.log(n) + 40),
    ],
)
def test_a_wrong_exponent_is_refuted(claim, method, wrong):
    found = kinds(synthetic(temp={method: wrong}), claim)
    assert found[method, "exponent of temp in n", "compiler"] == "refuted"


def test_one_evaluation_too_many_refutes_an_exact_claim():
    results = synthetic(evaluations={"binomial_3": lambda n: theory.optimal_evaluations(n, 3) + (n == 64)})
    (verdict,) = [
        v for v in studies.verdicts(results) if v.method == "binomial_3" and v.ruler == "count" and "optimal" in v.claim
    ]
    assert (verdict.verdict, verdict.named) == ("refuted", "evaluations at n=64")


def test_a_program_that_does_not_run_its_schedule_refutes_the_count_and_the_animation():
    counts = {name: lambda n: 1 for name in ("vanilla", "store_all", "sqrt", "memory_poor", "binomial_3")}
    results = synthetic(executed={**counts, "binomial_10": lambda n: 1, "binomial_sqrt": lambda n: 1})
    found = [v for v in studies.verdicts(results) if v.ruler == "count"]
    assert {v.verdict for v in found} == {"refuted"}
    assert {v.measured for v in found} == {1.0}


def test_a_count_that_only_repeats_the_schedule_is_no_measurement():
    results = synthetic()
    frame = results.frame[results.frame["quantity"] != "executed evaluations"]
    found = [v for v in studies.verdicts(replace(results, frame=frame)) if v.ruler == "count"]
    assert {v.verdict for v in found} == {"not measured"}


def test_results_of_two_origins_are_not_mixed():
    first, second = synthetic(), synthetic(temp={"vanilla": lambda n: n**1.5})
    for table in (second.frame, second.timings):
        table["jax"] = "1"
    both = Results(
        pd.concat([first.frame, second.frame]), first.missing, pd.concat([first.timings, second.timings]), {}, TOLD
    )
    rows = [v for v in studies.verdicts(both) if v.quantity == "exponent of temp in n" and v.method == "vanilla"]
    assert [v.verdict for v in rows] == ["confirmed", "refuted"]
    assert [v.workload.split(", ")[-1] for v in rows] == ["jax 0", "jax 1"]
    assert {len(view.timings) for view in views(both)} == {len(first.timings)}


def test_a_disagreement_of_rulers_is_named():
    why = memory._why_apart
    assert why(100e6, 100e6, 100e6, 100e6) == ""
    assert "memory-profiler is above the kernel's own mark: unexplained" in why(100e6, 100e6, 100e6, 110e6)
    assert "+9.5 MiB beside the plan: unexplained" in why(100e6, 110e6, 110e6, 110e6)
    assert "the first call takes 9.5 MiB more" in why(100e6, 100e6, 110e6, 110e6)
    assert "shorter than its interval" in why(100e6, 100e6, 100e6, 90e6)


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.0, "confirmed"), (0.5, "refuted"), (2.0, "refuted"), (1.1, "inconclusive")]
)
def test_the_law_of_time(ratio, verdict):
    assert kinds(synthetic(ratio=ratio), "sqrt-time")["sqrt", "time / store_all", "clock"] == verdict


def test_one_process_alone_decides_no_ratio_of_times():
    alone = synthetic()
    alone.frame["processes"] = 1
    found = kinds(alone, "sqrt-time")
    assert {found["sqrt", f"time / {name}", "clock"] for name in ("vanilla", "store_all")} == {"inconclusive"}


def test_a_method_that_was_not_measured_says_why():
    gap = {
        **ORIGIN,
        "study": "backprop",
        "method": "sqrt",
        "depth": 4,
        "width": 32,
        "batch": 1024,
        "ruler": "clock",
        "target": "cpu",
        "reason": "was killed",
    }
    results = synthetic(missing=[gap])
    kept = results.frame[results.frame["method"] != "sqrt"]
    found = [
        v for v in studies.verdicts(Results(kept, results.missing, results.timings, {}, TOLD)) if v.method == "sqrt"
    ]
    assert {v.verdict for v in found} == {"not measured"}
    assert {v.why for v in found if v.ruler == "clock"} == {"sqrt: was killed."}
    assert {v.why for v in found if v.ruler != "clock"} == {"No result that was read holds this number."}


def test_it_saved_nothing_is_seen():
    results = synthetic(temp={"sqrt": lambda n: 3 * n + 2})
    ((method, n, temp, plain, least),) = memory.saved_nothing(View(results, "backprop", "cpu"))
    assert (method, n, plain) == ("sqrt", 1024, "vanilla")
    assert temp == pytest.approx(3074)
    assert least == pytest.approx(3075)
    assert memory.saved_nothing(View(synthetic(), "backprop", "cpu")) == []


def test_two_workloads_are_not_mixed():
    first, second = synthetic(), synthetic(temp={"vanilla": lambda n: n**1.5})
    second.frame["width"] = 64
    both = Results(pd.concat([first.frame, second.frame]), first.missing, first.timings, {}, TOLD)
    rows = [v for v in studies.verdicts(both) if v.quantity == "exponent of temp in n" and v.method == "vanilla"]
    assert [v.verdict for v in rows] == ["confirmed", "refuted"]
    assert [v.workload for v in rows] == ["width 32, batch 1024", "width 64, batch 1024"]


def test_the_animation_shows_every_step_of_the_schedule():
    frames = list(animation.frames("memory_poor", 3))
    assert [(f.start, f.advance, f.stored, f.backward) for f in frames] == [
        (0, 3, (0,), 4), (0, 2, (0,), 3), (0, 1, (0,), 2), (0, 0, (0,), 1),
    ]  # fmt: skip
    for method, n in animation.DRAWN:
        assert [f.backward for f in animation.frames(method, n) if f.backward] == list(range(n + 1, 0, -1))


def test_the_report_is_one_file_that_needs_no_network(tmp_path):
    lines = list(report.write(synthetic(), tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert "src=" not in page
    assert "<link" not in page
    assert "@import" not in page
    shown = [claim for claim in studies.CLAIMS if claim.study == "backprop" and "published" not in claim.id]
    for claim in shown:
        assert f'id="claim-{claim.id}"' in page
    for name in ("memory", "evaluations", "time", "frontier", "law"):
        assert f'id="figure-backprop-{name}-width32-batch1024"' in page
    targets = re.findall(r'href="#([^"]+)"', page)
    assert set(targets) <= set(re.findall(r'id="([^"]+)"', page))
    assert len(targets) > 2 * len(shown), "every claim links to its figures"
    assert page.count('<g class="step"') == sum(len(list(animation.frames(*drawn))) for drawn in animation.DRAWN)
    assert "verdicts" in lines[0]


def test_a_picture_is_small_and_its_text_stays_text():
    with style.styled():
        figure, (ax,) = style.panels(1)
        ax.plot([0, 1 / 3], [0, 2 / 3], label="0.123456")
        ax.legend()
    picture = style.svg(figure)
    assert ">0.123456<" in picture
    assert not re.search(r' d="[^"]*\d\.\d{3}', picture)
    assert len(picture) < 12_000


def test_verdicts_are_the_documented_objects(tmp_path):
    list(report.write(synthetic(), tmp_path))
    rows = json.loads((tmp_path / "verdicts.json").read_text())
    fields = """claim study method ruler target dtype workload quantity at predicted beside band_low band_high band_why
        measured low high verdict points processes p adjusted power cause why rule rows"""
    assert all(list(row) == fields.split() for row in rows)
    assert {row["verdict"] for row in rows} <= {"confirmed", "refuted", "inconclusive", "not measured"}


def test_the_frame_has_the_documented_columns():
    identity = ["id", "study", "method", "depth", "width", "batch", "dtype"]
    number = ["ruler", "target", "quantity", "at", "unit", "value", "low", "high", "repeats"]
    levels, origin = ["processes", "between", "within"], ["source", "commit", "jax", "python", "machine"]
    assert list(synthetic().frame.columns) == [*identity, *number, *levels, *origin, "flags"]


FLAT = {  # one list of seconds, of one process
    "case": {"study": "backprop", "method": "sqrt", "params": [["depth", 4]], "dtype": "float32"},
    "numbers": [],
    "missing": [],
    "samples": [0.1, 0.2],
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; make it with `make report`"),
        ("not json", "is no result: pass pytest-benchmark's JSON"),
        ('{"some": "json"}', "is no result: pass pytest-benchmark's JSON"),
        ('{"benchmarks": [], "machine_info": {}}', "holds no case of this suite"),
        (json.dumps({"records": [FLAT], "environment": {}}), "was written before adcost 0.4, in another form; measure"),
    ],
)
def test_bad_input_gets_one_line_that_says_what_to_do(tmp_path, capsys, content, message):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    assert main([str(path), "-o", str(tmp_path / "report")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "report").exists()


@pytest.fixture
def asv_folder(tmp_path):
    """asv's results of three methods at all depths; the newest commit has failed at its largest depth."""
    for date, (commit, last) in enumerate({"0" * 40: 7.0, "1" * 40: None}.items()):
        machine = {"machine": "test", "cpu": "none", "num_cpu": "2"}
        result = asv_results.Results({**machine, "jax": "0.10"}, {}, commit, date, "3.12", "existing", {})
        methods, sizes = ("vanilla", "sqrt"), [f"depth{n}-width32-batch1024-float32" for n in DEPTHS]
        params = [[f"'{word}'" for word in words] for words in (methods, sizes)]
        count = len(methods) * len(sizes)
        activation = 32 * 1024 * 4
        temps = [(3 * n + 3) * activation for n in DEPTHS] + [(2 * n**0.5 + 4) * activation for n in DEPTHS]
        for name, values in {"track_temp": temps, "time_case": [1.0] * count}.items():
            if name == "track_temp":
                values[-1] = last and last * activation
            benchmark = {"name": f"asv_cases.Backprop.{name}", "version": "1", "params": params}
            none = [None] * count
            taken = BenchmarkResult(result=values, samples=none, number=none, errcode=0, stderr="", profile=None)
            result.add_result(benchmark, taken)
        result.save(str(tmp_path / "asv"))
    (tmp_path / "asv" / "test" / "machine.json").write_text(json.dumps({"version": 1, **machine}))
    return tmp_path / "asv"


def test_asv_alone_gives_verdicts_and_says_what_it_cannot_give(asv_folder):
    results = frame.read([asv_folder])
    assert list(results.frame["commit"].unique()) == ["0" * 12, "1" * 12]
    found = [v for v in studies.verdicts(results) if v.workload.endswith("commit 111111111111")]
    exponents = {v.method: v for v in found if v.quantity == "exponent of temp in n"}
    assert (exponents["vanilla"].verdict, exponents["vanilla"].points) == ("confirmed", 10)
    assert exponents["sqrt"].points == 9, "a benchmark that failed is missing"
    (time,) = [v for v in found if v.quantity == "time / vanilla"]
    assert time.verdict == "not measured"
    assert "asv times one program after the other" in time.why
    assert "asv holds no temp" in " ".join(results.missing["reason"])


def test_asv_and_pytest_results_stand_side_by_side(asv_folder, tmp_path, capsys):
    reference = tmp_path / "latest.json"
    everything = json.loads(lzma.decompress((ROOT / "results" / "reference" / "latest.json.xz").read_bytes()))
    mine = [row for row in everything["benchmarks"] if row["extra_info"]["case"]["study"] == "backprop"]
    reference.write_text(json.dumps({**everything, "benchmarks": mine, "more_records": []}))
    assert main([str(asv_folder), str(reference), str(reference), "-o", str(tmp_path / "report")]) == 0
    rows = json.loads((tmp_path / "report" / "verdicts.json").read_text())
    alone = studies.verdicts(frame.read([reference]))
    mixed = [row for row in rows if "width 32" not in row["workload"]]
    assert [row["verdict"] for row in mixed] == [v.verdict for v in alone], "the same file twice is read once"
    assert len(rows) > len(mixed)
    assert "A/A" in capsys.readouterr().out


def compiled_for(results, target, factor=1.0):
    """The compiler's numbers of a run, as another target's compiler would give them."""
    mine = results.frame[results.frame["ruler"] == "compiler"].assign(target=target)
    return mine.assign(value=mine["value"] * factor)


def test_a_compilers_target_has_memory_verdicts_and_no_time():
    results = synthetic()
    both = replace(results, frame=pd.concat([results.frame, compiled_for(results, "nvidia-h100")]))
    found = studies.verdicts(both)
    there = [v for v in found if v.target == "nvidia-h100"]
    assert {v.verdict for v in there if v.ruler == "compiler"} == {"confirmed"}
    assert {v.ruler for v in there} == {"compiler", "clock"}
    assert {v.verdict for v in there if v.ruler == "clock"} == {"not measured"}
    assert all("nvidia-h100 is a compiler here" in v.why for v in there if v.ruler == "clock")
    assert [v for v in found if v.target != "nvidia-h100"] == studies.verdicts(results), "counts are not said twice"


def test_targets_are_laid_side_by_side(tmp_path):
    """At the largest depth that most methods have, and at the largest of all."""
    whole = synthetic()
    short = (whole.frame["method"] == "memory_poor") & (whole.frame["depth"] > 144)
    results = replace(whole, frame=whole.frame[~short])
    both = replace(results, frame=pd.concat([results.frame, compiled_for(results, "nvidia-h100", 0.5)]))
    rows = {(row.method, row.depth): row for row in devices.by_target(views(both))}
    assert {depth for _, depth in rows} == {144, 1024}
    assert rows["vanilla", 144].planned == pytest.approx((435, 217.5))
    list(report.write(both, tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert "nvidia-h100 is a compiler here, not a device" in page
    assert "Planned memory by target, in activations" in page


@pytest.mark.parametrize(
    ("left", "planned", "survived", "saved", "words"),
    [
        (
            56,
            30.0,
            True,
            True,
            "All 56 recomputed products are executed, and memory falls: 30.0 activations against 100.0.",
        ),
        (56, 101.0, True, False, "All 56 recomputed products are executed, and nothing is saved"),
        (0, 100.0, False, False, "None of the 56 recomputed products is left"),
        (20, 90.0, False, True, "20 of the 56 recomputed products are left, and memory falls"),
    ],
)
def test_what_became_of_a_recomputation(left, planned, survived, saved, words):
    cell = readings.Cell("scan, barriers on", "cpu", 64, 56, left, planned, 100.0)
    assert (cell.survived, cell.saved) == (survived, saved)
    assert words in cell.why


def test_what_changed_between_versions_is_named_only_beyond_noise():
    frames = []
    for jax, temp, time in (
        ("0.6.2", 2.0, (1.0, 0.9, 1.1)),
        ("0.8.3", 2.0, (1.1, 1.0, 1.2)),
        ("0.10.2", 1.0, (0.5, 0.4, 0.6)),
    ):
        case = {"study": "backprop", "method": "sqrt", "depth": 144, "width": 32, "batch": 1024, **ORIGIN, "jax": jax}
        temps = {"ruler": "compiler", "quantity": "temp", "value": temp, "low": None, "high": None}
        times = dict(zip(("value", "low", "high"), time, strict=True), ruler="clock", quantity="time")
        frames += [
            {**case, "target": "cpu", "unit": "bytes", "flags": ("asv",), "repeats": 1, **row} for row in (temps, times)
        ]
    versions, rows = compared(Results(frame._frame(frames), pd.DataFrame(), pd.DataFrame(), {}))
    assert versions == ["0.6.2", "0.8.3", "0.10.2"]
    changes = {row.quantity: row.changes for row in rows}
    assert changes == {"temp": "0.8.3 to 0.10.2: -50%", "time": "0.8.3 to 0.10.2: -55%"}
    assert rows[0].quantity == "temp", "an exact change comes first"
    assert in_brief(versions, rows) == [
        "JAX 0.6.2 to 0.8.3: 0 of 1 planned memories changed.",
        "JAX 0.8.3 to 0.10.2: 1 of 1 planned memories changed (bytes): backprop sqrt 2.0 to 1.0.",
    ]


def test_parameters_stand_as_their_study_has_them_whatever_is_read_before():
    orders = [("program", "steps"), ("depth", "width"), ("network", "depth", "steps")]
    for first in permutations(orders):
        found = frame._in_every_order(first)
        assert sorted(found) == ["depth", "network", "program", "steps", "width"]
        for names in orders:
            assert [name for name in found if name in names] == list(names)
    assert frame._in_every_order([("a", "b"), ("b", "a")]) == ["a", "b"]


def test_numbers_are_written_for_people():
    assert [report.number(x) for x in (None, 3.0, 12580.0, 0.51234, float("inf"))] == [
        "",
        "3",
        "12\u202f580",
        "0.5123",
        "∞",
    ]


@pytest.mark.parametrize(("omega", "off", "share"), [(0.0, 1.0, 1.0), (0.4, 1.0, 1.0), (0.4, 1.4, 0.7)])
def test_the_law_with_traffic(omega, off, share):
    """Times made of work and of memory that is not written: one method gives omega, and the rest are foretold."""
    results = synthetic()
    table, b = results.frame, 2.0
    temps = table[(table["quantity"] == "temp")].set_index(["method", "depth"])["value"]
    counts = table[(table["quantity"] == "evaluations")].set_index(["method", "depth"])["value"]
    for i, row in table[table["quantity"] == "time / vanilla"].iterrows():
        method, n = row["method"], row["depth"]
        stored = temps[method, n] / temps["vanilla", n]
        time = theory.time_ratio(counts[method, n], n, b) - omega * (1 - stored)
        table.loc[i, "value"] = time * (off if method in ("sqrt", "memory_poor") else 1.0)
    (found,) = (v for v in studies.verdicts(results) if v.claim == "work-and-traffic")
    assert found.measured == pytest.approx(share, abs=0.1)
    assert found.low < found.measured <= 1.0
    assert (found.verdict == "refuted") == (share < 0.9)


@pytest.mark.parametrize(("off", "known"), [(1.0, "measured"), (1.1, "measured"), (1.3, "likely")])
def test_a_cause_is_measured_only_where_its_own_law_is_met(off, known):
    rows = [law.Row("sqrt", n, 0.8, 1.2, 0.8 * off, 0.5) for n in (64, 100)]
    assert law.cause(rows, "sqrt").known == known
    assert law.cause(rows, "another").known == "likely"
