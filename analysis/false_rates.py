"""``python -m analysis.false_rates RESULTS``: how often each noisy rule is wrong, under the noise that was recorded.

For each noisy test of a result its quantity is given a truth of our choosing, numbers are drawn about that truth as
the run's own noise has them (times: between processes, the shape of the noise is that of all processes of the run;
other rulers: normal, as wide as their intervals), and the rule and the judge are asked again. With the truth as
predicted a verdict of ``refuted`` is false; with the truth just outside the band, or at twice or five times its
half-width, one of ``confirmed`` is.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, isfinite, log
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from adcost.rulers import clock
from adcost.suite.vocabulary import Interval
from adcost.whole import write_whole
from analysis import frame, studies
from analysis.coverage import paired
from analysis.frame import Results, parameters
from analysis.verdict import EVERY, Noise, Test, judge, put
from analysis.view import Found, views

DRAWS, FITS = 400, 60  # of one number, and of a number that is made of several
OUTSIDE = (1.02, 2.0, 5.0)  # times the band's half-width: where the truth lies that must not be confirmed
UNIT = log(1.1)  # the half-width of a band that is open to one side
ALLOWED = 0.05
WRONG = 3  # the exit status where a rule is wrong more often
NORMAL = float(stats.norm.ppf((1 + clock.CONFIDENCE) / 2))
Find = Callable[[float], Found]  # a truth to what is found about it


@dataclass(frozen=True)
class Rate:
    """A rule's false verdicts: of how many rows and draws, and the shares with the truth as predicted and outside."""

    claim: str
    quantity: str
    rows: int
    draws: int
    refuted: float
    confirmed: tuple[float, ...]

    @property
    def kept(self) -> bool:
        """Is no share above what is allowed, but for the chance of so many draws?"""
        most = round(max(self.refuted, *self.confirmed) * self.draws)
        return bool(stats.binomtest(most, self.draws, ALLOWED, "greater").pvalue > 1 - clock.CONFIDENCE)


def shape_of_noise(timings: pd.DataFrame) -> np.ndarray:
    """Distances of processes' medians from their mean, each over the deviation of its own ratio, of all pairs."""
    found = []
    for _, logs in paired(timings):
        medians = np.array([np.median(rounds) for rounds in logs])
        if len(medians) > 2 and medians.std(ddof=1) > 0:
            scale = (len(medians) / (len(medians) - 1)) ** 0.5  # residuals about a mean are too small
            found.append(scale * (medians - medians.mean()) / medians.std(ddof=1))
    return np.concatenate(found) if found else np.array([])


def rates(results: Results, shape: np.ndarray) -> Iterator[Rate]:
    """Every noisy rule of the claims that the results hold, each over all of its rows."""
    rng = np.random.default_rng(0)
    by_rule: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    by_id = results.frame.set_index("id")
    seen = views(results)
    for claim in studies.CLAIMS:
        for view in (view for view in seen if claim.study in (view.study, EVERY)):
            for test, _, rows in put(claim, view):
                if test.noisy:
                    found = simulated(test, by_id.loc[list(rows)], shape, rng)
                    by_rule.setdefault((claim.id, test.quantity), []).append(found)
    for (claim_id, quantity), each in by_rule.items():
        draws, refuted, *confirmed = np.sum(each, axis=0) / [1, *[len(each)] * (1 + len(OUTSIDE))]
        yield Rate(claim_id, quantity, len(each), int(draws), float(refuted), tuple(map(float, confirmed)))


def simulated(test: Test, rows: pd.DataFrame, shape: np.ndarray, rng: np.random.Generator) -> tuple[float, ...]:
    """How many draws, the share refuted with the truth as predicted, and shares confirmed with it outside the band."""
    assert test.band is not None
    one = test.again is None
    find, count = (_of_one(test, shape, rng), DRAWS) if one else (_of_several(test, rows, shape, rng), FITS)
    truth, outside = truths(test)
    found = [float(count)]
    for kind, value in [("refuted", truth), *(("confirmed", value) for value in outside)]:
        kinds: list[str] = [judge(*test.band[:2], *find(value)[:3]) for _ in range(count)]
        found.append(kinds.count(kind) / count)
    return tuple(found)


