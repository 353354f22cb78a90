"""Claims about what holds the memory: what confirms them, that each can fail; the figures of the study."""

import json
from dataclasses import asdict

import pytest

from adcost.suite.record import Record
from adcost.suite.vocabulary import Case, Number, described
from analysis import frame, report, studies
from analysis.lines import Row
from analysis.studies.residuals.figures import across
from analysis.studies.residuals.readings import predicted
from analysis.view import views
from benchmarks import all_studies

UNIT, N = 2**17, 64
HERE = "layers.py:7 (layer)"


def record(method, held, told=1.0, lined=1.0, target="cpu", study="residuals", over_time=()):
    """A case whose rows hold so many activations."""
    numbers = [
        Number("count", "any", "activation", "B", UNIT),
        Number("compiler", target, "temp", "B", sum(size for size, *_ in held) * UNIT),
        Number("lines", target, "told / plan", "1", told),
        Number("lines", target, "with a line", "1", lined),
        *(
            Number(
                "lines",
                target,
                "held",
                "B",
                float(size * UNIT),
                at=(("row", i),),
                flags=(what, HERE, *(shape or ["f32[2]"]), "tanh"),
            )
            for i, (size, what, *shape) in enumerate(held)
        ),
        *(Number("lines", target, "alive", "B", value * UNIT, at=(("time", i),)) for i, value in enumerate(over_time)),
    ]
    if method == "sqrt":
        numbers.append(Number("count", "any", "slots", "activations", 15.0))
    case = Case(study, method, (("depth", N), ("width", 32), ("batch", 1024)))
    return asdict(Record(case, target, tuple(numbers), (), (), (), (), 1))


def results(tmp_path, *records, jax="0.10.2"):
    path = tmp_path / f"{jax}.json"
    told = described(all_studies().values())
    environment = {"machine": "m", "commit": "c", "jax": jax}
    path.write_text(json.dumps({"environment": environment, "studies": told, "records": records}))
    return path


def verdicts(claim, *paths):
    (tested,) = (known for known in studies.CLAIMS if known.id == claim)
    return {(v.method, v.quantity): v for v in studies.verdicts(frame.read(paths), [tested])}


RESIDUAL = "residual of a loop"


@pytest.mark.parametrize(
    ("shape", "each"),
    [("f32[2]", 24.0), ("3 x f32[2]", 8.0), ("4 steps of f32[2]", 6.0), ("2 x 3 slots of f32[2]", 4.0), ("", 24.0)],
)
def test_what_one_value_of_a_row_takes(shape, each):
    assert Row(24.0, RESIDUAL, HERE, shape, "tanh").each == each


def test_small_values_are_no_activations(tmp_path):
    slices = (9, "value", f"{18 * 16} x f32[2]")
    found = verdicts("activations-stored", results(tmp_path, record("vanilla", [(64, RESIDUAL), slices])))
    assert found["vanilla", "activations held at the peak"].measured == 64


@pytest.mark.parametrize(("held", "verdict"), [(64, "confirmed"), (66, "confirmed"), (128, "refuted"), (32, "refuted")])
def test_vanilla_stores_all_activations_and_few_besides(tmp_path, held, verdict):
    found = verdicts("activations-stored", results(tmp_path, record("vanilla", [(held, RESIDUAL), (40, "output")])))
    row = found["vanilla", "activations held at the peak"]
    assert (row.verdict, row.predicted, row.measured) == (verdict, N, held)
    assert f"{held} {RESIDUAL}, {HERE}: tanh" in row.why
    assert ("derivative reads" in row.why) == (held == 128)


@pytest.mark.parametrize(("held", "verdict"), [(14, "confirmed"), (23, "refuted")])
def test_a_schedule_stores_its_slots(tmp_path, held, verdict):
    found = verdicts("activations-stored", results(tmp_path, record("sqrt", [(held, "slots of a schedule")])))
    row = found["sqrt", "activations held at the peak"]
    assert row.verdict == verdict
    assert "derivative reads" not in row.why  # which would explain no schedule


def test_every_method_has_a_prediction(tmp_path):
    study = all_studies()["residuals"]
    records = [record(name, [(1, "value")]) for name in study.methods]
    (view,) = views(frame.read([results(tmp_path, *records)]))
    scheduled = {name for name, method in study.methods.items() if method.schedule is not None}
    assert {*predicted(view, N)} | scheduled == {*study.methods}


@pytest.mark.parametrize(("told", "lined", "kinds"), [
    (1.0, 0.97, ["confirmed", "confirmed"]),
    (0.97, 0.97, ["refuted", "confirmed"]),
    (1.03, 0.9, ["refuted", "refuted"]),
])  # fmt: skip
def test_the_worst_program_of_any_study_decides_about_lines(tmp_path, told, lined, kinds):
    good = record("vanilla", [(64, RESIDUAL)], study="backprop")
    worst = record("forward", [(64, "value")], told, lined, study="backprop")
    found = verdicts("lines-are-the-plan", results(tmp_path, good, worst))
    assert [row.verdict for row in found.values()] == kinds
    if kinds == ["refuted", "refuted"]:
        assert {row.method for row in found.values()} == {"forward"}


def test_of_a_tpu_nothing_is_claimed(tmp_path):
    told = record("vanilla", [(64, RESIDUAL)], 0.5, 0.5, target="tpu-v5e")
    assert not verdicts("lines-are-the-plan", results(tmp_path, told))


def test_versions_of_jax_stand_beside_each_other_in_one_picture(tmp_path):
    older = results(
        tmp_path, record("vanilla", [(192, RESIDUAL)]), record("remat_unrolled", [(70, "value")], over_time=[0, 70, 9])
    )
    newer = results(tmp_path, record("vanilla", [(128, RESIDUAL)]), jax="0.12.0.1")
    found = frame.read([older, newer])
    (group,) = [group for group in report._alike(views(found)) if len(group) == 2]
    held, over_time, table = across(group)
    assert (held.name, over_time.name) == ("held", "over_time")
    assert [ax.get_title(loc="left") for ax in held.figure.axes] == ["cpu, JAX 0.10.2", "cpu, JAX 0.12.0.1"]
    assert {row[0] for row in table.rows} == {"cpu, JAX 0.10.2", "cpu, JAX 0.12.0.1"}
    assert any("192 residual of a loop" in row[2] for row in table.rows)
