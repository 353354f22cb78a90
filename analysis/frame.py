"""The tidy frame: one row a number, whichever front door it came through."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from asv import results as asv_results

from benchmarks.cases import Case, case_from_id, case_from_json

NUMBER = ["ruler", "target", "quantity", "unit", "value", "low", "high", "repeats", "flags"]
ORIGIN = ["source", "commit", "jax", "machine"]

# What asv's benchmarks measure, by the name of the method: ruler, quantity, unit.
ASV = {
    "time_case": ("clock", "time", "s"),
    "peakmem_case": ("asv", "process maximum", "B"),
    "peakmem_baseline": ("asv", "process maximum before the run", "B"),
    "track_temp": ("compiler", "temp", "B"),
    "track_compile_time": ("compile", "compile time", "s"),
    "track_evaluations": ("count", "evaluations", "evaluations"),
}


@dataclass(frozen=True)
class Results:
    """All that was read: the frame, what is missing and why, the A/A pairs, the environment of each source."""

    frame: pd.DataFrame
    missing: pd.DataFrame
    again: pd.DataFrame  # a row a round: study, method, parameters, first, again (seconds of the same executable)
    environments: Mapping[str, Mapping[str, Any]]


def read(paths: Iterable[Path]) -> Results:
    """Read pytest-benchmark JSON files and asv results folders, mixed.

    Raises
    ------
    ValueError
        If a path is neither, or holds no case of this suite; one line that says what to pass.
    """
    numbers: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    again: list[dict[str, Any]] = []
    environments = {}
    for path in paths:
        before = len(numbers) + len(missing)
        if path.is_dir():
            numbers += _from_asv(path)
        else:
            content = _pytest_json(path)
            environment = {**content["machine_info"], **content["machine_info"].get("environment", {})}
            environments[str(path)] = environment
            origin = _origin(path, environment)
            for record in _records(content):
                case = _identity(case_from_json(record["case"]))
                numbers += [{**case, **number, **origin} for number in record["numbers"]]
                missing += [{**case, **gap, **origin} for gap in record["missing"]]
                pairs = zip(record["samples"], record["again"], strict=False)
                again += [{**case, "first": first, "again": second} for first, second in pairs]
        if len(numbers) + len(missing) == before:
            raise ValueError(f"{path} holds no case of this suite; make one with `make report` or `asv run`")
    return Results(_frame(numbers), pd.DataFrame(missing), pd.DataFrame(again), environments)


def _identity(case: Case) -> dict[str, Any]:
    return {"study": case.study, "method": case.method, **dict(case.params), "dtype": case.dtype}


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    params = [name for name in frame if name not in ("study", "method", "dtype", *NUMBER, *ORIGIN)]
    frame = frame.reindex(columns=["study", "method", *params, "dtype", *NUMBER[:-1], *ORIGIN, "flags"])
    frame["flags"] = frame["flags"].map(lambda flags: "; ".join(flags) if isinstance(flags, (list, tuple)) else "")
    return frame.astype({"value": float, "low": float, "high": float})


def _records(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for benchmark in content["benchmarks"]:
        if "case" in benchmark["extra_info"]:
            yield benchmark["extra_info"]
    yield from content.get("untimed", [])


def _pytest_json(path: Path) -> Any:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; make it with `make report`") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict) or not {"benchmarks", "machine_info"} <= content.keys():
        raise ValueError(
            f"{path} is no result: pass pytest-benchmark's JSON (results/latest.json) or a folder of asv's"
        )
    return content


def _origin(path: Path, environment: Mapping[str, Any]) -> dict[str, Any]:
    machine = environment.get("node", "")
    return {
        "source": str(path),
        "commit": environment.get("commit"),
        "jax": environment.get("jax"),
        "machine": f"{environment.get('cpu', '')} ({environment.get('cores', '?')} cores) {machine}".strip(),
    }


def _from_asv(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for result in asv_results.iter_results(str(folder)):
        params = result.params
        origin = {
            "source": str(folder),
            "commit": result.commit_hash[:12],
            "jax": params.get("jax") or params.get("req-jax") or result.env_name,
            "machine": f"{params.get('cpu', '')} ({params.get('num_cpu', '?')} cores) {params.get('machine', '')}",
        }
        for name in result.get_all_result_keys():
            kind = name.rsplit(".", 1)[-1]
            if kind not in ASV:
                continue
            combinations = list(product(*result.get_result_params(name)))
            values = result.get_result_value(name, result.get_result_params(name))
            stats = result.get_result_stats(name, result.get_result_params(name)) or [None] * len(values)
            for (case_id, *_), value, spread in zip(combinations, values, stats, strict=True):
                if value is None or not np.isfinite(value):
                    continue
                ruler, quantity, unit = ASV[kind]
                number = {"ruler": ruler, "target": "cpu", "quantity": quantity, "unit": unit, "value": value}
                number |= {"repeats": 1, "flags": ("asv",)}
                if spread is not None:  # asv's own interval is one of 99%: it is not ours, and left out
                    number |= {"repeats": spread["repeat"]}
                rows.append({**_identity(case_from_id(case_id.strip("'"))), **number, **origin})
    return rows
