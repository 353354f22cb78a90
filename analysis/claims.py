"""The claims: what the lecture says, what was predicted before the run, and the verdict.

One rule gives every verdict. A prediction is a band; it is fixed here, beside the claim. The measured 95% interval
inside the band: ``confirmed``. Outside it altogether: ``refuted``. Across its edge: ``inconclusive``. No number:
``not measured``. What is exact is compared exactly: its band and its interval have no width.

A claim is one function, which yields a verdict for each ruler and method, and one line in ``CLAIMS``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, inf, log, sqrt
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import fit, theory
from analysis.frame import Results, parameters
from benchmarks.rulers.clock import median_interval
from benchmarks.targets import ANY, TARGETS

Kind = Literal["confirmed", "refuted", "inconclusive", "not measured"]
EXPONENT_BAND = 0.1  # how far a measured exponent may lie from the predicted one
RATIO_BAND = 0.1  # how far a measured ratio may lie from the predicted one, relative
LAW_FROM = 36  # depths from which the law of time is tested: below, what a call costs besides its layers shows
PROCESS_RESOLUTION = 2**20  # bytes: what the process ruler cannot tell apart


@dataclass(frozen=True)
class Verdict:
    """One row of the verdict table; ``low`` and ``high`` bound the 95% interval of ``measured``."""

    claim: str
    study: str
    method: str
    ruler: str
    target: str
    quantity: str
    predicted: float | None
    measured: float | None
    low: float | None
    high: float | None
    verdict: Kind
    points: int
    why: str


@dataclass(frozen=True)
class Claim:
    """A statement of the lecture, with the rule that tests it."""

    id: str
    study: str
    says: str
    predicted: str
    rule: Callable[["View"], Iterator[Verdict]]
    figures: tuple[str, ...] = ()  # the names of those that show it


def judge(band: tuple[float, float], low: float, high: float) -> Kind:
    """The one rule: the interval against the band."""
    if band[0] <= low and high <= band[1]:
        return "confirmed"
    if high < band[0] or low > band[1]:
        return "refuted"
    return "inconclusive"


def around(value: float, by: float) -> tuple[float, float]:
    return value - by, value + by


def within(value: float, share: float) -> tuple[float, float]:
    return value / (1 + share), value * (1 + share)


@dataclass(frozen=True)
class View:
    """The results of one study on one target, workload and origin, with short ways to ask for a quantity by size.

    Numbers of different machines, commits, versions of JAX or dtypes are never mixed.
    """

    results: Results
    study: str
    target: str
    workload: tuple[tuple[str, float], ...] = ()  # the parameters that do not vary, as (width, 32), (batch, 1024)
    origin: tuple[tuple[str, str], ...] = ()  # as (machine, ...), (commit, ...), (jax, ...), (dtype, ...)
    sweep: str = "depth"  # the parameter that varies

    @cached_property
    def frame(self) -> pd.DataFrame:
        return self._mine(self.results.frame)

    @cached_property
    def missing(self) -> pd.DataFrame:
        return self._mine(self.results.missing)

    @cached_property
    def _quantities(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.frame.groupby(["method", "ruler", "quantity"])))

    def _mine(self, frame: pd.DataFrame) -> pd.DataFrame:
        if len(frame) == 0:
            return frame
        chosen = frame["target"].isin((self.target, ANY))
        for name, value in (("study", self.study), *self.workload, *self.origin):
            if name in frame:
                chosen &= frame[name] == value
        return frame[chosen]

    def rows(self, method: str, ruler: str, quantity: str) -> pd.DataFrame:
        """A quantity by size, one row a size (the last source wins)."""
        chosen = self._quantities.get((method, ruler, quantity), self.frame.head(0))
        return chosen.drop_duplicates(self.sweep, keep="last").sort_values(self.sweep).set_index(self.sweep)

    def series(self, method: str, ruler: str, quantity: str) -> "pd.Series[float]":
        return self.rows(method, ruler, quantity)["value"]

    def activations(self, method: str, ruler: str, quantity: str) -> "pd.Series[float]":
        """A quantity in bytes, in activations. Peaks are without what any method must hold beside its temporaries."""
        values = self.series(method, ruler, quantity)
        if quantity == "peak":
            values = values - self.series(method, "compiler", "outputs")
            if ruler == "compiler":  # a TPU's compiler counts the arguments too
                values = values - self.series(method, "compiler", "arguments")
        return (values / self.series(method, "count", "activation")).dropna()

    @property
    def attached(self) -> bool:
        """Did programs run on this target, or was it a compiler alone?"""
        return TARGETS[self.target].attached if self.target in TARGETS else True

    @property
    def plan(self) -> str:
        """The compiler's quantity that tells what a program takes besides its arguments and its result."""
        return "peak" if self.target.startswith("tpu") else "temp"

    def planned(self, method: str) -> "pd.Series[float]":
        """What the compiler plans by depth, in activations."""
        return self.activations(method, "compiler", self.plan)

    def reasons(self, ruler: str, *methods: str) -> str:
        """Why methods have no number by a ruler, in one sentence: this ruler's gap, or one that takes all numbers."""
        missing = self.missing
        if ruler in ("clock", "process", "device") and not self.attached:
            return f"{self.target} is a compiler here: programs do not run on it, and it gives no such number."
        for method in methods:
            for gap in (ruler, "extra", "compiler", "check"):
                mine = missing[(missing["method"] == method) & (missing["ruler"] == gap)] if len(missing) else missing
                if len(mine):
                    return f"{method}: {mine.iloc[0]['reason']}."
        return "No result that was read holds this number."

    def noise(self) -> tuple[float, float, float, int]:
        """The A/A ratio of the run: the same executable against itself, its 95% interval, and the rounds."""
        return _against_itself(self._mine(self.results.again))

    def noise_at(self, depth: int) -> tuple[float, float, float, int]:
        """The A/A ratio at one depth."""
        again = self._mine(self.results.again)
        return _against_itself(again[again[self.sweep] == depth] if len(again) else again)

    def floor(self, depth: int) -> float:
        """What the clock cannot tell from 1 at a depth, as a logarithm: the farther end of its own A/A interval.

        The pooled interval would not do: it rests on the many rounds of small depths, and large ones are noisier.
        """
        _, low, high, _ = self.noise_at(depth)
        return max(abs(log(low)), abs(log(high))) if low > 0 and high < inf else inf


