"""The ruler ``estimate``: what a large sample of unbiased estimates says, against a truth that is known.

The sample is cut into blocks of V; a block's mean is what somebody with V probes would have. Each figure comes with a
95% interval: of a mean by Student's t, of a variance and of a root mean square by chi-square (means of blocks are
nearly normal, single estimates are not), of a share by Wilson's score, of an exponent by resampling the estimates.
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
RESAMPLES = 200

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
            flags=found.flags,
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
    if len(sample) >= 8 * LEAST_BLOCKS and np.all(sample != truth):
        yield Figure("error exponent", "1", *_error_exponent(sample, truth), repeats=len(sample))
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


def _error_exponent(sample: Array, truth: float) -> tuple[float, float, float]:
    """The slope of the root mean square error in the number of probes, both as logarithms; the estimates resampled.

    Errors of different numbers of probes are of the same estimates: resampling them as points would count each again.
    """
    sizes = 2 ** np.arange(int(np.log2(len(sample) // LEAST_BLOCKS)) + 1)
    weights = (len(sample) // sizes) ** 0.5  # the error of a root mean square falls with the root of its blocks

    def slope(drawn: Array) -> float:
        errors = [np.mean((blocks(drawn, int(size)).mean(1) / truth - 1) ** 2) ** 0.5 for size in sizes]
        return float(np.polyfit(np.log(sizes), np.log(errors), 1, w=weights)[0])

    rng = np.random.default_rng(0)
    drawn = [slope(rng.choice(sample, len(sample))) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = slope(np.asarray(sample, float))
    return value, min(value, float(low)), max(value, float(high))


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
