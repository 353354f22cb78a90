"""Exponents with their intervals. (Ratios have theirs in ``benchmarks.rulers.clock``.)"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

LEAST_SIZES = 8
RESAMPLES = 400
LARGEST_EXPONENT = 4.0


@dataclass(frozen=True)
class Exponent:
    """y = a + b n^p: the exponent p with its 95% bootstrap interval, and the curve."""

    value: float
    low: float
    high: float
    a: float
    b: float
    points: int
    note: str = ""


def exponent(n: Sequence[float], y: Sequence[float], resolution: float = 0.0) -> Exponent:
    """Fit ``a + b n^p`` in relative error, a and b not negative; bootstrap over the cases.

    The fixed cost ``a`` is fitted because it would bias the slope of a log-log line. Growth of less than
    ``resolution`` over all sizes is no growth: the exponent is then 0, and the interval's upper end is the slope
    that such a growth would have.

    Raises
    ------
    ValueError
        With fewer than ``LEAST_SIZES`` different sizes.
    """
    sizes, values = np.asarray(n, float), np.asarray(y, float)
    if len(np.unique(sizes)) < LEAST_SIZES:
        raise ValueError(f"an exponent needs {LEAST_SIZES} sizes, there are {len(np.unique(sizes))}")
    if np.ptp(values) <= resolution:
        least = max(float(values.min()), 1e-300)
        most = float(np.log((least + resolution) / least) / np.log(sizes.max() / sizes.min()))
        note = f"grows by less than the resolution of {resolution:.3g}"
        return Exponent(0.0, 0.0, most, float(values.mean()), 0.0, len(sizes), note)
    p, a, b = _fit(sizes, values)
    rng = np.random.default_rng(0)
    resampled: list[float] = []
    while len(resampled) < RESAMPLES:
        pick = rng.integers(len(sizes), size=len(sizes))
        if len(np.unique(sizes[pick])) >= 4:  # fewer do not determine three parameters
            resampled.append(_fit(sizes[pick], values[pick])[0])
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Exponent(p, min(p, float(low)), max(p, float(high)), a, b, len(sizes))


def _fit(n: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    def solve(p: float) -> tuple[NDArray[np.float64], float]:
        columns = np.stack([np.ones_like(n), (n / n.max()) ** p], axis=1) / y[:, None]
        return optimize.nnls(columns, np.ones_like(y))

    grid = np.linspace(0.05, LARGEST_EXPONENT, 14)
    start = int(np.argmin([solve(p)[1] for p in grid]))
    bounds = (grid[max(start - 1, 0)] if start else 0.01, grid[min(start + 1, len(grid) - 1)])
    p = float(optimize.minimize_scalar(lambda p: solve(p)[1], bounds=bounds, method="bounded").x)
    (a, b), _ = solve(p)
    return p, float(a), float(b / n.max() ** p)