def _against_itself(again: pd.DataFrame) -> tuple[float, float, float, int]:
    if len(again) == 0:
        return 1.0, 0.0, inf, 0
    return *median_interval(list(again["first"] / again["again"])), len(again)


def exponent_verdict(
    view: View, claim: str, method: str, ruler: str, quantity: str, predicted: float, resolution: float
) -> Verdict:
    """The exponent in n of a memory quantity, in activations."""
    values = view.activations(method, ruler, quantity)
    name = f"exponent of {quantity} in n"
    blank = Verdict(
        claim, view.study, method, ruler, view.target, name, predicted, None, None, None, "not measured", 0, ""
    )
    if len(values) == 0:
        return replace(blank, why=view.reasons(ruler, method))
    try:
        fitted = fit.exponent(list(values.index), list(values), resolution)
    except ValueError as error:
        return replace(blank, verdict="inconclusive", points=len(values), why=f"{error}.")
    verdict = judge(around(predicted, EXPONENT_BAND), fitted.low, fitted.high)
    first, last = values.index[0], values.index[-1]
    why = f"From {values.iloc[0]:.1f} activations at n = {first} to {values.iloc[-1]:.1f} at n = {last}"
    why += (
        f"; it {fitted.note} activations."
        if fitted.note
        else f": {fitted.a:.2f} + {fitted.b:.3g} n^{fitted.value:.3f}."
    )
    return replace(
        blank, measured=fitted.value, low=fitted.low, high=fitted.high, verdict=verdict, points=fitted.points, why=why
    )


