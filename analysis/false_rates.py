"""``python -m analysis.false_rates RESULTS``: how often each rule on times is wrong, under the noise that was recorded.

For each noisy verdict of a result its quantity is given a truth of our choosing, numbers are drawn about that truth as
the run's own noise has them (between processes; the shape of the noise is that of all processes of the run), and the
rule and the judge are asked again. With the truth as predicted a verdict of ``refuted`` is false; with the truth just
outside the band, or at twice or five times its half-width, one of ``confirmed`` is.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, isfinite, log
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from adcost.rulers import clock
from analysis import frame, studies
from analysis.coverage import paired
from analysis.frame import Results, parameters
from analysis.rules import exponent
from analysis.verdict import Test, Verdict, judge

DRAWS, FITS = 400, 60  # of a ratio at one size, and of a fit over sizes
OUTSIDE = (1.02, 2.0, 5.0)  # times the band's half-width: where the truth lies that must not be confirmed
UNIT = log(1.1)  # the half-width of a band that is open to one side
ALLOWED = 0.05
Drawn = Callable[[float], tuple[float, float, float]]  # a truth to an interval about it


@dataclass(frozen=True)
class Rate:
    """A rule's false verdicts: of how many rows, and the shares with the truth as predicted and outside the band."""

    claim: str
    quantity: str
    rows: int
    refuted: float
    confirmed: tuple[float, ...]

    @property
    def kept(self) -> bool:
        return max(self.refuted, *self.confirmed) <= ALLOWED


def shape_of_noise(timings: pd.DataFrame) -> np.ndarray:
    """Distances of processes' medians from their mean, each over the deviation of its own ratio, of all pairs."""
    found = []
    for _, logs in paired(timings):
        medians = np.array([np.median(rounds) for rounds in logs])
        if len(medians) > 2 and medians.std(ddof=1) > 0:
            scale = (len(medians) / (len(medians) - 1)) ** 0.5  # residuals about a mean are too small
            found.append(scale * (medians - medians.mean()) / medians.std(ddof=1))
    return np.concatenate(found) if found else np.array([])


def rates(results: Results) -> Iterator[Rate]:
    """Every rule on times of the claims that the results hold, each over all of its rows."""
    shape = shape_of_noise(results.timings)
    if not len(shape):
        raise ValueError("the results know one process alone: measure again with adcost 0.4")
    rng = np.random.default_rng(0)
    by_rule: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    by_id = results.frame.set_index("id")
    for verdict in studies.verdicts(results):
        if verdict.p is None or verdict.ruler != "clock" or verdict.processes < 1:
            continue
        found = _simulated(verdict, by_id, shape, rng)
        if found is not None:
            by_rule.setdefault((verdict.claim, verdict.quantity), []).append(found)
    for (claim, quantity), shares in by_rule.items():
        refuted, *confirmed = np.mean(shares, axis=0)
        yield Rate(claim, quantity, len(shares), float(refuted), tuple(map(float, confirmed)))


def _simulated(
    verdict: Verdict, by_id: pd.DataFrame, shape: np.ndarray, rng: np.random.Generator
) -> tuple[float, ...] | None:
    """Share refuted with the truth as predicted, and shares confirmed outside; None of a rule that is not simulated."""
    linear = verdict.quantity.startswith("exponent")
    if linear:
        drawn, count = _of_an_exponent(verdict, by_id, shape, rng), FITS
    elif verdict.processes > 1:
        drawn, count = _of_a_ratio(verdict, shape, rng), DRAWS
    else:
        return None
    if drawn is None or verdict.band_low is None or verdict.band_high is None:
        return None
    truth, outside = _truths(verdict, linear)
    shares = []
    for kind, value in [("refuted", truth), *(("confirmed", value) for value in outside)]:
        kinds = [judge(verdict.band_low, verdict.band_high, *drawn(value)) for _ in range(count)]
        shares.append(sum(found == kind for found in kinds) / count)
    return tuple(shares)


