"""Damaged and foreign results: what cannot be is refused by file, case and field, and the rest goes on."""

import json
import lzma

import pytest

from adcost.suite.schema import SCHEMA, as_json_schema
from analysis import frame
from analysis.__main__ import main
from benchmarks import ROOT
from tests.faults.damage import content


def written(path, found):
    path.write_text(json.dumps(found))
    return path


def first(found):
    return found["records"][0]


def number(i):
    return lambda found: first(found)["numbers"][i]


FIELDS = {  # where, which field, what it is given, and what is said of it
    "a time that is no number": (number(0), "value", float("nan"), "numbers[0].value (clock, time) is nan"),
    "an infinite time": (number(0), "value", float("inf"), "numbers[0].value (clock, time) is inf"),
    "no time at all": (number(0), "value", 0.0, "numbers[0].value (clock, time) is 0"),
    "a time below 0": (number(0), "value", -1.0, "numbers[0].value (clock, time) is -1"),
    "bytes below 0": (number(1), "value", -1.0, "numbers[1].value (compiler, temp) is -1"),
    "an error below 0": (number(2), "value", -1e-9, "numbers[2].value (check, gradient error) is -1e-09"),
    "a value in words": (number(1), "value", "many", "numbers[1].value: Expected `float`"),
    "a value that is null": (number(1), "value", None, "Expected `float`"),
    "no unit": (number(1), "unit", ..., "missing required field `unit`"),
    "no ruler": (number(1), "ruler", ..., "missing required field `ruler`"),
    "an end on the wrong side": (number(0), "low", 2.5, "numbers[0].low (clock, time) is 2.5"),
    "an upper end on the wrong side": (number(0), "high", 1.5, "numbers[0].high (clock, time) is 1.5"),
    "an end that is no number": (number(0), "high", float("nan"), "numbers[0].high"),
    "never repeated": (number(0), "repeats", 0, "numbers[0].repeats"),
    "an unknown dtype": (lambda found: first(found)["case"], "dtype", "float7", "case.dtype is 'float7'"),
    "a case without a method": (lambda found: first(found)["case"], "method", ..., "a record of no known case"),
    "parameters in words": (lambda found: first(found)["case"], "params", "depth4", "a record of no known case"),
    "a parameter in words": (lambda found: first(found)["case"]["params"], 0, ["depth", "4"], "depth is '4'"),
    "a case that is a word": (first, "case", "backprop", "a record of no known case"),
    "no field for numbers": (first, "numbers", ..., "it has no field 'numbers'"),
    "no field for gaps": (first, "missing", ..., "it has no field 'missing'"),
    "no numbers": (first, "numbers", None, "numbers: Expected `array`"),
    "a number that is a word": (first, "numbers", ["two"], "numbers[0]: Expected `object`"),
    "gaps without a reason": (first, "missing", [{"ruler": "clock", "target": "cpu"}], "field `reason`"),
    "a round of no time": (first, "samples", [[1.0, 0.0]], "samples holds a time that is not above 0"),
    "a round below 0": (first, "again", [[-1.0]], "again holds a time that is not above 0"),
    "rounds that are words": (first, "samples", [["fast"]], "samples[0][0]"),
    "a target that is a number": (first, "target", 7, "target: Expected `str`"),
}


@pytest.mark.parametrize("fault", FIELDS)
def test_a_record_that_cannot_be_is_refused_and_the_rest_goes_on(fault, tmp_path, capsys):
    where, field, value, said = FIELDS[fault]
    found = content()
    if value is ...:
        del where(found)[field]
    else:
        where(found)[field] = value
    path = written(tmp_path / "found.json", found)
    results = frame.read([path])
    (line,) = results.refused
    assert line.startswith(f"{path}: ")
    assert said in line
    assert "\n" not in line
    assert set(results.frame["method"]) == {"sqrt"}
    assert main([str(path), "-o", str(tmp_path / "report")]) == 0
    assert "1 record was refused" in capsys.readouterr().out
    assert "1 record was refused" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("odd", [None, [], 7, "text"])
def test_a_record_of_another_kind_costs_itself(odd, tmp_path):
    found = content()
    found["records"].insert(0, odd)
    results = frame.read([written(tmp_path / "found.json", found)])
    assert len(results.refused) == 1
    assert set(results.frame["method"]) == {"vanilla", "sqrt"}


def test_a_gradient_that_is_nan_is_what_was_found(tmp_path):
    found = content()
    number(2)(found)["value"] = float("nan")
    assert not frame.read([written(tmp_path / "found.json", found)]).refused