def memory_exponents(view: View, claim: str, method: str, predicted: float) -> Iterator[Verdict]:
    """The exponent by the compiler's plan and, where programs run, by their peak."""
    activation = view.series(method, "count", "activation")
    unit = float(activation.iloc[0]) if len(activation) else 1.0
    yield exponent_verdict(view, claim, method, "compiler", view.plan, predicted, 0.5)
    if view.target == "cpu":
        yield exponent_verdict(view, claim, method, "process", "peak", predicted, PROCESS_RESOLUTION / unit)
    elif view.attached:
        yield exponent_verdict(view, claim, method, "device", "peak", predicted, 0.5)


def exact_verdict(
    view: View, claim: str, method: str, quantity: str, formula: Callable[[int], int], words: str
) -> Verdict:
    """A count that must equal its formula at every size; the row shows the first size that does not, or the largest.

    Where the walk of the jaxpr took its trip counts from the schedule, it would only repeat the schedule: then
    executions must have been counted too, and must equal the formula.
    """
    rows = view.rows(method, "count", quantity)
    counted = rows["value"]
    executed = view.series(method, "count", f"executed {quantity}")
    blank = Verdict(claim, view.study, method, "count", ANY, quantity, None, None, None, None, "not measured", 0, "")
    if len(counted) == 0:
        return replace(blank, why=view.reasons("count", method))
    from_schedule = rows["flags"].str.contains("schedule").any()
    if from_schedule and len(executed) == 0:
        return replace(blank, why="The trip counts are the schedule's own, and no execution was counted.")
    wrong = [n for n in counted.index if {counted[n], executed.get(n, counted[n])} != {formula(n)}]
    n = wrong[0] if wrong else counted.index[-1]
    value = float(executed.get(n, counted[n]))
    shown = f"{len(wrong)} of {len(counted)} sizes differ from" if wrong else f"All {len(counted)} sizes equal"
    depths = ", ".join(map(str, executed.index))
    ran = f" Trip counts are the schedule's; executions were counted at n = {depths}." if from_schedule else ""
    return replace(
        blank,
        quantity=f"{quantity} at n = {n}",
        predicted=float(formula(n)),
        measured=value,
        low=value,
        high=value,
        verdict="refuted" if wrong else "confirmed",
        points=len(counted),
        why=f"{shown} {words} exactly.{ran}",
    )


def law_verdicts(view: View, claim: str, method: str, baseline: str) -> Iterator[Verdict]:
    """The law of time against one baseline: at the largest depth, and over all depths of some size."""
    ratios = view.rows(method, "clock", f"time / {baseline}")
    forward = view.rows(baseline, "clock", "time / forward")
    evaluations = view.series(method, "count", "evaluations")
    depths = [n for n in ratios.index if n >= LAW_FROM and n in forward.index and n in evaluations.index]
    blank = Verdict(
        claim,
        view.study,
        method,
        "clock",
        view.target,
        f"time / {baseline}",
        None,
        None,
        None,
        None,
        "not measured",
        0,
        "",
    )
    if not depths:
        yield replace(blank, why=view.reasons("clock", method, baseline, "forward"))
        return

    def law(n: int, column: str = "value") -> float:
        return theory.time_ratio(evaluations[n], n, forward[column][n] - 1)

    n = depths[-1]
    floor = view.floor(n)
    predicted, ends = law(n), sorted((law(n, "low"), law(n, "high")))
    measured, low, high = (float(ratios[column][n]) for column in ("value", "low", "high"))
    low, high = low * exp(-floor), high * exp(floor)
    band = (ends[0] / (1 + RATIO_BAND), ends[1] * (1 + RATIO_BAND))
    why = (
        f"b = {forward['value'][n] - 1:.1f} [{forward['low'][n] - 1:.1f}, {forward['high'][n] - 1:.1f}] (backward over "
        f"forward of {baseline}; its interval widens the band), {evaluations[n] / n:.2f} evaluations a layer; "
        f"the lecture's b = 2 would give {theory.time_ratio(evaluations[n], n, 2):.2f}. "
        f"{LAW_REASONS[baseline]}"
    )
    # A predicted effect that the clock cannot tell from none decides nothing.
    kind = judge(band, low, high) if abs(log(predicted)) > floor else "inconclusive"
    yield replace(
        blank,
        quantity=f"time / {baseline} at n = {n}",
        predicted=predicted,
        measured=measured,
        low=low,
        high=high,
        verdict=kind,
        points=1,
        why=why,
    )
    shares = [float(ratios["value"][k]) / law(k) for k in depths]
    share, low, high = median_interval(shares)
    floor = float(np.median([view.floor(k) for k in depths]))  # one depth's noise is not that of a median over depths
    low, high = low * exp(-floor), high * exp(floor)
    yield replace(
        blank,
        quantity=f"measured / predicted time, against {baseline}, n from {depths[0]}",
        predicted=1.0,
        measured=share,
        low=low,
        high=high,
        verdict=judge(within(1.0, RATIO_BAND), low, high),
        points=len(shares),
        why=f"Smallest {min(shares):.2f}, largest {max(shares):.2f}. {LAW_REASONS[baseline]}",
    )