def truths(test: Test) -> tuple[float, list[float]]:
    """A truth as predicted, and those outside the band; ratios on a logarithmic scale."""
    assert test.band is not None
    ends = [end if test.linear or not isfinite(end) else log(max(end, 1e-12)) for end in test.band[:2]]
    if isfinite(ends[0]) and isfinite(ends[1]):
        middle, half = sum(ends) / 2, (ends[1] - ends[0]) / 2
        found = [middle, *(middle + factor * half for factor in OUTSIDE)]
    else:
        edge, sign = (ends[1], 1) if isfinite(ends[1]) else (ends[0], -1)
        inside = test.beside if test.linear and test.beside is not None else edge - sign * UNIT
        found = [inside, *(edge + sign * (factor - 1) * UNIT for factor in OUTSIDE)]
    first, *outside = found if test.linear else map(exp, found)
    return first, outside


def _of_several(test: Test, rows: pd.DataFrame, shape: np.ndarray, rng: np.random.Generator) -> Find:
    """The rule asked again, with numbers that are off as those that it read.

    Each has the noise of its own size where the rule used all that it read, otherwise that of any.
    """
    assert test.again is not None
    again, known = test.again, _deviations(test, rows)

    def factors(k: int) -> np.ndarray:
        deviations = known if len(known) == k else rng.choice(known, k)
        return np.exp(deviations * (rng.choice(shape, k) if test.ruler == "clock" else rng.standard_normal(k)))

    return lambda truth: again(truth, Noise(factors, rng))


def _of_one(test: Test, shape: np.ndarray, rng: np.random.Generator) -> Find:
    """A number with the noise that its own interval has: of so many processes, or else normal."""
    found = test.found
    assert found is not None
    ends = np.array([found.low, found.high]) if test.linear else np.log(np.maximum([found.low, found.high], 0))
    if not np.isfinite(ends).all():
        return lambda truth: Found(truth, -inf, inf)
    half = float(ends[1] - ends[0]) / 2
    k = found.processes
    degrees = found.degrees or (k - 1 if k > 1 else inf)
    deviation = half / float(stats.t.ppf((1 + clock.CONFIDENCE) / 2, degrees))

    def drawn(truth: float) -> Found:
        middle = truth if test.linear else log(truth)
        if test.ruler == "clock" and k > 1 and not test.linear:
            medians = middle + deviation * k**0.5 * rng.choice(shape, k)
            return Found(
                *clock.exponentiated(clock.over_processes([np.array([median]) for median in medians]).interval)
            )
        value = middle + deviation * rng.standard_normal()
        number = Interval(value, value - half, value + half)
        return Found(*(number if test.linear else clock.exponentiated(number)))

    return drawn


def _deviations(test: Test, rows: pd.DataFrame) -> np.ndarray:
    """Of the numbers that a rule read, in the order of their sizes: the deviation of each one's logarithm."""
    mine = rows[(rows["ruler"] == test.ruler) & (rows["method"] == test.method.split(" / ")[0]) & (rows["low"] > 0)]
    if len(mine) == 0:
        return np.zeros(1)
    mine = mine[mine["quantity"] == mine["quantity"].iloc[-1]]
    mine = mine.sort_values([name for name in parameters(mine) if mine[name].nunique() > 1])
    timed = mine["between"] / mine["processes"] ** 0.5
    bounded = np.log(mine["high"] / mine["low"]) / 2 / NORMAL
    return timed.fillna(bounded).to_numpy(float)


def table(found: Sequence[Rate]) -> str:
    """The rates in Markdown."""
    outside = "false confirmed, 2% outside | at twice the half-width | at five times"
    lines = [f"| claim | quantity | rows | false refuted | {outside} |", "|---|---|--:|--:|--:|--:|--:|"]
    for rate in found:
        shares = " | ".join(f"{share:.1%}" for share in (rate.refuted, *rate.confirmed))
        lines.append(f"| `{rate.claim}` | {rate.quantity} | {rate.rows} | {shares} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m analysis.false_rates", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="where the table is also written")
    given = parser.parse_args(arguments)
    try:
        results = frame.read(given.results)
    except ValueError as error:
        print(f"false_rates: {error}", file=sys.stderr)
        return 2
    shape = shape_of_noise(results.timings)
    if len(shape) == 0:
        print("false_rates: needs times of three processes or more; `make report` takes them", file=sys.stderr)
        return 2
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
    found = list(rates(results, shape))
    written = table(found)
    print(written)
    if given.output is not None:
        write_whole(given.output, written + "\n")
    wrong = [rate for rate in found if not rate.kept]
    for rate in wrong:
        print(f"false_rates: more than {ALLOWED:.0%} of `{rate.claim}`, {rate.quantity}, are false", file=sys.stderr)
    return WRONG if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
