"""The tidy frame: one row a number, whichever front door it came through."""

import json
import lzma
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from asv import results as asv_results

from adcost.suite.vocabulary import Case, case_from_id, case_from_json, described
from adcost.targets import ANY
from benchmarks import all_studies

NUMBER = ["ruler", "target", "quantity", "at", "unit", "value", "low", "high", "repeats", "flags"]
LEVELS = ["processes", "between", "within"]  # of a time: how many, and the deviations of its logarithm
GAP = ["ruler", "target", "reason", "fault"]
TIMING = ["target", "samples", "again", "seeds"]
ORIGIN = ["source", "commit", "jax", "python", "machine"]
OTHERS = {"id", "study", "method", "dtype", *NUMBER, *LEVELS, *GAP, *TIMING, *ORIGIN}  # no parameters of cases

# What asv's benchmarks measure, by the name of the method: ruler, quantity, unit.
ASV = {
    "time_case": ("clock", "time", "s"),
    "peakmem_case": ("asv", "process maximum", "B"),
    "peakmem_baseline": ("asv", "process maximum before the run", "B"),
    "track_temp": ("compiler", "temp", "B"),
    "track_compile_time": ("compile", "compile time", "s"),
    "track_evaluations": ("count", "evaluations", "evaluations"),
    "track_executed_evaluations": ("count", "executed evaluations", "evaluations"),
}


@dataclass(frozen=True)
class Results:
    """All that was read: the frame, what is missing and why, every round's seconds, the environment of each source."""

    frame: pd.DataFrame
    missing: pd.DataFrame
    timings: pd.DataFrame  # a row a case: samples, again (seconds by process and round), seeds (which rounds)
    environments: Mapping[str, Mapping[str, Any]]
    studies: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict
    )  # what is to be known of each, beside numbers


def read(paths: Iterable[Path]) -> Results:
    """Read JSON of pytest-benchmark and of ``adcost measure``, packed by xz or not, and asv results folders, mixed.

    Raises
    ------
    ValueError
        If a path is neither, or holds no case of this suite; one line that says what to pass.
    """
    numbers: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    timings: list[dict[str, Any]] = []
    environments = {}
    for path in {path.resolve(): path for path in paths}.values():
        before = len(numbers) + len(missing)
        if path.is_dir():
            for number in _from_asv(path):
                (numbers if "value" in number else missing).append(number)
                words = {name: number[name] for name in ("jax", "python", "commit", "machine")}
                environments[f"{path}, JAX {number['jax']}, commit {number['commit']}"] = words
        else:
            content = _json(path)
            machine = content.get("machine_info", {})
            environment = {**machine, **machine.get("environment", {}), **content.get("environment", {})}
            environments[str(path)] = environment
            origin = _origin(path, environment)
            for record in _records(content):
                if "seeds" not in record and (record["samples"] or any("at" not in n for n in record["numbers"])):
                    raise ValueError(f"{path} was written before adcost 0.4, in another form; measure again")
                case = _identity(case_from_json(record["case"]))
                numbers += [{**case, **number, **origin} for number in record["numbers"]]
                missing += [{**case, **gap, **origin} for gap in record["missing"]]
                where = {**case, **origin, "target": record.get("target", "cpu")}
                if record["samples"]:
                    rounds = {name: tuple(map(tuple, record[name])) for name in ("samples", "again")}
                    timings.append({**where, **rounds, "seeds": tuple(record["seeds"])})
        if len(numbers) + len(missing) == before:
            raise ValueError(f"{path} holds no case of this suite; make one with `make report` or `asv run`")
    timed = _table(timings, TIMING)
    once = timed.drop_duplicates([name for name in timed if name != "source"])  # a copy of a result adds no rounds
    return Results(_frame(numbers), _table(missing, GAP), once, environments, _studies(environments.values()))


