"""The tidy frame: one row a number, whichever front door it came through."""

import json
import lzma
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from asv import results as asv_results
from asv.util import UserError

from adcost import _jax
from adcost.suite.schema import SCHEMA, record_of
from adcost.suite.vocabulary import Case, case_from_id, described
from adcost.targets import ANY
from adcost.whole import reason
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
    refused: Sequence[str] = ()  # records that cannot be what they say: file, case and field, a line each
    cases: frozenset[str] = frozenset()  # the ids of those of which anything was read


def read(paths: Iterable[Path]) -> Results:
    """Read JSON of pytest-benchmark and of ``adcost measure``, packed by xz or not, and asv results folders, mixed.

    A record that is damaged or holds what cannot be costs itself, and is named in ``refused``.

    Raises
    ------
    ValueError
        If a path is neither, or holds no case of this suite; one line that says what to pass.
    """
    found, refused = _Found(), []
    files = {os.path.realpath(path): path for path in map(_of_a_folder, paths)}.values()
    for path in files:
        try:
            (_take_folder if path.is_dir() else _take_file)(found, path)
        except ValueError as error:
            refused.append(error)
    if len(refused) == len(files):
        raise refused[0]
    timed = _table(found.timings, TIMING)
    once = timed.drop_duplicates([name for name in timed if name != "source"])  # a copy of a result adds no rounds
    return Results(
        _frame(found.numbers),
        _table(found.missing, GAP),
        once,
        found.environments,
        _studies(found.environments.values()),
        [*map(str, refused), *found.refused],
        frozenset(found.cases),
    )


@dataclass
class _Found:
    """What was read so far."""

    numbers: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    environments: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    cases: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)


def _take_folder(found: _Found, path: Path) -> None:
    """Take in what asv wrote."""
    any_case = False
    for number in _from_asv(path, found.refused):
        any_case = True
        (found.numbers if "value" in number else found.missing).append(number)
        words = {name: number[name] for name in ("jax", "python", "commit", "machine")}
        found.environments[f"{path}, JAX {number['jax']}, commit {number['commit']}"] = words
    if not any_case:
        raise ValueError(f"{path} holds no case of this suite; make one with `make report` or `asv run`")


def _take_file(found: _Found, path: Path) -> None:
    """Take in a file of ours."""
    content = _content(path)
    environment = content.described()
    origin = _origin(path, environment)
    refused, taken = [], 0
    for fields in content.all_records():
        if _is_older(fields):
            raise ValueError(f"{path} was written before adcost 0.4, in another form; measure again")
        try:
            record = record_of(fields)
        except ValueError as error:
            refused.append(f"{path}: {error}")
            continue
        taken += 1
        found.cases.add(record.case.id)
        case = _identity(record.case)
        found.numbers += [{**case, **number, **origin} for number in fields["numbers"]]
        found.missing += [{**case, **gap, **origin} for gap in fields["missing"]]
        if record.samples:
            rounds = {"samples": record.samples, "again": record.again, "seeds": record.seeds}
            found.timings.append({**case, **origin, "target": record.target, **rounds})
    if not taken:
        why = refused[0].removeprefix(f"{path}: ") if refused else "make one with `make report` or `asv run`"
        raise ValueError(f"{path} holds no case of this suite; {why}")
    found.refused += refused
    found.environments[str(path)] = environment


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


def _is_older(fields: Any) -> bool:
    """Is it a record as they were before rounds had seeds, and numbers places?"""
    if not isinstance(fields, dict) or "seeds" in fields or not isinstance(fields.get("numbers"), list):
        return False
    return bool(fields.get("samples")) or any(isinstance(n, dict) and "at" not in n for n in fields["numbers"])


@dataclass
class _Benchmark:
    extra_info: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Content:
    """A file of results: pytest-benchmark's, or that of ``adcost measure``."""

    machine_info: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    benchmarks: list[_Benchmark] = field(default_factory=list)
    more_records: list[Any] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)
    schema: int = SCHEMA

    def described(self) -> dict[str, Any]:
        """The environment, wherever it stands."""
        within = self.machine_info.get("environment")
        return {**self.machine_info, **(within if isinstance(within, dict) else {}), **self.environment}

    def all_records(self) -> Iterator[Any]:
        yield from (benchmark.extra_info for benchmark in self.benchmarks if "case" in benchmark.extra_info)
        yield from self.more_records
        yield from self.records