def _truths(verdict: Verdict, linear: bool) -> tuple[float, list[float]]:
    """A truth as predicted, and those outside the band; ratios on a logarithmic scale."""
    assert verdict.band_low is not None
    assert verdict.band_high is not None
    ends = [
        end if linear or not isfinite(end) else log(max(end, 1e-12)) for end in (verdict.band_low, verdict.band_high)
    ]
    if isfinite(ends[0]) and isfinite(ends[1]):
        middle, half = sum(ends) / 2, (ends[1] - ends[0]) / 2
        truths = [middle, *(middle + factor * half for factor in OUTSIDE)]
    else:
        edge, sign = (ends[1], 1) if isfinite(ends[1]) else (ends[0], -1)
        truths = [edge - sign * UNIT, *(edge + sign * (factor - 1) * UNIT for factor in OUTSIDE)]
    first, *outside = truths if linear else map(exp, truths)
    return first, outside


def _of_a_ratio(verdict: Verdict, shape: np.ndarray, rng: np.random.Generator) -> Drawn | None:
    """A ratio at one size, with the noise between processes that its own interval has."""
    assert verdict.low is not None
    assert verdict.high is not None
    if not (verdict.low > 0 and verdict.high < inf):
        return None
    k = verdict.processes
    deviation = log(verdict.high / verdict.low) / 2 * k**0.5 / float(stats.t.ppf((1 + clock.CONFIDENCE) / 2, k - 1))

    def drawn(truth: float) -> tuple[float, float, float]:
        medians = log(truth) + deviation * rng.choice(shape, k)
        return clock.exponentiated(clock.over_processes([np.array([median]) for median in medians]).interval)

    return drawn


def _of_an_exponent(verdict: Verdict, by_id: pd.DataFrame, shape: np.ndarray, rng: np.random.Generator) -> Drawn | None:
    """A power of the size, at the sizes and with the noise of the rows that the rule read."""
    rows = by_id.loc[list(verdict.rows)]
    rows = rows[(rows["ruler"] == "clock") & (rows["method"] == verdict.method) & (rows["processes"] > 1)]
    rows = rows[rows["quantity"] == rows["quantity"].iloc[0]] if len(rows) else rows
    names = [name for name in parameters(rows) if rows[name].nunique() > 1]
    if len(rows) == 0 or not names or verdict.predicted is None:
        return None
    sizes = rows[max(names, key=lambda name: rows[name].nunique())].to_numpy(float)
    deviations = (rows["between"] / rows["processes"] ** 0.5).to_numpy(float)
    predicted = verdict.predicted

    def drawn(truth: float) -> tuple[float, float, float]:
        values = sizes**truth * np.exp(deviations * rng.choice(shape, len(sizes)))
        test = Test(verdict.method, "clock", verdict.quantity, predicted=predicted)
        found = exponent(test, pd.Series(values, index=sizes.astype(int)).sort_index(), "").found
        return (np.nan, -inf, inf) if found is None else found[:3]

    return drawn


def table(found: Sequence[Rate]) -> str:
    """The rates in Markdown."""
    outside = "false confirmed, 2% outside | at twice the half-width | at five times"
    lines = [f"| claim | quantity | rows | false refuted | {outside} |", "|---|---|--:|--:|--:|--:|--:|"]
    for rate in found:
        shares = " | ".join(f"{share:.1%}" for share in (rate.refuted, *rate.confirmed))
        lines.append(f"| `{rate.claim}` | {rate.quantity} | {rate.rows} | {shares} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    paths = [Path(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    try:
        found = list(rates(frame.read(paths)))
    except ValueError as error:
        print(f"false_rates: {error}", file=sys.stderr)
        return 2
    print(table(found))
    return 0 if all(rate.kept for rate in found) else 1


if __name__ == "__main__":
    sys.exit(main())
