"""What pytest needs to know of the suite: which cases there are, where numbers are kept, what goes into the JSON."""

import os
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from adcost.suite import campaign, registry
from adcost.suite.effort import EFFORTS
from adcost.suite.environment import describe, fingerprint
from adcost.suite.journal import Journal, Record
from adcost.suite.vocabulary import PROFILES, Case, described
from adcost.targets import parse_targets
from benchmarks import ROOT, all_studies, study_folders

STUDY = os.environ.get("STUDY", "all")
PROFILE = os.environ.get("PROFILE", PROFILES[0])
TARGETS = os.environ.get("TARGETS", "cpu")
JOURNALS = Path(os.environ.get("JOURNALS", ROOT / "results" / "journals"))
# As it is at the start: pytest-benchmark asks at the end.
ENVIRONMENT = {**describe(ROOT), "profile": PROFILE, "studies": described(all_studies().values())}
RECORDS = pytest.StashKey[Callable[[], list[Record]]]()  # all that the run knows by now
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
    given = [
        *config.invocation_params.args,
        *shlex.split(os.environ.get("PYTEST_ADDOPTS", "")),
        *config.getini("addopts"),
    ]
    for option in (argument.split("=")[0] for argument in given):
        if option in REFUSED:
            raise pytest.UsageError(
                f"{option} has no effect on interleaved rounds; choose PROFILE=quick or full instead"
            )
    try:
        parse_targets(TARGETS)
        registry.select(all_studies(), STUDY, PROFILE)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", registry.select(all_studies(), STUDY, PROFILE), ids=lambda case: case.id)


@pytest.fixture(scope="session")
def recorded(request: pytest.FixtureRequest) -> Callable[[Case], Record]:
    """The record of a case: everything that is selected is measured when the first is asked for.

    The campaign ends, and with it a complete run's journal, when pytest does: after the JSON was written.
    """
    plugins, stash = request.config.pluginmanager, request.config.stash
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
    selected = [item.callspec.params["case"] for item in request.session.items if hasattr(item, "callspec")]
    targets = parse_targets(TARGETS)
    sources = fingerprint(*map(registry.root_of, study_folders()))
    path = JOURNALS / f"{PROFILE}-{TARGETS.replace(',', '+')}-{sources}.jsonl"
    journal = Journal.open(path, ENVIRONMENT)

    def say(line: str) -> None:
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.write(f"\n{line}\n")  # the dots of finished tests stand on the line before

    if journal.records:
        began = journal.environment["started"]
        say(f"going on with the run of {began}; to measure all afresh remove {journal.path}")
        ENVIRONMENT.update(journal.environment, **{"went on": ENVIRONMENT["started"]})
    suite = campaign.Suite.of(study_folders(), EFFORTS[PROFILE], journal, say)
    stack = ExitStack()
    request.config.add_cleanup(stack.close)
    stash[RECORDS] = lambda: campaign.records(suite, selected, targets)
    return stack.enter_context(campaign.campaign(suite, selected, targets))


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["environment"] = ENVIRONMENT


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """All that is known and is no benchmark to pytest-benchmark stands in a list of its own.

    That is what has no time, or not on the first target, and what was measured before the run was interrupted.
    """
    infos = [benchmark["extra_info"] for benchmark in output_json["benchmarks"]]
    shown = [(info["case"], info["target"]) for info in infos if "case" in info]
    known = map(asdict, config.stash.get(RECORDS, list)())
    output_json["more_records"] = [record for record in known if (record["case"], record["target"]) not in shown]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where nothing at all was timed pytest-benchmark writes no JSON; the reasons must not be lost with it."""
    config, benchmarks = session.config, session.config._benchmarksession  # type: ignore[attr-defined]
    if not benchmarks.json or benchmarks.benchmarks or not config.stash.get(RECORDS, list)():
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
