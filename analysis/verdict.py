"""A verdict: a prediction, a measurement with its interval, and the one judge who holds one against the other.

A rule yields tests: a quantity, a band that was fixed before the run with the reason for it, and what was found. Here,
and nowhere else, tests become verdicts. The 95% interval inside the band: ``confirmed``, a claim that the quantity is
equal to the prediction up to the band's margin. Outside it altogether: ``refuted``. Across its edge: ``inconclusive``.
No number: ``not measured``. What is exact is compared exactly: its interval has no width.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, isnan, log
from pathlib import Path
from types import GeneratorType
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from adcost.rulers.clock import CONFIDENCE
from adcost.targets import ANY
from analysis.view import Found, View, differences, plainly

ROOT = Path(__file__).parents[1]
Kind = Literal["confirmed", "refuted", "inconclusive", "not measured"]
Known = Literal["measured", "likely", "unknown"]
NOISY = ("clock", "process", "device", "estimate")  # rulers whose numbers differ from run to run
EXPONENT_MARGIN = 0.1  # how far a measured exponent may lie from the predicted one
RATIO_MARGIN = 0.1  # how far a measured ratio may lie from the predicted one, relative
TELLS = 0.5  # power below which a test is said to decide nothing


class Band(NamedTuple):
    """Where a claim allows a quantity to lie, and why just there."""

    low: float
    high: float
    why: str


def within(value: float, share: float, why: str) -> Band:
    """A share to either side, as a factor."""
    return Band(value / (1 + share), value * (1 + share), f"{share:.0%} to either side of {value:.3g}: {why}")


def around(value: float, margin: float, why: str) -> Band:
    """A margin to either side."""
    return Band(value - margin, value + margin, f"{margin:g} to either side of {value:g}: {why}")


def at_most(value: float, why: str) -> Band:
    """Anything up to a value."""
    return Band(-inf, value, why)


def at_least(value: float, why: str) -> Band:
    """Anything from a value on."""
    return Band(value, inf, why)


def exactly(value: float, why: str = "a count is exact") -> Band:
    """The value alone."""
    return Band(value, value, why)


class Cause(NamedTuple):
    """Why a number is what it is: ``measured`` by numbers of their own, ``likely``, or ``unknown``.

    ``side``: it explains numbers below their band, or above; of others the cause is unknown.
    """

    known: Known
    words: str
    side: Literal["below", "above", "either"] = "either"


UNKNOWN = Cause("unknown", "")


@dataclass(frozen=True)
class Noise:
    """Noise as it was recorded: ``factors(k)`` are what k numbers are off by; ``rng`` draws what is not a factor."""

    factors: Callable[[int], "np.ndarray"]
    rng: np.random.Generator


# What a rule finds in numbers about a truth, for a number that is made of several.
Again = Callable[[float, Noise], Found]


@dataclass(frozen=True)
class Test:
    """What a rule puts to the judge.

    Attributes
    ----------
    method, ruler, quantity, at
        What was measured; ``at`` tells which of the numbers of one quantity, as ``n=1024``.
    band
        What the claim allows; None where it could not be said, for want of a number.
    found
        What was measured; None where it was not, for the reason ``gap``.
    predicted
        What theory says, of a band to both its sides.
    beside
        What counted flops would give, beside a claim that only bounds the quantity.
    why, cause
        In words: what the number rests on; and the reason, where theory failed.
    linear
        Is the quantity's scale linear? That of ratios is logarithmic.
    again
        How the number would be found again, for the rate of false verdicts; a ratio at one size need not say it.
    """

    __test__ = False  # not one of pytest's

    method: str
    ruler: str
    quantity: str
    band: Band | None = None
    found: Found | None = None
    at: str = ""
    predicted: float | None = None
    beside: float | None = None
    why: str = ""
    cause: Cause | None = None
    gap: str = ""
    linear: bool = False
    again: Again | None = None

    @property
    def noisy(self) -> bool:
        """Would another run find another number?"""
        return (
            self.found is not None
            and self.band is not None
            and self.ruler in NOISY
            and self.found.low != self.found.high
        )


Rule = Callable[[View], Iterator[Test]]
EVERY = "every study"  # of a claim that is about all programs


@dataclass(frozen=True)
class Claim:
    """A statement of the lecture, with the rule that tests it."""

    id: str
    study: str
    says: str
    predicted: str
    rule: Rule
    figures: tuple[str, ...] = ()  # the names of those that show it


@dataclass(frozen=True)
class Verdict:
    """A row of the verdict table, which can be made again from this row alone.

    ``low`` and ``high`` bound the 95% interval of ``measured``; ``p`` is how likely chance alone would put a quantity
    of the band so far outside, ``adjusted`` the same among all noisy rows (Holm); ``power`` how likely a quantity that
    is as predicted would be confirmed with this much noise. ``rule`` is the line that put the test, ``rows`` the ids of
    the frame's rows that it read.
    """

    claim: str
    study: str
    method: str
    ruler: str
    target: str
    dtype: str
    workload: str
    quantity: str
    at: str
    predicted: float | None
    beside: float | None
    band_low: float | None
    band_high: float | None
    band_why: str
    measured: float | None
    low: float | None
    high: float | None
    verdict: Kind
    points: int
    processes: int
    p: float | None
    adjusted: float | None
    power: float | None
    cause: Known | None
    why: str
    rule: str
    rows: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """Is it refuted, and not by chance among so many tests?"""
        return self.verdict == "refuted" and (self.adjusted is None or self.adjusted <= 1 - CONFIDENCE)

    @property
    def named(self) -> str:
        """The quantity and which of its numbers."""
        return f"{self.quantity} at {self.at}" if self.at else self.quantity

    @property
    def said(self) -> str:
        """What the claim says, for people."""
        if self.band_low is None or self.band_high is None:
            return ""
        if self.band_low == -inf or self.band_high == inf:
            end, words = (self.band_high, "at most") if self.band_low == -inf else (self.band_low, "at least")
            return f"{words} {end:.4g}" + (f" (flops: {self.beside:.3g})" if self.beside is not None else "")
        return f"{self.predicted:.4g}" if self.predicted is not None else f"{self.band_low:.3g} to {self.band_high:.3g}"


def judge(
    band_low: float | None, band_high: float | None, measured: float | None, low: float | None, high: float | None
) -> Kind:
    """The one rule: the interval against the band."""
    if measured is None or low is None or high is None or band_low is None or band_high is None:
        return "not measured"
    if isnan(measured):
        return "refuted"
    if band_low <= low and high <= band_high:
        return "confirmed"
    if high < band_low or low > band_high:
        return "refuted"
    return "inconclusive"


def verdicts(claims: Iterable[Claim], views: Sequence[View]) -> list[Verdict]:
    """Every claim of the studies that are viewed, on every target and workload."""
    found: dict[tuple[str, ...], Verdict] = {}
    for claim in claims:
        for view in (view for view in views if claim.study in (view.study, EVERY)):
            apart = differences(view, views)
            for test, rule, rows in put(claim, view):
                verdict = _stamped(test, claim, view, apart, rule, rows)
                words = (verdict.claim, verdict.method, verdict.ruler, verdict.target, verdict.dtype)
                found.setdefault((*words, verdict.workload, verdict.quantity, verdict.at), verdict)
    return _adjusted(list(found.values()))


def put(claim: Claim, view: View) -> Iterator[tuple[Test, str, tuple[int, ...]]]:
    """A claim's tests, each with the line that put it and the rows that were read for it."""
    view.read.clear()
    tests = claim.rule(view)
    for test in tests:
        yield test, _line(tests), tuple(sorted(set(view.read)))
        view.read.clear()


