"""Exponents with their intervals. (Ratios have theirs in ``adcost.rulers.clock``.)"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

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
    degrees: int | None = None  # of freedom


def exponent(n: Sequence[float], y: Sequence[float], resolution: float = 0.0) -> Exponent:
    """Fit ``a + b n^p`` in relative error, a and b not negative; bootstrap over the cases.

    The fixed cost ``a`` is fitted because it would bias the slope of a log-log line. What falls has a negative
    exponent. Growth or fall of less than ``resolution`` over all sizes is none: the exponent is then 0, and the
    interval's ends are the slopes that such a growth or fall would have. An end of the grid on which exponents are
    sought bounds nothing: there the interval is infinite.

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
        note = f"grows or falls by less than the resolution of {resolution:.3g}"
        return Exponent(0.0, -most, most, float(values.mean()), 0.0, len(sizes), note)
    exponents, a, b = _fit(sizes, values, _resamples(sizes))
    p = float(exponents[0])
    low, high = _widened(p, exponents[1:], len(sizes), 3)
    low, high = -np.inf if low <= -LARGEST_EXPONENT else low, np.inf if high >= LARGEST_EXPONENT else high
    return Exponent(p, low, high, float(a[0]), float(b[0]), len(sizes), degrees=len(sizes) - 3)


def slope(n: Sequence[float], y: Sequence[float]) -> Exponent:
    """Fit ``a + b n`` in relative error, a and b not negative: b with its 95% bootstrap interval over the cases."""
    sizes, values = np.asarray(n, float), np.asarray(y, float)
    _, a, b = _linear(sizes[None, None], values, _resamples(sizes))
    value = float(b[0, 0])
    low, high = _widened(value, b[1:, 0], len(sizes), 2)
    return Exponent(value, low, high, float(a[0, 0]), value, len(sizes), degrees=len(sizes) - 2)


def _widened(value: float, resampled: Array, points: int, parameters: int) -> tuple[float, float]:
    """The 95% bootstrap interval, widened as a t interval is against a normal one: few points resample too narrowly.

    Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69 (2015), section 4.3.
    """
    low, high = np.quantile(resampled, [0.025, 0.975])
    degrees = points - parameters
    few = (points / degrees) ** 0.5 * float(stats.t.ppf(0.975, degrees) / stats.norm.ppf(0.975))
    return value - few * max(value - float(low), 0.0), value + few * max(float(high) - value, 0.0)


LEAST_SPLITS = 5


def best_split(k: Sequence[float], length: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Fit ``a + b k + c length`` in relative error, where k length is the same everywhere: the k where that is least.

    It is sqrt(c k length / b), with its 95% bootstrap interval over the cases; infinite where more is always better.
    """
    parts, lengths, values = (np.asarray(given, float) for given in (k, length, y))
    columns = np.stack([np.ones_like(parts), parts, lengths], axis=1) / values[:, None]
    counts = _resamples(parts)[:, :, None]
    gram = columns.T @ (counts * columns)
    _, b, c = np.linalg.solve(gram, columns.T @ counts)[..., 0].T
    found = np.sqrt(np.maximum(c, 0) * parts[0] * lengths[0] / np.where(b > 0, b, 1))
    best = np.where(b > 0, found, np.inf)
    low, high = np.quantile(best[1:], [0.025, 0.975], method="nearest")
    return float(best[0]), min(float(best[0]), float(low)), max(float(best[0]), float(high))


def _resamples(sizes: Array) -> Array:
    """How often each case is held: first the sample itself, then its resamples."""
    rng = np.random.default_rng(0)
    counts = [np.ones(len(sizes))]
    while len(counts) <= RESAMPLES:
        pick = rng.integers(len(sizes), size=len(sizes))
        if len(np.unique(sizes[pick])) >= 4:  # fewer do not determine three parameters
            counts.append(np.bincount(pick, minlength=len(sizes)).astype(float))
    return np.stack(counts)


def _fit(n: Array, y: Array, counts: Array) -> tuple[Array, Array, Array]:
    """p, a and b for each row of ``counts``: at every p the best a and b are those of a linear problem.

    Golub and Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems whose variables
    separate", SIAM J. Numer. Anal. 10 (1973). The best p is found on a grid, which is then narrowed.
    """
    x = n / n.max()
    rising = np.linspace(0.01, LARGEST_EXPONENT, 200)
    p = np.concatenate([-rising[::-1], rising])[None].repeat(len(counts), 0)
    flat = counts.sum(-1) - (counts / y).sum(-1) ** 2 / (counts / y**2).sum(-1)  # the cost of a constant
    for _ in range(5):
        cost, a, b = _linear(x ** p[..., None], y, counts)
        rows, best = np.arange(len(p)), cost.argmin(1)
        found = p[rows, best], a[rows, best], b[rows, best]
        step = p[:, 1] - p[:, 0]
        near = found[0][:, None] + step[:, None] * np.linspace(-1, 1, 41)
        sign = np.sign(found[0])[:, None]  # at 0 the columns are one
        p = sign * np.clip(sign * near, 0.01, LARGEST_EXPONENT)
    constant = flat <= cost.min(1) + 1e-12 * counts.sum(-1)  # then any exponent would do
    exponents = np.where(constant, 0.0, found[0])
    return exponents, found[1], np.where(constant, 0.0, found[2]) / n.max() ** exponents


def _linear(powers: Array, y: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Cost, a and b of the least squares of 1 - (a + b powers) / y with a and b not negative, weighted by counts."""
    u, v, w = 1 / y, powers / y, counts[:, None, :]
    uu, uv, vv = ((w * term).sum(-1) for term in (u * u, u * v, v * v))
    u1, v1, total = ((w * term).sum(-1) for term in (u, v, np.ones_like(y)))
    determinant = uu * vv - uv * uv
    apart = determinant > 1e-13 * uu * vv  # otherwise rounding alone tells the columns apart
    determinant = np.where(apart, determinant, 1)
    a, b = (vv * u1 - uv * v1) / determinant, (uu * v1 - uv * u1) / determinant
    inside = apart & (a >= 0) & (b >= 0)
    constant = u1**2 / uu > v1**2 / vv  # at the edge: which of the two alone explains more
    a = np.where(inside, a, np.where(constant, u1 / uu, 0))
    b = np.where(inside, b, np.where(constant, 0, v1 / vv))
    return total - a * u1 - b * v1, a, b
