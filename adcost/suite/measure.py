"""A campaign without a test runner: what ``adcost measure`` does."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from adcost.suite import registry
from adcost.suite.campaign import Campaign, Ended, Suite
from adcost.suite.effort import EFFORTS
from adcost.suite.environment import describe, fingerprint
from adcost.suite.journal import Journal
from adcost.suite.lock import alone
from adcost.suite.schema import SCHEMA
from adcost.suite.vocabulary import described
from adcost.targets import parse_targets
from adcost.whole import write_whole


def measure_to_file(
    folders: Sequence[Path], study: str, profile: str, targets: str, output: Path, processes: int | None = None
) -> Iterator[str]:
    """Measure studies and write ``{"environment": ..., "records": [...]}``; yields what to tell the user at the end.

    Programs are timed in so many processes, or in as many as the profile has. The journal lies beside the output until
    the run is complete.

    Raises
    ------
    ValueError
        If a folder, a study, a profile or a target is unknown; in one line.
    OSError
        If a file cannot be written; what was measured is in the journal.
    AnotherRuns
        If another run measures beside the output.
    """
    chosen = parse_targets(targets)
    left_out: list[str] = []
    studies = registry.load(*folders, say=left_out.append)
    for line in left_out:
        print(line, flush=True)
    cases = registry.select(studies, study, profile)
    environment = {**describe(folders[0]), "profile": profile, "studies": described(studies.values())}
    sources = fingerprint(*map(registry.root_of, folders))
    if processes is not None and processes < 1:
        raise ValueError(f"{processes} processes: programs are timed in one at least")
    words = profile if processes is None else f"{profile}{processes}"
    path = output.with_name(f".{output.name}-{words}-{targets.replace(',', '+')}-{sources}.jsonl")
    with alone(output.absolute().parent):
        journal = Journal.open(path, environment, sources)
        for line in journal.said():
            print(line)
        effort = EFFORTS[profile] if processes is None else replace(EFFORTS[profile], processes=processes)
        suite = Suite(folders, studies, effort, journal, lambda line: print(line, flush=True))
        campaign = Campaign(suite, cases, chosen)
        with suppress(Ended):
            campaign.record(cases[0])
        records = campaign.records()
        content = {
            "schema": SCHEMA,
            "environment": {**journal.environment, "plan": [case.id for case in cases], "left_out": left_out},
            "records": [asdict(record) for record in records],
        }
        write_whole(output, json.dumps(content))
        campaign.forget()
    gaps = Counter(gap.reason for record in records for gap in record.missing)
    yield f"{len(records)} records of {len(cases)} cases: {output}"
    yield from (f"not measured, {count} times: {reason}" for reason, count in gaps.most_common())
    if campaign.ended:
        raise RuntimeError(
            f"{campaign.ended}; what was measured is in {output}, and the same command goes on from there"
        )