def _line(tests: Iterator[Test]) -> str:
    """Where a generator stands, or the innermost one that it yields from."""
    inner: object = tests
    while isinstance(inner, GeneratorType):
        tests, inner = inner, inner.gi_yieldfrom
    assert isinstance(tests, GeneratorType)
    if tests.gi_frame is None:
        return ""
    return f"{Path(inspect.getfile(tests.gi_code)).relative_to(ROOT)}:{tests.gi_frame.f_lineno}"


def _stamped(test: Test, claim: Claim, view: View, apart: str, rule: str, rows: tuple[int, ...]) -> Verdict:
    band, found = test.band, test.found if test.band is not None else None
    ends = (band.low, band.high) if band is not None else (None, None)
    number = (found.value, found.low, found.high) if found is not None else (None, None, None)
    kind = judge(*ends, *number)
    power = _power(test) if test.noisy else None
    if found is None:
        words = [test.gap or test.why or view.reasons(test.ruler, *test.method.split(" / "))]
    else:
        words = [test.why]
    if kind == "inconclusive" and power is not None and power < TELLS:
        words.append(
            f"Cannot decide here: with this noise a quantity as predicted is confirmed in {power:.0%} of runs."
        )
    cause = test.cause or UNKNOWN
    if found is not None and band is not None and cause.side != "either":
        cause = cause if (found.value > band.high) == (cause.side == "above") else UNKNOWN
    if kind == "refuted" and cause.words:
        words.append(cause.words)
    known = [f"{name} {plainly(value)}" for name, value in view.workload]
    apart_from = [words for words in apart.split(", ") if words and not words.startswith("dtype ")]
    workload = ", ".join(dict.fromkeys([*known, *apart_from]))
    return Verdict(
        claim=claim.id,
        study=view.study,
        method=test.method,
        ruler=test.ruler,
        target=ANY if test.ruler == "count" else view.target,
        dtype=view.dtype,
        workload=workload,
        quantity=test.quantity,
        at=test.at,
        predicted=test.predicted,
        beside=test.beside,
        band_low=ends[0],
        band_high=ends[1],
        band_why=band.why if band is not None else "",
        measured=number[0],
        low=number[1],
        high=number[2],
        verdict=kind,
        points=found.points if found is not None else 0,
        processes=found.processes if found is not None else 0,
        p=_p(test) if test.noisy else None,
        adjusted=None,
        power=power,
        cause=cause.known if kind == "refuted" else None,
        why=" ".join(filter(None, words)),
        rule=rule,
        rows=rows,
    )


