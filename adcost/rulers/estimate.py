"""The ruler ``estimate``: what a large sample of unbiased estimates says, against a truth that is known.

The sample is cut into blocks of V; a block's mean is what somebody with V probes would have. Each figure comes with a
95% interval: of a mean by Student's t, of a variance and of a root mean square by chi-square (means of blocks are
nearly normal, single estimates are not), of a share by Wilson's score.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import Figure, Number

CONFIDENCE = 0.95
LEAST_BLOCKS = 64  # below, a root mean square is known to no better than a fifth
NEARLY_NORMAL = 16  # estimates to a block, from which on its mean is taken for normal
RUNS, RUN_LENGTH = 6, 1024

Array = NDArray[np.float64]


def take(subject: Subject) -> Iterator[Number]:
    """What the program's result says, where its study asks for that."""
    if subject.program.says is None:
        return
    for found in subject.program.says(np.asarray(subject.result)):
        yield Number(
            "estimate",
            subject.target.name,
            found.quantity,
            found.unit,
            float(found.value),
            found.low,
            found.high,
            found.repeats,
            at=found.at,
        )


def of_sample(sample: Array, truth: float) -> Iterator[Figure]:
    """Mean, variance, error by number of probes, coverage of the usual interval, and single runs.

    Errors are relative to the truth; the variance is that of one estimate.
    """
    mean, sem = float(sample.mean()), float(stats.sem(sample))
    low, high = stats.t.interval(CONFIDENCE, len(sample) - 1, mean, sem)
    yield Figure("mean", "1", mean, float(low), float(high), len(sample))
    means = blocks(sample, NEARLY_NORMAL).mean(1)
    spread = NEARLY_NORMAL * float(means.var(ddof=1))
    yield Figure("variance", "1", spread, *_chi_square(spread, len(means) - 1), len(means))
    size = 1
    while len(sample) // size >= LEAST_BLOCKS:
        errors = blocks(sample, size).mean(1) / truth - 1
        square = float(np.mean(errors**2))
        interval = np.sqrt(_chi_square(square, len(errors)))
        low, high = map(float, interval)
        yield Figure("error", "1", square**0.5, low, high, len(errors), (("probes", size),))
        size *= 2
    for size in (NEARLY_NORMAL, 4 * NEARLY_NORMAL):
        cut = blocks(sample, size)
        half = stats.t.ppf((1 + CONFIDENCE) / 2, size - 1) * stats.sem(cut, axis=1)
        covered = int(np.sum(np.abs(cut.mean(1) - truth) <= half))
        share = stats.binomtest(covered, len(cut)).proportion_ci(method="wilson")
        low, high = float(share.low), float(share.high)
        yield Figure("coverage", "1", covered / len(cut), low, high, len(cut), (("probes", size),))
    counts = np.unique(np.geomspace(1, RUN_LENGTH, 25).astype(int))
    for run, one in enumerate(blocks(sample, RUN_LENGTH)[:RUNS]):
        running = np.cumsum(one)
        for count in counts:
            at = (("run", run), ("probes", int(count)))
            yield Figure("running mean", "1", float(running[count - 1] / count), at=at)


def of_draws(estimates: Array, truth: float) -> Iterator[Figure]:
    """The root mean square error of estimates of one kind, relative to the truth."""
    errors = np.asarray(estimates, float) / truth - 1
    square = float(np.mean(errors**2))
    low, high = np.sqrt(_chi_square(square, len(errors)))
    yield Figure("error", "1", square**0.5, float(low), float(high), len(errors))


def blocks(sample: Array, size: int) -> Array:
    """The sample in rows of so many, what does not fill a row left out."""
    count = len(sample) // size
    return np.asarray(sample[: count * size], float).reshape(count, size)


def _chi_square(variance: float, degrees: int) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    return degrees * variance / stats.chi2.ppf(1 - tail, degrees), degrees * variance / stats.chi2.ppf(tail, degrees)