def _studies(environments: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the results say of their studies; of those that do not say it, as asv's, what is known of them here."""
    told: dict[str, Any] = described(all_studies().values())
    for environment in environments:
        told |= environment.get("studies", {})
    return told


def _identity(case: Case) -> dict[str, Any]:
    return {"study": case.study, "method": case.method, **dict(case.params), "dtype": case.dtype}


def parameters(frame: pd.DataFrame) -> list[str]:
    """The columns that are parameters of cases."""
    return [str(name) for name in frame if name not in OTHERS]


def _table(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    orders = dict.fromkeys(tuple(name for name in row if name not in OTHERS) for row in rows)
    return pd.DataFrame(rows).reindex(columns=["study", "method", *_in_every_order(orders), "dtype", *columns, *ORIGIN])


def _in_every_order(orders: Iterable[tuple[str, ...]]) -> list[str]:
    """Names so that those of a study stand as the study has them, whatever was read before it, if studies agree."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for names in orders:
        for i, name in enumerate(names):
            sorter.add(name, *names[:i])
    try:
        return list(sorter.static_order())
    except CycleError:
        return list(dict.fromkeys(name for names in orders for name in names))


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = _table(rows, [*NUMBER, *LEVELS])
    frame.insert(0, "id", range(len(frame)))
    frame["flags"] = frame.pop("flags").map(lambda flags: "; ".join(flags) if isinstance(flags, (list, tuple)) else "")
    frame["at"] = frame["at"].map(
        lambda at: "; ".join(f"{k}={v}" for k, v in at) if isinstance(at, (list, tuple)) else ""
    )
    texts = dict.fromkeys(
        ("ruler", "target", "quantity", "at", "flags"), str
    )  # an empty column would be one of numbers
    numbers = dict.fromkeys(("value", "low", "high", "between", "within"), float)
    return frame.fillna({"processes": 1}).astype({**numbers, "processes": int, **texts})


def _records(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for benchmark in content.get("benchmarks", []):
        if "case" in benchmark["extra_info"]:
            yield benchmark["extra_info"]
    yield from content.get("more_records", [])
    yield from content.get("records", [])  # of ``adcost measure``


def _json(path: Path) -> Any:
    try:
        packed = path.read_bytes()
        content = json.loads(lzma.decompress(packed) if path.suffix == ".xz" else packed)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; make it with `make report`") from None
    except (json.JSONDecodeError, UnicodeDecodeError, lzma.LZMAError):
        content = None
    kinds = {"benchmarks", "machine_info"}, {"records", "environment"}
    if not isinstance(content, dict) or not any(kind <= content.keys() for kind in kinds):
        said = "pass pytest-benchmark's JSON (results/latest.json), that of `adcost measure`, or a folder of asv's"
        raise ValueError(f"{path} is no result: {said}")
    return content


def _origin(path: Path, environment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "source": str(path),
        "commit": environment.get("commit") or "unknown",
        "jax": environment.get("jax") or "unknown",
        "python": environment.get("python") or "unknown",
        "machine": _machine(environment.get("cpu"), environment.get("cores"), environment.get("node")),
    }


def _machine(cpu: str | None, cores: str | int | None, name: str | None) -> str:
    return f"{cpu or 'unknown'} ({cores or '?'} cores) {name or ''}".strip()


def _from_asv(folder: Path) -> Iterator[dict[str, Any]]:
    """Numbers and gaps of asv's results, the oldest commit first; exact facts of a case come from its study."""
    for result in sorted(asv_results.iter_results(str(folder)), key=lambda result: result.date):
        params = result.params
        origin = {
            "source": str(folder),
            "commit": result.commit_hash[:12],
            "jax": params.get("jax") or params.get("req-jax") or result.env_name,
            "python": params.get("python") or "unknown",
            "machine": _machine(params.get("cpu"), params.get("num_cpu"), params.get("machine")),
        }
        cases: dict[Case, dict[str, Any]] = {}
        for name in result.get_all_result_keys():
            kind = name.rsplit(".", 1)[-1]
            if kind not in ASV:
                continue
            ruler, quantity, unit = ASV[kind]
            target = ANY if ruler == "count" else "cpu"
            combinations = list(product(*result.get_result_params(name)))
            values = result.get_result_value(name, result.get_result_params(name))
            stats = result.get_result_stats(name, result.get_result_params(name)) or [None] * len(values)
            study = _study_of(name.split(".")[-2])
            for words, value, spread in zip(combinations, values, stats, strict=True):
                if value is not None and not np.isfinite(value):
                    continue  # it was not asked for
                case = case_from_id("-".join([study, *(word.strip("'") for word in words)]))
                identity = cases.setdefault(case, {**_identity(case), **origin})
                if value is None:
                    reason = f"asv holds no {quantity}: its benchmark failed"
                    yield {**identity, "ruler": ruler, "target": target, "reason": reason}
                    continue
                number = {"ruler": ruler, "target": target, "quantity": quantity, "unit": unit, "value": value}
                yield {**identity, **number, **_spread(spread)}
        for case, identity in cases.items():
            yield {**identity, "ruler": "clock", "target": "cpu", "reason": NO_RATIO}
            yield {**identity, "ruler": "process", "target": "cpu", "reason": NO_PEAK}
            yield from ({**identity, **fact} for fact in _facts(case))


def _study_of(title: str) -> str:
    """The study of an asv class, as ``linear_solve`` of ``LinearSolveExecutions``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", title.removesuffix("Executions")).lower()


def _spread(stats: Mapping[str, Any] | None) -> dict[str, Any]:
    """asv's own interval, which is one of 99%."""
    if stats is None:
        return {"repeats": 1, "flags": ("asv",)}
    low, high = stats.get("ci_99_a"), stats.get("ci_99_b")
    return {"low": low, "high": high, "repeats": stats["repeat"], "flags": ("asv", "99% interval")}


NO_RATIO = "asv times one program after the other, so it has no paired ratios; `make report` has"
NO_PEAK = "asv's peak holds imports, inputs and the compiler; `make report` measures the program's own"


def _facts(case: Case) -> Iterator[dict[str, Any]]:
    """What is known of a case before it runs, such as its slots; nothing of a case that the suite no longer has."""
    study = all_studies().get(case.study)
    if study is None or case.method not in study.methods:
        return
    with suppress(ImportError):  # a method of a peer that is not installed here
        for quantity, (value, unit) in study.program(case).facts.items() if study.for_target is None else ():
            yield {"ruler": "count", "target": ANY, "quantity": quantity, "unit": unit, "value": value, "repeats": 1}
