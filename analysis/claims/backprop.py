"""Claims of the study ``backprop``."""

from collections.abc import Iterator
from dataclasses import replace
from math import exp, log, sqrt

import numpy as np
import pandas as pd

from adcost.rulers import clock
from adcost.targets import ANY
from analysis import animation, theory
from analysis.advice import Advice, frontier
from analysis.verdict import RATIO_BAND, Claim, Verdict, exact_verdict, judge, memory_exponents, within
from analysis.view import View

LAW_FROM = 36  # depths from which the law of time is tested: below, what a call costs besides its layers shows


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
    share, low, high = clock.exponentiated(clock.ordered_interval(np.log(shares)))
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


def advice(view: View) -> Iterator[Advice]:
    planned = {method: view.planned(method) for method in view.frame["method"].unique()}
    if len(planned.get("vanilla", ())) == 0:
        return
    n = planned["vanilla"].index[-1]
    memory = pd.Series({m: float(temp[n]) for m, temp in planned.items() if n in temp.index and m != "forward"})
    ratios = {m: view.widened(m, "time / vanilla", n) for m in memory.index} | {"vanilla": (1.0, 1.0, 1.0)}
    question = f"How to backpropagate through {n} layers in less memory?"
    yield from frontier(view, question, memory, ratios, "activations", "plain jax.grad")


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