def _scaled(test: Test, value: float) -> float:
    if test.linear:
        return value
    return log(value) if value > 0 else -inf


def _half(test: Test, side: Literal[-1, 1]) -> float:
    """Half the interval's width on one side."""
    assert test.found is not None
    end = test.found.low if side < 0 else test.found.high
    return abs(_scaled(test, end) - _scaled(test, test.found.value))


def _quantile(found: Found) -> tuple[float, float]:
    """Degrees of freedom of Student's t, and its 97.5% quantile."""
    known = found.degrees if found.degrees is not None else found.processes - 1
    degrees = known if known > 0 else inf
    return degrees, float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))


def _p(test: Test) -> float:
    """How likely chance puts a quantity of the band as far outside, to either side."""
    assert test.found is not None
    assert test.band is not None
    value = test.found.value
    if test.band.low <= value <= test.band.high:
        return 1.0
    above = value > test.band.high
    distance = abs(_scaled(test, value) - _scaled(test, test.band.high if above else test.band.low))
    half = _half(test, -1 if above else 1)
    degrees, quantile = _quantile(test.found)
    if isnan(value) or half == 0:
        return 0.0
    return float(2 * stats.t.sf(distance / half * quantile, degrees)) if isfinite(half) else 1.0


def _power(test: Test) -> float | None:
    """How likely a quantity as predicted would be confirmed with this noise; None where nothing is predicted."""
    assert test.found is not None
    assert test.band is not None
    truth = test.predicted if test.predicted is not None else test.beside
    if truth is None or isnan(test.found.value):
        return None
    half = (_half(test, -1) + _half(test, 1)) / 2
    if not isfinite(half):
        return 0.0
    low, high = (_scaled(test, end) if isfinite(end) else end for end in test.band[:2])
    room = (_scaled(test, truth) - low - half, high - _scaled(test, truth) - half)  # for the value to move, each way
    if half == 0:
        return float(min(room) >= 0)
    deviation = half / _quantile(test.found)[1]
    return max(0.0, float(stats.norm.cdf(room[1] / deviation) - stats.norm.cdf(-room[0] / deviation)))


def _adjusted(found: list[Verdict]) -> list[Verdict]:
    """With Holm's correction over all that are noisy (Scandinavian Journal of Statistics 6, 1979)."""
    tested = sorted((i for i, verdict in enumerate(found) if verdict.p is not None), key=lambda i: found[i].p or 0.0)
    most = 0.0
    for rank, i in enumerate(tested):
        most = max(most, min(1.0, (found[i].p or 0.0) * (len(tested) - rank)))
        found[i] = replace(found[i], adjusted=most)
    return found


def counted(found: Iterable[Verdict]) -> dict[str, int]:
    """Number of verdicts by kind."""
    kinds = [verdict.verdict for verdict in found]
    return {kind: kinds.count(kind) for kind in ("confirmed", "refuted", "inconclusive", "not measured")}


class ByChance(NamedTuple):
    """Of the noisy verdicts: how many were decided, how many are false at most if all is right, how many refutations
    there are, and how many hold among so many tests.
    """

    decided: int
    false: float
    refuted: int
    holding: int


def by_chance(found: Iterable[Verdict]) -> ByChance:
    """What chance does to the noisy verdicts; exact ones have no part in it."""
    noisy = [verdict for verdict in found if verdict.p is not None]
    decided = sum(verdict.verdict in ("confirmed", "refuted") for verdict in noisy)
    refuted = [verdict for verdict in noisy if verdict.verdict == "refuted"]
    return ByChance(decided, (1 - CONFIDENCE) * len(noisy), len(refuted), sum(verdict.holds for verdict in refuted))
