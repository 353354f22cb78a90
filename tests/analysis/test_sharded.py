"""Claims about clusters: what confirms them and that each can fail; the figures of the study."""

import json
from dataclasses import asdict

import pytest

from adcost.suite.record import Record
from adcost.suite.vocabulary import Case, Number, described
from analysis import frame, studies
from analysis.studies.sharded.figures import across
from analysis.style import Drawn, Table
from analysis.view import views
from benchmarks import all_studies

CARRY, WEIGHTS = 2**24, 2**22  # bytes, on all devices together
AXES = {
    "cpu": (1, 1),
    "cpu:8": (2, 4),
    "nvidia-h100": (1, 1),
    "nvidia-h100:8x32": (64, 4),
    "tpu-v5e": (1, 1),
    "tpu-v5e:16x16": (64, 4),
}
SLOTS = {"sqrt": 4, "binomial": 4}
PASSES = {"plain": 1.0, "keep_nothing": 2.0, "sqrt": 2.75, "binomial": 2.875}


def record(method, target="cpu:8", layout="both", depth=8, rounding=1e-7, **other):
    """A case as it is predicted to be, but for the numbers that are given by name."""
    data, model = AXES[target]
    if layout == "full":
        data, model = data * model, 1
    devices = data * model
    shares = data if layout in ("data", "full", "tensor") else devices
    kept = {
        "residual of a loop": 2.0 * depth * CARRY / shares if method == "plain" else None,
        "slots of a schedule": (SLOTS[method] - 1) * CARRY / shares if method in SLOTS else None,
    }
    rest = (SLOTS.get(method, 1) - 1 + 3.0) * CARRY / shares
    due = {
        ("compiler", "temp", "B"): rest,
        ("compiler", "total", "B"): rest + 1,
        ("compiler", "arguments", "B"): 1.0,
        ("compiler", "outputs", "B"): 0.0,
        ("collectives", "flops", "flop"): 1e9 * depth / devices,
        ("collectives", "data axis", "devices"): float(data),
        ("collectives", "model axis", "devices"): float(model) if layout in ("tensor", "both") else None,
        ("collectives", "sent", "B"): 3.0 * WEIGHTS if devices > 1 else None,
        ("collectives", "all-gather", "B"): max(PASSES[method], 2.0) * WEIGHTS if devices > 1 else None,
        ("collectives", "all-reduce", "B"): 1.0 * WEIGHTS if devices > 1 else None,
        ("told", "activation", "B"): float(CARRY),
        ("told", "weights", "B"): float(WEIGHTS),
        ("told", "slots besides the input", "carries"): SLOTS[method] - 1.0 if method in SLOTS else None,
        ("check", "gradient error", "1"): rounding if target.startswith("cpu") else None,
        ("estimate", "loss apart", "1"): rounding if target == "cpu:8" else None,
        **{("lines", what, "B"): size for what, size in kept.items()},
    }
    numbers = [
        Number(ruler, target, quantity, unit, other.get(quantity.replace(" ", "_").replace("-", "_"), value))
        for (ruler, quantity, unit), value in due.items()
        if value is not None
    ]
    numbers.append(Number("count", "any", "evaluations", "evaluations", PASSES[method] * depth))
    params = {"network": "mlp", "layout": layout, "depth": depth, "width": 64, "packs": 1}
    return Record(Case("sharded", method, tuple(params.items())), target, tuple(numbers))


def read(tmp_path, *records):
    path = tmp_path / "results.json"
    environment = {"machine": "m", "commit": "c", "jax": "1"}
    told = described(all_studies().values())
    content = {"environment": environment, "studies": told, "records": [asdict(one) for one in records]}
    path.write_text(json.dumps(content))
    return frame.read([path])


def verdicts(tmp_path, claim, *records):
    (tested,) = (known for known in studies.CLAIMS if known.id == claim)
    return studies.verdicts(read(tmp_path, *records), [tested])


def both(method, layout="both", target="cpu:8", **other):
    """On one device, as predicted, and on a cluster."""
    alone = target.partition(":")[0]
    return [record(method, alone, layout), record(method, target, layout, **other)]


