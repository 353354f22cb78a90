"""A campaign without a test runner: what ``adcost measure`` does."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from adcost.suite import campaign, registry
from adcost.suite.effort import EFFORTS
from adcost.suite.environment import describe, fingerprint
from adcost.suite.journal import Journal
from adcost.suite.vocabulary import described
from adcost.targets import parse_targets


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
    """
    chosen = parse_targets(targets)
    studies = registry.load(*folders)
    cases = registry.select(studies, study, profile)
    environment = {**describe(folders[0]), "profile": profile, "studies": described(studies.values())}
    sources = fingerprint(*map(registry.root_of, folders))
    if processes is not None and processes < 1:
        raise ValueError(f"{processes} processes: programs are timed in one at least")
    words = profile if processes is None else f"{profile}{processes}"
    path = output.with_name(f".{output.name}-{words}-{targets.replace(',', '+')}-{sources}.jsonl")
    journal = Journal.open(path, environment)
    if journal.records:
        print(f"going on with the run of {journal.environment['started']}; to measure all afresh remove {path}")
    effort = EFFORTS[profile] if processes is None else replace(EFFORTS[profile], processes=processes)
    suite = campaign.Suite(folders, studies, effort, journal, lambda line: print(line, flush=True))
    with campaign.campaign(suite, cases, chosen) as measured:
        for case in cases:
            measured(case)
        records = campaign.records(suite, cases, chosen)
        content = {"environment": journal.environment, "records": [asdict(record) for record in records]}
        part = output.with_name(output.name + ".part")
        part.write_text(json.dumps(content))
        part.replace(output)
    gaps = Counter(gap.reason for record in records for gap in record.missing)
    yield f"{len(records)} records of {len(cases)} cases: {output}"
    yield from (f"not measured, {count} times: {reason}" for reason, count in gaps.most_common())
