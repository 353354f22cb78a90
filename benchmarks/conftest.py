"""What pytest needs to know of the suite: which cases there are, where numbers are kept, what goes into the JSON."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recorder
from benchmarks.cases import PROFILES, Case, select, studies
from benchmarks.environment import ROOT, describe, fingerprint
from benchmarks.recorder import EFFORTS, Journal, Record
from benchmarks.targets import TARGETS as KNOWN
from benchmarks.targets import parse_targets

STUDY = os.environ.get("STUDY", "all")
PROFILE = os.environ.get("PROFILE", PROFILES[0])
TARGETS = os.environ.get("TARGETS", "cpu")
JOURNALS = Path(os.environ.get("JOURNALS", ROOT / "results" / "journals"))
ENVIRONMENT = {**describe(), "profile": PROFILE}  # as it is at the start: pytest-benchmark asks at the end
CPU = KNOWN["cpu"]  # where gradients are checked if no other target is attached
RECORDS = pytest.StashKey[list[Record]]()


def pytest_configure() -> None:
    try:
        parse_targets(TARGETS)
        select(STUDY, PROFILE)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", select(STUDY, PROFILE), ids=lambda case: case.id)


@pytest.fixture(scope="session")
def recorded(request: pytest.FixtureRequest) -> Iterator[Callable[[Case], Record]]:
    """The record of a case: its group, as far as it is selected, is measured when the first of it is asked for."""
    plugins = request.config.pluginmanager
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
    selected = [item.callspec.params["case"] for item in request.session.items if hasattr(item, "callspec")]
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in selected:  # pytest may have reordered them
        groups.setdefault(_group(case), []).append(case)
    effort, targets = EFFORTS[PROFILE], parse_targets(TARGETS)
    attached = [target for target in targets if target.attached]
    compilers = [target for target in targets if not target.attached]
    absent = {target: reason for target in attached if (reason := recorder.unreachable(target))}
    present = [target for target in attached if target not in absent]
    # Where gradients are checked: without a device of its own a compiler's numbers count by the CPU's check.
    home = next(iter(present), CPU if compilers else attached[0])
    journal = Journal.open(JOURNALS / f"{PROFILE}-{TARGETS.replace(',', '+')}-{fingerprint()}.jsonl", ENVIRONMENT)

    def progress(line: str) -> None:
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.write(f"\n{line}\n")  # the dots of finished tests stand on the line before

    if journal.records:
        began = journal.environment["started"]
        progress(f"going on with the run of {began}; to measure all afresh remove {journal.path}")
        ENVIRONMENT.update(journal.environment, **{"went on": ENVIRONMENT["started"]})
    tried = set()

    def record(case: Case) -> Record:
        group = groups[_group(case)]
        if _group(case) not in tried:
            tried.add(_group(case))
            for target, reason in absent.items():
                recorder.record_absent(group, target, reason, journal)
            for target in present:
                recorder.record_group(group, target, asks[target.name], effort, journal, progress)
            if compilers and not present:
                recorder.record_correct(group, home, asks[home.name], effort, journal)
        return journal.records[case, home.name]

    with ExitStack() as stack:
        measured = dict.fromkeys([home, *present]) if home not in absent else ()
        asks = {target.name: stack.enter_context(recorder.measuring(target)) for target in measured}
        yield record
    correct = [case for case in selected if (found := journal.get(case, home)) and found.numbers]
    asked = []
    for target in compilers:
        compiled = recorder.record_compiled(correct, target, effort, journal, progress)
        asked += [(case, target) for case in compiled]
    wanted = list(dict.fromkeys([*selected, *map(recorder.fit_case, selected)]))
    names = [target.name for target in (home, *targets)]
    records = [record for (case, name), record in journal.records.items() if case in wanted and name in names]
    request.config.stash[RECORDS] = [record for record in records if record.target != home.name or not record.samples]
    journal.close([*((case, target) for target in (home, *attached) for case in selected), *asked])


def _group(case: Case) -> tuple[str, str]:
    return case.study, studies()[case.study].shares_process(case)


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["environment"] = ENVIRONMENT


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """What has no time, or not on the first target, is no benchmark to pytest-benchmark: it stands in its own list."""
    output_json["more_records"] = [asdict(record) for record in config.stash.get(RECORDS, [])]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where nothing at all was timed pytest-benchmark writes no JSON; the reasons must not be lost with it."""
    config, benchmarks = session.config, session.config._benchmarksession  # type: ignore[attr-defined]
    if not benchmarks.json or benchmarks.benchmarks or not config.stash.get(RECORDS, []):
        return
    content = config.hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=[],
        include_data=True,
        machine_info=benchmarks.get_machine_info(),
        commit_info=config.hook.pytest_benchmark_generate_commit_info(config=config),
    )
    config.hook.pytest_benchmark_update_json(config=config, benchmarks=[], output_json=content)
    benchmarks.save_json(content)
