"""How good is the clock here? ``python -m benchmarks.noise``: the same executable against itself, in 20 runs.

A run times vanilla backprop twice a round at the quick profile's depths to 144, with two more programs in the round,
and pools all rounds. The report's own rounds hold more programs, and its deepest groups fewer rounds: their A/A
intervals are wider, and those are what its verdicts use.
Each line is a run with its ratio and 95% interval; the last line counts.
"""

import sys
import tempfile
from itertools import groupby
from pathlib import Path

import numpy as np

from benchmarks.cases import select, studies
from benchmarks.recorder import EFFORTS, Journal, record_group
from benchmarks.rulers.clock import median_interval
from benchmarks.targets import TARGETS

RUNS = 20
DEEPEST = 144  # beyond, a run would take minutes and add few rounds


def main() -> int:
    study = studies()["backprop"]
    cases = [
        case for case in select("backprop", "quick") if case.method in study.baselines and case["depth"] <= DEEPEST
    ]
    ratios = []
    for run in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            journal = Journal.open(Path(folder) / "journal.jsonl", "noise")
            for _, group in groupby(cases, key=lambda case: case.size):
                record_group(list(group), TARGETS["cpu"], EFFORTS["noise"], journal, lambda line: None)
        pairs = [
            pair for record in journal.records.values() for pair in zip(record.samples, record.again, strict=False)
        ]
        first, again = np.array(pairs).T
        ratios.append(median_interval(first / again))
        print(
            "run {:2d}: ratio {:.4f} [{:.4f}, {:.4f}]".format(run + 1, *ratios[-1]), f"{len(pairs)} rounds", flush=True
        )
    near = sum(abs(value - 1) <= 0.02 for value, _, _ in ratios)
    covering = sum(low <= 1 <= high for _, low, high in ratios)
    print(f"within 2% of 1: {near} of {RUNS}; interval covers 1: {covering} of {RUNS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