LAW_REASONS = {
    "vanilla": "The law counts evaluations; plain jax.grad of a scan also writes three residuals a layer "
    "to fresh pages, which a schedule spares: a likely cause of a difference, not a measured one.",
    "store_all": "Both sides run in the same executor and differ in what they store and recompute.",
}


def vanilla_memory(view: View) -> Iterator[Verdict]:
    for method in ("vanilla", "store_all"):
        yield from memory_exponents(view, "vanilla-memory-linear", method, 1.0)
        yield exact_verdict(view, "vanilla-memory-linear", method, "evaluations", theory.vanilla_evaluations, "n")


def memory_poor(view: View) -> Iterator[Verdict]:
    claim = "memory-poor-constant-memory"
    yield from memory_exponents(view, claim, "memory_poor", 0.0)
    yield exact_verdict(view, claim, "memory_poor", "evaluations", theory.memory_poor_evaluations, "n(n+1)/2")


def sqrt_memory(view: View) -> Iterator[Verdict]:
    claim = "sqrt-memory"
    yield from memory_exponents(view, claim, "sqrt", 0.5)
    yield exact_verdict(view, claim, "sqrt", "evaluations", theory.sqrt_evaluations, "2n - sqrt(n), rounded up,")
    temp = view.planned("sqrt")
    blank = Verdict(
        claim, view.study, "sqrt", "compiler", view.target, "", 1.0, None, None, None, "not measured", 0, ""
    )
    if len(temp) == 0:
        yield replace(blank, quantity=f"{view.plan} / (2 sqrt(n) activations)", why=view.reasons("compiler", "sqrt"))
        return
    n = temp.index[-1]
    share = float(temp[n] / (2 * sqrt(n)))
    yield replace(
        blank,
        quantity=f"{view.plan} / (2 sqrt(n) activations) at n = {n}",
        measured=share,
        low=share,
        high=share,
        verdict=judge(within(1.0, RATIO_BAND), share, share),
        points=1,
        why=f"{temp[n]:.1f} activations planned, 2 sqrt(n) = {2 * sqrt(n):.1f}.",
    )


def sqrt_time(view: View) -> Iterator[Verdict]:
    for baseline in ("vanilla", "store_all"):
        yield from law_verdicts(view, "sqrt-time", "sqrt", baseline)


def binomial_optimal(view: View) -> Iterator[Verdict]:
    claim = "binomial-optimal"
    for method in ("binomial_3", "binomial_10", "binomial_sqrt"):
        slots = view.series(method, "count", "slots")

        def optimum(n: int, slots: "pd.Series[float]" = slots) -> int:
            return theory.optimal_evaluations(n, int(slots[n]))

        if len(slots):
            yield exact_verdict(view, claim, method, "evaluations", optimum, "t(n + 1, s)")
        temp = view.planned(method)
        over = (temp - slots).dropna()
        above = f"{view.plan} above the slots, in activations (at most)"
        blank = Verdict(
            claim, view.study, method, "compiler", view.target, above, 7.0,
            None, None, None, "not measured", 0, "",
        )  # fmt: skip
        if len(over) == 0:
            yield replace(blank, why=view.reasons("compiler", method))
            continue
        most = float(over.max())
        yield replace(
            blank,
            measured=most,
            low=most,
            high=most,
            verdict=judge((0.0, 7.0), most, most),
            points=len(over),
            why=f"At most 7 are allowed at any depth; the most is shown, the least is {over.min():.2f}.",
        )


