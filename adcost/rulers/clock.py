"""The ruler ``clock``: wall time, in interleaved rounds. Noise that outlasts a round hits all programs alike.

Ratios are paired: round by round, the median of the log-ratios, with a bootstrap interval.

References
----------
Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69 (2015), section 4.3: with
few samples a percentile interval is too narrow; it is widened as a t interval is against a normal one.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from adcost.rulers.subject import Subject
from adcost.suite.effort import LEAST_ROUNDS
from adcost.suite.vocabulary import Number

CONFIDENCE = 0.95


def take(subject: Subject) -> Iterator[Number]:
    """Seconds of the case's rounds, and their ratio to those of each program that it is compared with."""
    mine, target = subject.seconds, subject.target.name
    yield Number("clock", target, "time", "s", *median_interval(mine), len(mine))
    for name, others in subject.others.items():
        yield Number("clock", target, f"time / {name}", "1", *paired_ratio(mine, others), len(mine))


def rounds(
    programs: Mapping[str, Callable[[], Any]],
    budget: float,
    least: int,
    most: int,
    seed: int,
    before: Callable[[str], object] = lambda name: None,
) -> Iterator[dict[str, float]]:
    """Time all programs once a round, in a random order and then in its reverse, until ``budget`` seconds are spent.

    Each program blocks until its result is there; ``before(name)`` is called outside the clock. At least ``least``
    and at most ``most`` rounds; yields name -> seconds for each.
    """
    order = list(programs)
    shuffle = random.Random(seed).shuffle
    start = time.perf_counter()
    for done in range(most):
        if done >= least and time.perf_counter() - start > budget:
            return
        if done % 2:
            order.reverse()  # what it does to a program to come first or last cancels over two rounds
        else:
            shuffle(order)
        seconds = {}
        for name in order:
            before(name)
            seconds[name] = _seconds(programs[name])
        yield seconds


def _seconds(program: Callable[[], Any]) -> float:
    start = time.perf_counter()
    result = program()
    seconds = time.perf_counter() - start
    del result  # freed outside the clock
    return seconds


def median_interval(samples: Sequence[float]) -> tuple[float, float, float]:
    """Median of positive samples and its 95% bootstrap interval, taken on their logarithms.

    The interval is unbounded with fewer than ``LEAST_ROUNDS`` samples.
    """
    logs = np.log(np.asarray(samples, float))
    value = float(np.exp(np.median(logs)))
    n = len(logs)
    if n < LEAST_ROUNDS:
        return value, 0.0, float("inf")
    if np.ptp(logs) == 0:
        return value, value, value
    tail = stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    interval = stats.bootstrap(
        (logs,), np.median, confidence_level=1 - 2 * tail, method="percentile", n_resamples=2499, rng=0
    ).confidence_interval
    return value, float(np.exp(interval.low)), float(np.exp(interval.high))


def paired_ratio(samples: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """Median of the ratios of two programs timed in the same rounds, and its 95% bootstrap interval."""
    return median_interval(np.asarray(samples, float) / np.asarray(baseline, float))
