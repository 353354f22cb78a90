"""The ruler ``clock``: wall time, in interleaved rounds, in several processes.

Noise that outlasts a round hits all of its programs alike. A process is one draw of what stays the same in it: where
memory lies, how LAPACK was set up. So what is timed has levels, process and round, and the interval is over processes:
Student's t on their medians of log-seconds, or of log-ratios that are paired round by round. Nothing is left out as an
outlier.

References
----------
Kalibera and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013: levels, and that the interval belongs to the
highest. Barrett et al., "Virtual machine warmup blows hot and cold", OOPSLA 2017: processes differ.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import Interval, Number

CONFIDENCE = 0.95
LEAST_ORDERED = 6  # samples from which on the smallest and the largest bound a median at 95%
Samples = Sequence[Sequence[float]]  # by process and round


def take(subject: Subject) -> Iterator[Number]:
    """Seconds of the case's rounds, and their ratio to those of each program that it is compared with."""
    for name, others in {"": None, **subject.others}.items():
        logs = log_ratios(subject.seconds, others)
        timed = over_processes(logs)
        quantity, unit = (f"time / {name}", "1") if name else ("time", "s")
        yield Number(
            "clock",
            subject.target.name,
            quantity,
            unit,
            *exponentiated(timed.interval),
            repeats=sum(map(len, logs)),
            processes=len(logs),
            between=timed.between,
            within=timed.within,
        )


def rounds_within(budget: float, once: float, least: int, most: int) -> int:
    """How many rounds fit into ``budget`` seconds, of programs that took ``once`` to run one after the other."""
    return max(least, min(most, int(budget / max(once, 1e-9))))


def rounds(
    programs: Mapping[str, Callable[[], Any]],
    count: int,
    seed: int,
    before: Callable[[str], object] = lambda name: None,
) -> Iterator[dict[str, float]]:
    """Time all programs once a round, ``count`` times, each round in an order of its own; yields name -> seconds.

    Each program blocks until its result is there; ``before(name)`` is called outside the clock.
    """
    order, shuffle = list(programs), random.Random(seed).shuffle
    for _ in range(count):
        shuffle(order)
        seconds = {}
        for name in order:
            before(name)
            seconds[name] = seconds_of(programs[name])
        yield seconds


def seconds_of(program: Callable[[], Any]) -> float:
    """Seconds that one run takes."""
    start = time.perf_counter()
    result = program()
    seconds = time.perf_counter() - start
    del result  # freed outside the clock
    return seconds


def log_ratios(samples: Samples, others: Samples | None) -> list[np.ndarray]:
    """Logarithms of seconds, or of their ratios to others of the same rounds, by process; empty processes left out."""
    if others is None:
        return [np.log(np.asarray(mine, float)) for mine in samples if len(mine)]
    pairs = zip(samples, others, strict=False)
    return [np.log(np.divide(mine, other)) for mine, other in pairs if len(mine) and len(mine) == len(other)]


class Timed(NamedTuple):
    """Of logarithms: (value, low, high), and the standard deviations between processes and within one."""

    interval: Interval
    between: float | None
    within: float | None


def over_processes(logs: Sequence[np.ndarray]) -> Timed:
    """Mean of the processes' medians with its 95% interval by Student's t.

    Of one process alone the interval is by order statistics of its rounds, and does not speak for another process.
    Unbounded where there is too little.
    """
    medians = np.array([np.median(found) for found in logs])
    deviations = [found - np.median(found) for found in logs if len(found) > 1]
    degrees = sum(len(found) - 1 for found in deviations)
    within = float(np.sqrt(sum(np.sum(found**2) for found in deviations) / degrees)) if degrees else None
    if len(medians) < 2:
        return Timed(ordered_interval(logs[0]) if len(logs) else UNKNOWN, None, within)
    value, between = float(np.mean(medians)), float(np.std(medians, ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(medians) - 1)) * between / len(medians) ** 0.5
    return Timed(Interval(value, value - half, value + half), between, within)


def exponentiated(logs: Interval) -> Interval:
    """The interval of a quantity from that of its logarithm."""
    return Interval(*(float(np.exp(end)) for end in logs))


UNKNOWN = Interval(np.nan, -np.inf, np.inf)


def ordered_interval(sample: Sequence[float] | np.ndarray) -> Interval:
    """Median of a sample with its interval of at least 95% by order statistics; unbounded of fewer than six.

    The smallest and the largest of six bound it in 96.9% of cases (Conover, Practical Nonparametric Statistics, 3rd ed.
    1999, section 3.2).
    """
    found = np.sort(np.asarray(sample, float))
    n, value = len(found), float(np.median(found))
    if n < LEAST_ORDERED:
        return Interval(value, -np.inf, np.inf)
    rank = int(stats.binom.ppf((1 - CONFIDENCE) / 2, n, 0.5))
    return Interval(value, float(found[rank - 1]), float(found[n - rank]))