def schedule_animation(view: View) -> Iterator[Verdict]:
    from analysis import animation

    for method, n in animation.DRAWN:
        drawn = float(sum(frame.advance for frame in animation.frames(method, n)))
        blank = Verdict(
            "schedule-animation", view.study, method, "count", ANY, f"evaluations executed at n = {n}",
            drawn, None, None, None, "not measured", 0, view.reasons("count", method),
        )  # fmt: skip
        executed = view.series(method, "count", "executed evaluations")
        if n not in executed.index:
            yield blank
            continue
        ran = float(executed[n])
        yield replace(
            blank,
            measured=ran,
            low=ran,
            high=ran,
            verdict=judge((drawn, drawn), ran, ran),
            points=1,
            why="Predicted: what the drawing shows. Measured: layer evaluations counted while the program ran.",
        )


CLAIMS = [
    Claim(
        "vanilla-memory-linear",
        "backprop",
        "Vanilla backprop keeps all activations: memory grows linearly with the number of layers, "
        "and every node is computed once.",
        "memory exponent 1, n evaluations",
        vanilla_memory,
        ("memory", "evaluations"),
    ),
    Claim(
        "memory-poor-constant-memory",
        "backprop",
        "Memory-poor backprop recomputes every activation: memory does not grow, evaluations grow as n squared.",
        "memory exponent 0, n(n+1)/2 evaluations",
        memory_poor,
        ("memory", "evaluations"),
    ),
    Claim(
        "sqrt-memory",
        "backprop",
        "With checkpoints every sqrt(n) layers memory grows as sqrt(n), at about one more forward pass.",
        "memory exponent 1/2, about 2 sqrt(n) activations, 2n - sqrt(n) evaluations",
        sqrt_memory,
        ("memory", "evaluations"),
    ),
    Claim(
        "sqrt-time",
        "backprop",
        "Checkpointing costs about one more forward pass of time.",
        "(evaluations/n + b) / (1 + b) of the time of vanilla, b the measured backward/forward",
        sqrt_time,
        ("time", "law", "frontier"),
    ),
    Claim(
        "binomial-optimal",
        "backprop",
        "(Beyond the lecture) for s slots no schedule needs fewer evaluations than the binomial one.",
        "t(n + 1, s) = r (n + 1) - C(s + r, s + 1) evaluations, s slots",
        binomial_optimal,
        ("evaluations", "frontier"),
    ),
    Claim(
        "schedule-animation",
        "backprop",
        "The animation of the strategies shows what is stored and what is computed again.",
        "drawn from the schedule that ran",
        schedule_animation,
        ("animation",),
    ),
]


def views(results: Results) -> list[View]:
    """A view for each study, target, workload and origin in the results.

    Of a study's parameters the one with the most values is swept; the others, fixed, are its workload.
    """
    everything = pd.concat([table for table in (results.frame, results.missing) if len(table)])
    everything = everything[(everything["target"] != ANY) & (everything["ruler"] != "fit")]
    origin = [name for name in ("dtype", "machine", "commit", "jax") if name in everything]
    found = []
    for study, mine in everything.groupby("study", sort=False):
        params = [name for name in parameters(mine) if mine[name].notna().any()]
        sweep = max(params, key=lambda name: mine[name].nunique(), default="depth")
        fixed = [name for name in params if name != sweep]
        for target, *values in mine[["target", *fixed, *origin]].drop_duplicates().to_numpy():
            workload = tuple(zip(fixed, values[: len(fixed)], strict=True))
            came_from = tuple(zip(origin, values[len(fixed) :], strict=True))
            found.append(View(results, str(study), target, workload, came_from, sweep))
    return found


