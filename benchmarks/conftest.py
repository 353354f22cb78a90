"""What pytest needs to know of the suite: which cases there are, where numbers are kept, what goes into the JSON."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from adcost.suite import registry
from adcost.suite.campaign import Campaign, Suite
from adcost.suite.effort import EFFORTS
from adcost.suite.environment import describe, fingerprint
from adcost.suite.journal import Journal
from adcost.suite.lock import AnotherRuns, alone
from adcost.suite.record import Record
from adcost.suite.schema import SCHEMA
from adcost.suite.vocabulary import PROFILES, Case, described
from adcost.targets import parse_targets
from adcost.whole import write_whole
from benchmarks import LEFT_OUT, ROOT, all_studies, study_folders

STUDY = os.environ.get("STUDY", "all")
PROFILE = os.environ.get("PROFILE", PROFILES[0])
TARGETS = os.environ.get("TARGETS", "cpu")
JOURNALS = Path(os.environ.get("JOURNALS", ROOT / "results" / "journals"))
ENVIRONMENT: dict[str, Any] = {}  # as it is at the start: pytest-benchmark asks at the end
CAMPAIGN = pytest.StashKey[Campaign]()
PLACE = pytest.StashKey[Path | None]()  # where the result is to be written
SAVED = pytest.StashKey[bool]()  # is the result in its file?
NOT_SAVED = 3  # exit status of a run that could not be begun, or whose result could not be written
REFUSED = (  # options of pytest-benchmark that choose rounds or a clock: here the interleaved rounds are both
    "--benchmark-min-rounds",
    "--benchmark-min-time",
    "--benchmark-max-time",
    "--benchmark-precision",
    "--benchmark-confidence",
    "--benchmark-timer",
    "--benchmark-calibration-precision",
    "--benchmark-warmup",
    "--benchmark-warmup-iterations",
    "--benchmark-disable-gc",
    "--benchmark-cprofile",
    "--benchmark-cprofile-loops",
    "--benchmark-cprofile-top",
    "--benchmark-cprofile-dump",
)


def pytest_configure(config: pytest.Config) -> None:
    added = os.environ.get("PYTEST_ADDOPTS", "").split()
    given = [*config.invocation_params.args, *added, *config.getini("addopts")]
    for option in (argument.split("=")[0] for argument in given):
        if option in REFUSED:
            raise pytest.UsageError(
                f"{option} has no effect on interleaved rounds; choose PROFILE=quick or full instead"
            )
    try:
        check_asked()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    ENVIRONMENT.update(describe(ROOT), profile=PROFILE, studies=described(all_studies().values()))
    ENVIRONMENT["left_out"] = LEFT_OUT
    for line in LEFT_OUT:
        print(line, file=sys.stderr)
    config.stash[PLACE], config.option.benchmark_json = config.option.benchmark_json, None  # we write it ourselves


def check_asked() -> None:
    """Refuse studies, profiles and targets that there are not, in one line."""
    parse_targets(TARGETS)
    registry.select(all_studies(), STUDY, PROFILE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", registry.select(all_studies(), STUDY, PROFILE), ids=lambda case: case.id)


@pytest.fixture(scope="session")
def recorded(request: pytest.FixtureRequest) -> Callable[[Case], Record]:
    """The record of a case: everything that is selected is measured when the first is asked for.

    A complete run's journal goes when pytest does: after the JSON was written, and read back.
    """
    config, session = request.config, request.session
    plugins = config.pluginmanager
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
    selected = [item.callspec.params["case"] for item in session.items if hasattr(item, "callspec")]
    targets = parse_targets(TARGETS)
    sources = fingerprint(*map(registry.root_of, study_folders()))
    path = JOURNALS / f"{PROFILE}-{TARGETS.replace(',', '+')}-{sources}.jsonl"

    def say(line: str) -> None:
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.write(f"\n{line}\n")  # the dots of finished tests stand on the line before

    stack = ExitStack()
    config.add_cleanup(stack.close)
    try:
        stack.enter_context(alone(JOURNALS))
        journal = Journal.open(path, ENVIRONMENT, sources)
    except (OSError, AnotherRuns) as error:
        pytest.exit(str(error), returncode=NOT_SAVED)
    for line in journal.said():
        say(line)
    if journal.records:
        ENVIRONMENT.update(journal.environment, **{"went on": ENVIRONMENT["started"]})
    ENVIRONMENT["plan"] = [case.id for case in selected]
    suite = Suite(study_folders(), all_studies(), EFFORTS[PROFILE], journal, say)
    config.stash[CAMPAIGN] = Campaign(suite, selected, targets)
    return config.stash[CAMPAIGN].record


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["environment"] = ENVIRONMENT


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """All that is known and is no benchmark to pytest-benchmark stands in a list of its own.

    That is what has no time, or not on the first target, and what was measured before the run was interrupted.
    """
    infos = [benchmark["extra_info"] for benchmark in output_json["benchmarks"]]
    shown = [(info["case"], info["target"]) for info in infos if "case" in info]
    known = map(asdict, config.stash[CAMPAIGN].records())
    output_json["more_records"] = [record for record in known if (record["case"], record["target"]) not in shown]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the result, whole: only then the journal may forget what is in it.

    pytest-benchmark would write over the last one in its place, and nothing where nothing was timed.
    """
    config, benchmarks = session.config, session.config._benchmarksession  # type: ignore[attr-defined]
    if CAMPAIGN not in config.stash:
        return
    campaign, place = config.stash[CAMPAIGN], config.stash[PLACE]
    if place is not None and campaign.records():
        hook, timed = config.hook, benchmarks.benchmarks
        content = hook.pytest_benchmark_generate_json(
            config=config,
            benchmarks=timed,
            include_data=True,
            machine_info=benchmarks.get_machine_info(),
            commit_info=hook.pytest_benchmark_generate_commit_info(config=config),
        )
        hook.pytest_benchmark_update_json(config=config, benchmarks=timed, output_json=content)
        try:
            write_whole(place, json.dumps({"schema": SCHEMA, **content}, indent=1))
        except OSError as error:
            said = f"{error}; what was measured is in {JOURNALS}, run again to go on from there"
            pytest.exit(said, returncode=NOT_SAVED)
        config.stash[SAVED] = True
    campaign.forget()
