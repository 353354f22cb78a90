"""What the clock cannot tell: a program against the same one, compiled again, and how much of noise lies where."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from adcost.rulers import clock

SWAPS = 2000


@dataclass(frozen=True)
class AgainstItself:
    """Programs that were compiled twice and timed in the same rounds.

    ``excluding`` of so many ``sets`` have a 95% interval that does not hold 1; ``p`` is how often as many or more
    would, if in each process it were drawn by lot which compilation is called the first. ``crossed``: the same where
    the two are taken from different processes.
    """

    sets: int
    excluding: int
    p: float
    crossed: int

    @property
    def by_chance(self) -> float:
        """Sets that are expected to exclude 1 if nothing differs."""
        return (1 - clock.CONFIDENCE) * self.sets


def against_itself(timings: pd.DataFrame) -> AgainstItself | None:
    """The A/A line of a run; None where nothing was compiled twice and timed in several processes."""
    twice = timings[timings["again"].map(len) > 1] if len(timings) else timings
    both: Any = zip(twice["samples"], twice["again"], strict=True) if len(twice) else ()
    pairs = [(samples, again) for samples, again in both if len(samples) == len(again)]
    medians = [np.array([np.median(found) for found in clock.log_ratios(*pair)]) for pair in pairs]
    medians = [found for found in medians if len(found) > 1 and np.ptp(found) > 0]
    if not medians:
        return None
    observed = sum(bool(_excludes(found[None])[0]) for found in medians)
    rng = np.random.default_rng(0)
    swapped = sum(_excludes(rng.choice([-1.0, 1.0], (SWAPS, len(found))) * found) for found in medians)
    crossed = sum(_crossed(*pair) for pair in pairs)
    return AgainstItself(len(medians), observed, float(np.mean(swapped >= observed)), crossed)


def _excludes(medians: np.ndarray) -> np.ndarray:
    """Does the interval over processes, a row each, exclude 0?"""
    count = medians.shape[1]
    half = stats.t.ppf((1 + clock.CONFIDENCE) / 2, count - 1) * medians.std(axis=1, ddof=1) / count**0.5
    return np.abs(medians.mean(axis=1)) > half


def _crossed(samples: Sequence[Sequence[float]], again: Sequence[Sequence[float]]) -> bool:
    """The first compilation in one half of the processes against the second in the other half, by Welch's t."""
    first, second = ([np.median(np.log(found)) for found in half] for half in (samples[::2], again[1::2]))
    return len(second) > 1 and bool(stats.ttest_ind(first, second, equal_var=False).pvalue < 1 - clock.CONFIDENCE)


@dataclass(frozen=True)
class Spread:
    """Median standard deviations of a ratio of times, as shares: between processes, and of the rounds in one."""

    ratios: int
    between: float
    within: float
    outliers: int
    rounds: int


OUTLYING = 1.5  # interquartile ranges beyond the quartiles (Tukey 1977)


def spread(frame: pd.DataFrame, timings: pd.DataFrame) -> Spread | None:
    """Where the noise of a run lies; outliers are counted, none is left out."""
    ratios = frame[(frame["ruler"] == "clock") & frame["quantity"].str.startswith("time / ") & (frame["processes"] > 1)]
    if len(ratios) == 0:
        return None
    between, within = (exp(float(ratios[name].median())) - 1 for name in ("between", "within"))
    outliers = rounds = 0
    for samples in timings["samples"]:
        seconds = np.concatenate([np.log(found) - np.median(np.log(found)) for found in samples if len(found)])
        low, high = np.quantile(seconds, [0.25, 0.75])
        outliers += int(np.sum((seconds < low - OUTLYING * (high - low)) | (seconds > high + OUTLYING * (high - low))))
        rounds += len(seconds)
    return Spread(len(ratios), between, within, outliers, rounds)
