"""``python -m analysis.coverage RESULTS``: how often the interval of a run covers what the other processes say.

A result that was timed in many processes is cut into runs of ``PROCESSES`` processes each, one after the other as they
ran. The interval of each run is held against the mean of all other processes, with the error of that mean: Welch's t.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from adcost.rulers import clock
from analysis import frame

PROCESSES = 5  # of a run: those of the quick profile


@dataclass(frozen=True)
class Coverage:
    """Of intervals of one study: how many, and how many cover; ``once`` those of one process's rounds alone."""

    study: str
    intervals: int
    covering: int
    once: int

    @property
    def share(self) -> float:
        return self.covering / self.intervals if self.intervals else float("nan")


def paired(timings: pd.DataFrame) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Log-ratios by process, with the study: of every case to the first of those that share its rounds."""
    for (study, *_), rows in timings.groupby(["study", "target", "source", "seeds"], sort=False):
        first, *others = rows["samples"]
        yield from ((str(study), clock.log_ratios(samples, first)) for samples in others)


def covers(run: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    """Does the interval of a run's processes cover the mean of the others?"""
    mine, rest = (np.array([np.median(found) for found in processes]) for processes in (run, others))
    return bool(stats.ttest_ind(mine, rest, equal_var=False).pvalue >= 1 - clock.CONFIDENCE)


def of_one_process(logs: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    """Does the interval of one process's rounds cover the mean of the other processes?"""
    _, low, high = clock.ordered_interval(logs)
    return bool(low <= np.mean([np.median(found) for found in others]) <= high)


def coverage(timings: pd.DataFrame, processes: int = PROCESSES) -> list[Coverage]:
    """Coverage by study, and of all together; of ratios that were timed in at least two runs' worth of processes."""
    found: dict[str, list[tuple[bool, bool]]] = {}
    for study, logs in paired(timings):
        for start in range(0, len(logs) - processes + 1, processes) if len(logs) >= 2 * processes else ():
            run, others = logs[start : start + processes], logs[:start] + logs[start + processes :]
            if np.ptp(np.concatenate(logs)) > 0:
                found.setdefault(study, []).append((covers(run, others), of_one_process(run[0], run[1:] + others)))
    found["all"] = [pair for pairs in found.values() for pair in pairs]
    return [
        Coverage(name, len(pairs), *(sum(column) for column in zip(*pairs, strict=True)))
        for name, pairs in found.items()
        if pairs
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    paths = [Path(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    try:
        found = coverage(frame.read(paths).timings)
    except ValueError as error:
        print(f"coverage: {error}", file=sys.stderr)
        return 2
    if not found:
        print(
            f"coverage: needs a result of at least {2 * PROCESSES} processes; make one with `make noise`",
            file=sys.stderr,
        )
        return 2
    for row in found:
        covering = f"{row.covering} of {row.intervals} intervals over {PROCESSES} processes cover ({row.share:.1%})"
        print(f"{row.study}: {covering}; of one process alone {row.once / row.intervals:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