@pytest.mark.parametrize("target", ["cpu:8", "nvidia-h100:8x32"])
@pytest.mark.parametrize(
    ("claim", "method", "layout", "wrong"),
    [
        ("sharded-activations", "plain", "both", {"residual_of_a_loop": 2.0**24}),
        ("sharded-activations", "plain", "data", {"residual_of_a_loop": 2.0**24}),
        ("sharded-slots", "sqrt", "both", {"slots_of_a_schedule": 3.0 * CARRY}),  # each device has all of a carry
        ("sharded-slots", "binomial", "full", {"slots_of_a_schedule": 2.0 * CARRY}),
        ("sharded-gathers-shared", "keep_nothing", "full", {"all_gather": 3.0 * WEIGHTS}),
        ("sharded-gathers-shared", "sqrt", "full", {"all_gather": 3.75 * WEIGHTS}),
        ("sharded-work", "plain", "tensor", {"flops": 8e9}),
    ],
)
def test_what_confirms_a_claim_and_what_refutes_it(tmp_path, claim, method, layout, wrong, target):
    for records, verdict in (
        (both(method, layout, target), "confirmed"),
        (both(method, layout, target, **wrong), "refuted"),
    ):
        assert {one.verdict for one in verdicts(tmp_path, claim, *records) if one.method == method} == {verdict}


def test_of_all_depths_the_one_farthest_from_its_prediction_is_shown(tmp_path):
    found = verdicts(
        tmp_path,
        "sharded-activations",
        *both("plain"),
        *(record("plain", target, depth=16, residual_of_a_loop=7.0 * CARRY) for target in ("cpu", "cpu:8")),
    )
    (one,) = (one for one in found if one.target == "cpu:8")
    assert (one.at, one.verdict, one.points) == ("network=mlp; layout=both; n=16", "refuted", 2)
    assert one.measured == 8.0


def test_a_recomputation_that_gathers_nothing_more_refutes_what_was_said_first(tmp_path):
    records = [*both("plain", "full"), *both("keep_nothing", "full")]
    found = {one.method: one for one in verdicts(tmp_path, "sharded-recompute-gathers", *records)}
    assert (found["plain"].verdict, found["plain"].predicted) == ("confirmed", 2.0)
    assert (found["keep_nothing"].verdict, found["keep_nothing"].predicted) == ("refuted", 3.0)
    assert found["keep_nothing"].cause == "measured"


def test_a_tpu_that_gathers_by_sums_gathers_as_much(tmp_path):
    by_sums = both("sqrt", "full", "tpu-v5e:16x16", all_gather=0.0, all_reduce=3.75 * WEIGHTS)
    (one,) = verdicts(tmp_path, "sharded-gathers-shared", *by_sums)
    assert (one.verdict, one.measured) == ("confirmed", 2.75)
    halved = both("sqrt", "full", "tpu-v5e:16x16", all_gather=0.0, all_reduce=2.375 * WEIGHTS)
    (one,) = verdicts(tmp_path, "sharded-gathers-shared", *halved)
    assert (one.verdict, one.cause) == ("refuted", "measured")


@pytest.mark.parametrize(("grows", "verdict"), [(0.0, "confirmed"), (0.5, "confirmed"), (4.0, "refuted")])
def test_a_schedule_takes_its_slots_and_what_does_not_grow(tmp_path, grows, verdict):
    share = CARRY / 8
    records = [record("sqrt"), record("sqrt", depth=16, temp=(3 + 3 + grows) * share)]
    (one,) = (one for one in verdicts(tmp_path, "sharded-memory-constant", *records) if one.method == "sqrt")
    assert (one.verdict, one.measured) == (verdict, grows)
    assert verdicts(tmp_path, "sharded-memory-constant", record("sqrt")) == []  # of one depth there is no growth


@pytest.mark.parametrize(("rounding", "verdict"), [(2.5e-7, "confirmed"), (4e-7, "refuted")])
def test_gradients_and_losses_are_held_against_one_devices_rounding(tmp_path, rounding, verdict):
    found = verdicts(tmp_path, "sharded-gradients", *both("sqrt", rounding=rounding))
    assert [one.verdict for one in found] == [verdict] * 2


def test_figures_and_tables_are_of_what_was_compiled(tmp_path):
    records = [
        record(method, target, layout)
        for method in PASSES
        for target in AXES
        for layout in ("full", "both")
        if target != "tpu-v5e"
    ]
    found = across(views(read(tmp_path, *records)))
    assert [one.name for one in found if isinstance(one, Drawn)] == ["frontier"]  # no two clusters of one kind
    (table,) = (one for one in found if isinstance(one, Table))
    assert {row[0] for row in table.rows} == {"nvidia-h100:8x32", "tpu-v5e:16x16"}
    assert table.rows[0][4:9] == ["0.188", "1", "0.0312", "12", "8"]  # MiB, GFLOP
    assert across(views(read(tmp_path, record("plain", "cpu")))) == []
