"""Claims of the study ``backprop``."""

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt

import numpy as np
import pandas as pd

from adcost.rulers import clock
from analysis import theory
from analysis.advice import Advice, frontier
from analysis.rules import exact, exact_count, memory_exponents
from analysis.studies.backprop import animation
from analysis.verdict import RATIO_MARGIN, Cause, Claim, Test, at_most, exactly, within
from analysis.view import Found, View, widened

LAW_FROM = 36  # depths from which the law of time is tested: below, what a call costs besides its layers shows
BESIDES = 7.0  # activations that a schedule may hold beside its slots
LAW_MARGIN = "what the law leaves out, such as what a call costs, is to stay below that"
FRESH_PAGES = Cause(
    "likely",
    "The law counts evaluations; plain jax.grad of a scan also writes three residuals a layer to fresh pages, which a "
    "schedule spares.",
)
CAUSES = {"vanilla": FRESH_PAGES, "store_all": None}  # of a difference from the law, by baseline


def law_of_time(view: View, method: str, baseline: str) -> Iterator[Test]:
    """The law of time against one baseline: at the largest depth, and over all depths of some size.

    Its b is measured; the error of that widens the interval of what is held against the law.
    """
    quantity = f"time / {baseline}"
    evaluations = view.series(method, "count", "evaluations")
    forward = view.rows(baseline, "clock", "time / forward")
    timed = {n: found for n in view.rows(method, "clock", quantity).index if (found := view.timed(method, quantity, n))}
    depths = [n for n in timed if n >= LAW_FROM and n in forward.index and n in evaluations.index]
    if not depths:
        yield Test(method, "clock", quantity, gap=view.reasons("clock", method, baseline, "forward"))
        return

    def law(n: int, column: str = "value") -> float:
        return theory.time_ratio(evaluations[n], n, forward[column][n] - 1)

    n = depths[-1]
    predicted, (least, most) = law(n), sorted((law(n, "low"), law(n, "high")))
    found = widened(timed[n], least / predicted, most / predicted)
    why = (
        f"b = {forward['value'][n] - 1:.1f} [{forward['low'][n] - 1:.1f}, {forward['high'][n] - 1:.1f}] (backward over "
        f"forward of {baseline}; its error is in the interval), {evaluations[n] / n:.2f} evaluations a layer; "
        f"the lecture's b = 2 would give {theory.time_ratio(evaluations[n], n, 2):.2f}."
    )
    band = within(predicted, RATIO_MARGIN, LAW_MARGIN)
    yield Test(method, "clock", quantity, band, found, f"n={n}", predicted, why=why, cause=CAUSES[baseline])
    evaluations, forward = view.series(method, "count", "evaluations"), view.rows(baseline, "clock", "time / forward")
    view.rows(method, "clock", quantity)
    shares = [timed[k].value / law(k) for k in depths]
    over = clock.exponentiated(clock.ordered_interval(np.log(shares)))
    yield Test(
        method,
        "clock",
        f"{quantity} / the law's",
        within(1.0, RATIO_MARGIN, LAW_MARGIN),
        Found(*over, len(shares)),
        f"n from {depths[0]}",
        1.0,
        why=f"The median over depths; smallest {min(shares):.2f}, largest {max(shares):.2f}.",
        cause=CAUSES[baseline],
    )


def vanilla_memory(view: View) -> Iterator[Test]:
    for method in ("vanilla", "store_all"):
        yield from memory_exponents(view, method, 1.0)
        yield exact_count(view, method, "evaluations", theory.vanilla_evaluations, "n")


def memory_poor(view: View) -> Iterator[Test]:
    yield from memory_exponents(view, "memory_poor", 0.0)
    yield exact_count(view, "memory_poor", "evaluations", theory.memory_poor_evaluations, "n(n+1)/2")


def sqrt_memory(view: View) -> Iterator[Test]:
    yield from memory_exponents(view, "sqrt", 0.5)
    yield exact_count(view, "sqrt", "evaluations", theory.sqrt_evaluations, "2n - sqrt(n), rounded up,")
    temp = view.planned("sqrt")
    test = Test("sqrt", "compiler", f"{view.plan} / (2 sqrt(n) activations)", predicted=1.0)
    if len(temp) == 0:
        yield test
        return
    n = temp.index[-1]
    yield replace(
        test,
        band=within(1.0, RATIO_MARGIN, "the constant beside 2 sqrt(n) is to stay below that"),
        found=exact(float(temp[n] / (2 * sqrt(n)))),
        at=f"n={n}",
        why=f"{temp[n]:.1f} activations planned, 2 sqrt(n) = {2 * sqrt(n):.1f}.",
    )


def sqrt_time(view: View) -> Iterator[Test]:
    for baseline in ("vanilla", "store_all"):
        yield from law_of_time(view, "sqrt", baseline)


def binomial_optimal(view: View) -> Iterator[Test]:
    for method in ("binomial_3", "binomial_10", "binomial_sqrt"):
        if view.sizes(method, "count", "slots"):
            slots = view.series(method, "count", "slots")

            def optimum(n: int, slots: "pd.Series[float]" = slots) -> int:
                return theory.optimal_evaluations(n, int(slots[n]))

            yield exact_count(view, method, "evaluations", optimum, "t(n + 1, s)")
        yield _above_the_slots(view, method)


def _above_the_slots(view: View, method: str) -> Test:
    over = (view.planned(method) - view.series(method, "count", "slots")).dropna()
    test = Test(method, "compiler", f"{view.plan} above the slots, in activations")
    if len(over) == 0:
        return test
    band = at_most(BESIDES, "what one layer's evaluation and backward step hold, whatever the depth")
    why = f"The most at any depth; the least is {over.min():.2f}."
    return replace(test, band=band, found=exact(float(over.max()), len(over)), why=why)


def schedule_animation(view: View) -> Iterator[Test]:
    for method, n in animation.DRAWN:
        drawn = float(sum(frame.advance for frame in animation.frames(method, n)))
        executed = view.series(method, "count", "executed evaluations")
        why = "Predicted: what the drawing shows. Measured: layer evaluations counted while the program ran."
        yield Test(
            method,
            "count",
            "evaluations executed",
            exactly(drawn, "the drawing shows the schedule that ran"),
            exact(float(executed[n])) if n in executed.index else None,
            f"n={n}",
            drawn,
            why=why if n in executed.index else "",
        )


def advice(view: View) -> Iterator[Advice]:
    planned = {method: view.planned(method) for method in view.frame["method"].unique()}
    if len(planned.get("vanilla", ())) == 0:
        return
    n = int(planned["vanilla"].index[-1])
    memory = pd.Series({m: float(temp[n]) for m, temp in planned.items() if n in temp.index and m != "forward"})
    question = f"How to backpropagate through {n} layers in less memory?"
    yield from frontier(view, question, memory, n, "vanilla", "activations", "plain jax.grad")


CHAPTER = 6  # of the lecture
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