@dataclass
class _Said:
    """What an environment says of its run, where it does."""

    studies: dict[str, dict[str, Any]] = field(default_factory=dict)
    plan: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    cpu: str | None = None
    commit: str | None = None
    jax: str | None = None
    python: str | None = None


def _of_a_folder(path: Path) -> Path:
    """The last result of a folder in which the suite keeps its own; any other path is what it is."""
    latest = path / "latest.json"
    return latest if latest.is_file() else path


def _content(path: Path) -> _Content:
    said = "pass pytest-benchmark's JSON (results/latest.json), that of `adcost measure`, or a folder of asv's"
    kinds = {"benchmarks", "machine_info"}, {"records", "environment"}
    try:
        packed = path.read_bytes()
        content = json.loads(lzma.decompress(packed) if path.suffix == ".xz" else packed)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; make it with `make report`") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason(error)}") from None
    except (ValueError, lzma.LZMAError, RecursionError):  # no JSON, not UTF-8, cut short
        content = None
    if not isinstance(content, dict) or not any(kind <= content.keys() for kind in kinds):
        raise ValueError(f"{path} is no result: {said}")
    try:
        found = msgspec.convert(content, _Content)
        msgspec.convert(found.described(), _Said)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path} is no result: {error}") from None
    if found.schema != SCHEMA:
        raise ValueError(
            f"{path} is of schema {found.schema}, this adcost reads {SCHEMA}: read it with the one that wrote it"
        )
    return found


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


def _from_asv(folder: Path, refused: list[str]) -> Iterator[dict[str, Any]]:
    """Numbers and gaps of asv's results, the oldest commit first; exact facts of a case come from its study.

    A file that cannot be read, and a benchmark that this suite does not know, cost themselves.
    """
    found = []
    for root, name, machine in asv_results.iter_results_paths(str(folder)):
        try:
            found.append(asv_results.Results.load(str(Path(root) / name), machine_name=machine))
        except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            refused.append(f"{Path(root) / name}: no result of asv ({_jax.first_line(error)})")
    for result in sorted(found, key=lambda result: result.date):
        params = result.params
        origin = {
            "source": str(folder),
            "commit": result.commit_hash[:12],
            "jax": params.get("jax") or params.get("req-jax") or result.env_name,
            "python": params.get("python") or "unknown",
            "machine": _machine(params.get("cpu"), params.get("num_cpu"), params.get("machine")),
        }
        cases: dict[Case, dict[str, Any]] = {}
        for name in filter(lambda name: name.rsplit(".", 1)[-1] in ASV, result.get_all_result_keys()):
            try:
                rows = list(_of_a_benchmark(result, name))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                refused.append(f"{folder}: {name} of commit {origin['commit']}: {_jax.first_line(error)}")
                continue
            for case, row in rows:
                yield {**cases.setdefault(case, {**_identity(case), **origin}), **row}
        for case, identity in cases.items():
            yield {**identity, "ruler": "clock", "target": "cpu", "reason": NO_RATIO}
            yield {**identity, "ruler": "process", "target": "cpu", "reason": NO_PEAK}
            yield from ({**identity, **fact} for fact in _facts(case))


def _of_a_benchmark(result: Any, name: str) -> Iterator[tuple[Case, dict[str, Any]]]:
    """What one of asv's benchmarks found of each case: a number, or why there is none."""
    ruler, quantity, unit = ASV[name.rsplit(".", 1)[-1]]
    target = ANY if ruler == "count" else "cpu"
    given = result.get_result_params(name)
    combinations, values = list(product(*given)), result.get_result_value(name, given)
    stats = result.get_result_stats(name, given) or [None] * len(values)
    study = _study_of(name.split(".")[-2])
    for words, value, spread in zip(combinations, values, stats, strict=True):
        if value is not None and not np.isfinite(value):
            continue  # it was not asked for
        case = case_from_id("-".join([study, *(word.strip("'") for word in words)]))
        if value is None:
            why = f"asv holds no {quantity}: its benchmark failed"
            yield case, {"ruler": ruler, "target": target, "reason": why}
            continue
        number = {"ruler": ruler, "target": target, "quantity": quantity, "unit": unit, "value": value}
        yield case, {**number, **_spread(spread)}


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