def differences(view: View, among: Sequence[View]) -> str:
    """What tells a view from others of its study besides the target, in words; empty if nothing does."""
    facts = [dict((*other.workload, *other.origin)) for other in among if other.study == view.study]
    mine = dict((*view.workload, *view.origin))
    apart = [name for name in mine if any(other.get(name) != mine[name] for other in facts)]
    return ", ".join(f"{name} {mine[name]}" for name in apart)


def verdicts(results: Results, claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """Every claim of the studies in the results, on every target and workload that they hold."""
    found = views(results)
    rows = []
    for claim in claims:
        for view in (view for view in found if view.study == claim.study):
            words = differences(view, found)
            for verdict in claim.rule(view):
                rows.append(replace(verdict, why=f"{words}: {verdict.why}") if words else verdict)
    return list(dict.fromkeys(rows))  # a count is the same on every target


def saved_nothing(view: View, margin: float = 0.05) -> list[tuple[str, int, float, str, float]]:
    """Methods that recompute, and yet the compiler plans no less memory for them than for plain ``jax.grad``.

    A method is compared with plain ``jax.grad`` of its own form: an unrolled one with ``vanilla_unrolled``, any other
    with ``vanilla``. Rows are (method, n, temp in activations, plain method, its temp), at the largest depth that both
    have; less than ``margin`` below counts as not less.
    """
    found = []
    for method in view.frame["method"].unique():
        plain = "vanilla_unrolled" if method.endswith("_unrolled") else "vanilla"
        least = view.planned(plain)
        evaluations = view.series(method, "count", "evaluations")
        temp = view.planned(method)
        depths = temp.index.intersection(evaluations.index).intersection(least.index)
        if len(depths) == 0:
            continue
        n = depths.max()
        if evaluations[n] > n and temp[n] > (1 - margin) * least[n]:
            found.append((str(method), int(n), float(temp[n]), plain, float(least[n])))
    return found


RULERS_AGREE = 0.02  # relative: the process ruler's own error on programs whose truth is known


@dataclass(frozen=True)
class Apart:
    """What three rulers say of one program's memory, in bytes, and where they disagree, why."""

    method: str
    depth: int
    planned: float
    peak: float
    first: float
    sampled: float
    why: str


def rulers_apart(view: View, from_bytes: float = 64 * 2**20) -> list[Apart]:
    """The compiler's temp + outputs, the process's peak and memory-profiler's, where the plan is large enough."""
    rows = []
    for method in view.frame["method"].unique():
        planned = view.series(method, "compiler", "temp") + view.series(method, "compiler", "outputs")
        peaks = view.rows(method, "process", "peak")
        first = view.series(method, "process", "first peak").reindex(peaks.index)
        sampled = view.series(method, "process", "sampled peak").reindex(peaks.index)
        for n in planned.index.intersection(peaks.index):
            if planned[n] < from_bytes:
                continue
            peak, highest = float(peaks["value"][n]), float(max(first[n], peaks["value"][n]))
            rows.append(
                Apart(
                    str(method), int(n), float(planned[n]), peak, float(first[n]), float(sampled[n]),
                    _why_apart(float(planned[n]), peak, highest, float(sampled[n])),
                )
            )  # fmt: skip
    return rows


def _why_apart(planned: float, peak: float, highest: float, sampled: float) -> str:
    found = []
    if abs(peak - planned) > RULERS_AGREE * planned:
        found.append(f"the process holds {(peak - planned) / 2**20:+.1f} MiB beside the plan: unexplained")
    if sampled < highest - RULERS_AGREE * planned:
        found.append("memory-profiler is below the kernel's own mark: the peak was shorter than its interval")
    elif sampled > highest + RULERS_AGREE * planned:
        found.append("memory-profiler is above the kernel's own mark: unexplained")
    if highest - peak > RULERS_AGREE * planned:
        found.append(f"the first call takes {(highest - peak) / 2**20:.1f} MiB more, allocated once")
    return "; ".join(found)


def counted(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Number of verdicts by kind."""
    kinds = [verdict.verdict for verdict in verdicts]
    return {
        kind: int(np.sum([k == kind for k in kinds]))
        for kind in ("confirmed", "refuted", "inconclusive", "not measured")
    }
