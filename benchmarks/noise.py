"""How good is the clock here? ``python -m benchmarks.noise``: the same executable against itself, in 20 runs.

Each run times the report's own groups (the quick profile's, every program in its round) as long as a report does, and
takes the ratio of the baseline to itself over all rounds: what the report prints as its noise floor. Compilation is
shared by the runs. ``--deepest`` and ``--runs`` make it shorter. Fails if fewer than 19 of 20 runs are within 2% of 1
or if fewer than 19 of 20 intervals cover 1.
"""

import argparse
import sys
import tempfile
from itertools import groupby
from math import ceil
from pathlib import Path

import numpy as np

from adcost.rulers.clock import median_interval
from adcost.suite import campaign
from adcost.suite.effort import EFFORTS
from adcost.suite.journal import Journal
from adcost.suite.probe import AGAIN
from adcost.suite.registry import select
from adcost.targets import TARGETS
from benchmarks import study_folders

NEAR = 0.02
SHARE = 19 / 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noise", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--deepest", type=int, default=1024, help="leave out groups of more layers")
    options = parser.parse_args()
    target = TARGETS["cpu"]
    pooled: list[tuple[float, float, float]] = []
    by_depth: dict[int, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        suite = campaign.Suite.of(study_folders(), EFFORTS["quick"], Journal.open(folder / "journal.jsonl"))
        baseline = suite.studies["backprop"].baselines[0]
        cases = [case for case in select(suite.studies, "backprop", "quick") if case["depth"] <= options.deepest]
        with campaign.measuring(target, suite.folders) as ask:
            campaign.measure(suite, cases, target, ask, folder, rulers=())
        saved = [case for case in cases if (folder / case.id).exists()]
        for run in range(1, options.runs + 1):
            ratios: list[float] = []
            for _, group in groupby(saved, key=lambda case: case.size):
                members = list(group)
                samples = campaign.timed_in_rounds(suite, members, target, folder)
                name = members[0].with_method(baseline).id
                pairs = list(np.divide(samples[name], samples[name + AGAIN]))
                by_depth.setdefault(members[0]["depth"], []).append(median_interval(pairs))
                ratios.extend(pairs)
            pooled.append(median_interval(ratios))
            print("run {:2d}: {:.4f} [{:.4f}, {:.4f}]".format(run, *pooled[-1]), f"{len(ratios)} rounds", flush=True)
    for depth, found in by_depth.items():
        widths = np.median([high - low for _, low, high in found])
        print(f"depth {depth:5d}: {_counted(found)}; the median interval is {widths:.3f} wide")
    print(f"all depths: {_counted(pooled)}")
    least = ceil(SHARE * options.runs)
    return 0 if min(_near(pooled), _covering(pooled)) >= least else 1


def _near(found: list[tuple[float, float, float]]) -> int:
    return sum(abs(value - 1) <= NEAR for value, _, _ in found)


def _covering(found: list[tuple[float, float, float]]) -> int:
    return sum(low <= 1 <= high for _, low, high in found)


def _counted(found: list[tuple[float, float, float]]) -> str:
    return f"within 2% of 1 in {_near(found)} of {len(found)} runs, the interval covers 1 in {_covering(found)}"


if __name__ == "__main__":
    sys.exit(main())