@pytest.mark.parametrize(("name", "odd"), [("plan", 3), ("studies", ["backprop"]), ("jax", {}), ("cpu", 7)])
def test_an_environment_of_another_form_is_refused_in_one_line(name, odd, tmp_path, capsys):
    found = content()
    found["environment"][name] = odd
    assert main([str(written(tmp_path / "found.json", found)), "-o", str(tmp_path / "report")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "is no result: Expected" in line
    assert name in line


BYTES = {
    "cut short": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "not UTF-8": lambda whole: whole.replace(b"vanilla", b"van\xff\xfe"),
    "zeros": lambda whole: bytes(len(whole)),
    "a list": lambda whole: b"[1, 2]",
    "a word": lambda whole: b'"results"',
    "nested without end": lambda whole: b"[" * 100_000,
    "another program's": lambda whole: b'{"benchmarks": []}',
    "parts of another type": lambda whole: b'{"benchmarks": {"a": 1}, "machine_info": 3}',
}


@pytest.mark.parametrize("fault", BYTES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_no_result_is_refused_in_one_line(fault, packed, tmp_path, capsys):
    path = tmp_path / ("found.json.xz" if packed else "found.json")
    damaged = BYTES[fault](json.dumps(content()).encode())
    path.write_bytes(lzma.compress(damaged) if packed else damaged)
    assert main([str(path), "-o", str(tmp_path / "report")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"analysis: {path} is no result")
    assert not (tmp_path / "report").exists()


def test_what_is_packed_and_cut_short_is_refused(tmp_path):
    path = tmp_path / "found.json.xz"
    path.write_bytes(lzma.compress(json.dumps(content()).encode())[:-20])
    with pytest.raises(ValueError, match="is no result"):
        frame.read([path])


def test_a_later_schema_is_refused_by_its_number(tmp_path):
    with pytest.raises(ValueError, match=r"of schema 99, this adcost reads 1"):
        frame.read([written(tmp_path / "found.json", content() | {"schema": 99})])


def test_an_older_form_is_refused_by_name(tmp_path):
    found = content()
    del first(found)["seeds"]
    with pytest.raises(ValueError, match=r"before adcost 0\.4"):
        frame.read([written(tmp_path / "found.json", found)])


def test_a_folder_of_results_is_its_latest(tmp_path):
    written(tmp_path / "latest.json", content())
    assert set(frame.read([tmp_path]).frame["method"]) == {"vanilla", "sqrt"}


def test_planned_cases_of_which_nothing_is_said_are_counted(tmp_path):
    found = content()
    ids = ["backprop-vanilla-depth4-width32-batch1024-float32", "backprop-lost-depth4-width32-batch1024-float32"]
    found["environment"]["plan"] = ids
    assert main([str(written(tmp_path / "found.json", found)), "-o", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Of 2 cases of the plan 1 are not in the files at all" in page
    assert ids[1] in page


def asv_folder(tmp_path):
    """A folder as asv has it, with one commit."""
    machine = tmp_path / "asv" / "machine"
    machine.mkdir(parents=True)
    (machine / "machine.json").write_text(json.dumps({"machine": "machine", "version": 1}))
    name = "asv_cases.Backprop.track_temp"
    result = {
        "commit_hash": "0" * 40,
        "env_name": "env",
        "date": 1,
        "params": {"machine": "machine", "python": "3.11"},
        "python": "3.11",
        "requirements": {},
        "env_vars": {},
        "result_columns": ["result", "params"],
        "results": {name: [[4096.0], [["'vanilla'"], ["'depth4-width32-batch1024-float32'"]]]},
        "durations": {},
        "version": 2,
    }
    (machine / "one.json").write_text(json.dumps(result))
    return tmp_path / "asv", machine, result


def test_what_asv_wrote_is_read(tmp_path):
    folder, _, _ = asv_folder(tmp_path)
    assert not frame.read([folder]).refused


@pytest.mark.parametrize("damaged", ["{", '{"version": 2}', "[]", "null"])
def test_a_broken_file_of_asv_costs_itself(damaged, tmp_path):
    folder, machine, _ = asv_folder(tmp_path)
    (machine / "two.json").write_text(damaged)
    results = frame.read([folder])
    assert len(results.refused) == 1
    assert "two.json" in results.refused[0]
    assert set(results.frame["method"]) == {"vanilla"}


def test_an_unknown_benchmark_of_asv_costs_itself(tmp_path):
    folder, machine, result = asv_folder(tmp_path)
    result["results"]["asv_cases.Backprop.track_compile_time"] = [[1.0], [["'vanilla'"], ["'deep'"]]]
    (machine / "one.json").write_text(json.dumps(result))
    results = frame.read([folder])
    assert "is no case" in results.refused[0]
    assert set(results.frame["quantity"]) >= {"temp"}


def test_the_published_schema_is_that_of_the_code():
    """Of a record as it is; the page that explains it names every field."""
    assert json.loads((ROOT / "docs" / "record.schema.json").read_text()) == json.loads(json.dumps(as_json_schema()))
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"the number of this form: {SCHEMA}" in page
    for name in ("Record", "Number", "Missing", "Case"):
        for field in as_json_schema()["$defs"][name]["properties"]:
            assert f"`{field}`" in page or f"`{field}[]`" in page, field
