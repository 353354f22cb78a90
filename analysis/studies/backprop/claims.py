"""Claims of the study ``backprop``."""

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt

import numpy as np
import pandas as pd
from scipy import stats

from adcost.rulers import clock
from analysis import law, theory
from analysis.advice import Advice, frontier
from analysis.fit import LEAST_SIZES
from analysis.rules import exact, exact_count, memory_exponents
from analysis.studies.backprop import animation
from analysis.verdict import RATIO_MARGIN, Cause, Claim, Noise, Test, around, at_most, exactly, within
from analysis.view import Found, View, widened

LAW_FROM = 36  # depths from which the law of time is tested: below, what a call costs besides its layers shows
FIXED_BY = "binomial_10"  # by whose time the law with traffic is fixed beforehand
WIDE = 1024  # width of the layers in which arithmetic is what counts
PUBLISHED_AT = 1000  # layers of the published figures
BESIDES = 7.0  # activations that a schedule may hold beside its slots
LAW_MARGIN = "what the law leaves out, such as what a call costs, is to stay below that"


def timed_by_depth(view: View, method: str, baseline: str) -> dict[int, Found]:
    """Times over a baseline's with their intervals, at the depths at which the law of time can be tested."""
    quantity = f"time / {baseline}"
    depths = [n for n in view.sizes(method, "clock", quantity) if n >= LAW_FROM]
    known = set(view.sizes(baseline, "clock", "time / forward")) & set(view.sizes(method, "count", "evaluations"))
    return {n: found for n in depths if n in known and (found := view.timed(method, quantity, n)) is not None}


def by_law(view: View, method: str, baseline: str, n: int, column: str = "value") -> float:
    """Time over a baseline's by evaluations alone, with the b that was measured of the baseline."""
    evaluations = view.series(method, "count", "evaluations")
    forward = view.rows(baseline, "clock", "time / forward")[column]
    return theory.time_ratio(evaluations[n], n, forward[n] - 1)


def over_the_law(view: View, method: str, baseline: str) -> dict[int, float]:
    """Measured over predicted time, by depth."""
    timed = timed_by_depth(view, method, baseline)
    return {n: found.value / by_law(view, method, baseline, n) for n, found in timed.items()}


def _at_the_largest_depth(view: View, method: str, baseline: str) -> Test:
    """The law's b is measured: the error of that widens the interval of what is held against the law."""
    timed = timed_by_depth(view, method, baseline)
    test = Test(method, "clock", f"time / {baseline}")
    if not timed:
        return replace(test, gap=view.reasons("clock", method, baseline, "forward"))
    n = max(timed)
    predicted = by_law(view, method, baseline, n)
    least, most = sorted(by_law(view, method, baseline, n, column) / predicted for column in ("low", "high"))
    b, low, high = (view.rows(baseline, "clock", "time / forward")[name][n] - 1 for name in ("value", "low", "high"))
    each = view.series(method, "count", "evaluations")[n] / n
    why = (
        f"b = {b:.1f} [{low:.1f}, {high:.1f}] (backward over forward of {baseline}; its error is in the interval), "
        f"{each:.2f} evaluations a layer; the lecture's b = 2 would give {theory.time_ratio(each * n, n, 2):.2f}."
    )
    band, found = within(predicted, RATIO_MARGIN, LAW_MARGIN), widened(timed[n], least, most)
    return replace(
        test, band=band, found=found, at=f"n={n}", predicted=predicted, why=why, cause=_cause(view, method, baseline)
    )


def _over_depths(view: View, method: str, baseline: str) -> Iterator[Test]:
    shares = list((by_depth := over_the_law(view, method, baseline)).values())
    if not shares:
        return  # the row at the largest depth says why

    def again(truth: float, noise: Noise) -> Found:  # the error of b, a few percent of a share, is left out
        return _median_over_depths(truth * noise.factors(len(shares)))

    yield Test(
        method,
        "clock",
        f"time / {baseline} / the law's",
        within(1.0, RATIO_MARGIN, LAW_MARGIN),
        _median_over_depths(np.array(shares)),
        f"n from {min(by_depth)}",
        1.0,
        why=f"The median over depths; smallest {min(shares):.2f}, largest {max(shares):.2f}.",
        cause=_cause(view, method, baseline),
        again=again,
    )


def _median_over_depths(shares: "np.ndarray") -> Found:
    return Found(*clock.exponentiated(clock.ordered_interval(np.log(shares))), len(shares))


def _cause(view: View, method: str, baseline: str) -> Cause | None:
    """Beside plain jax.grad, which writes three residuals a layer; both sides of the executor write what they store."""
    return law.cause(rows_of_the_law(view), method) if baseline == "vanilla" else None


def swept(view: View) -> bool:
    """Is the workload one of which depths are swept? Of others times are asked, and what has been published."""
    return len(view.asked_sizes("vanilla")) >= LEAST_SIZES


def vanilla_memory(view: View) -> Iterator[Test]:
    if not swept(view):
        return
    for method in ("vanilla", "store_all"):
        yield from memory_exponents(view, method, 1.0)
        yield exact_count(view, method, "evaluations", theory.vanilla_evaluations, "n")


def memory_poor(view: View) -> Iterator[Test]:
    if not swept(view):
        return
    yield from memory_exponents(view, "memory_poor", 0.0)
    yield exact_count(view, "memory_poor", "evaluations", theory.memory_poor_evaluations, "n(n+1)/2")


def sqrt_memory(view: View) -> Iterator[Test]:
    if not swept(view):
        return
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
    if not view.asked_sizes("sqrt"):
        return
    for baseline in ("vanilla", "store_all"):
        yield _at_the_largest_depth(view, "sqrt", baseline)
        yield from _over_depths(view, "sqrt", baseline)


def work_and_traffic(view: View) -> Iterator[Test]:
    if view.attached and view.asked_sizes(FIXED_BY):
        yield from law.put(view, rows_of_the_law(view), "vanilla", FIXED_BY)
        if others := rows_of_the_law(view, online=True):
            yield from law.put(view, others, "vanilla", FIXED_BY, "loops=of other libraries")


def rows_of_the_law(view: View, online: bool = False) -> list[law.Row]:
    """The law with traffic held against every method that has a loop, from ``LAW_FROM`` layers on.

    Loops of other libraries, whose schedules are found while they run, stand apart.
    """
    forms = {name: traits.form for name in view.methods if (traits := view.traits(name))}
    ours = ("vanilla", "forward", FIXED_BY)
    looped = [
        name for name, form in forms.items() if name in ours or (form != "unrolled" and (form == "online") == online)
    ]
    each = {name: view.series(name, "count", "evaluations") for name in looped}
    shares = {name: values / values.index for name, values in each.items() if len(values)}
    return law.rows(view, "vanilla", FIXED_BY, shares, LAW_FROM) if {"vanilla", FIXED_BY} <= set(shares) else []


def allocator_break(view: View) -> Iterator[Test]:
    """Times over the law's where vanilla's residuals are mapped anew, over those where they are not."""
    if not view.attached or view.platform != "cpu" or not swept(view):
        return
    shares, temp = over_the_law(view, "sqrt", "vanilla"), view.series("vanilla", "compiler", "temp")
    known = [n for n in shares if n in temp.index]
    sides = [[shares[n] for n in known if (temp[n] > theory.MAPPED) == above] for above in (True, False)]
    kept = view.target == theory.KEEPS_PAGES
    band = (
        within(1.0, RATIO_MARGIN, "an allocator that keeps its pages has no threshold")
        if kept
        else at_most(1 / (1 + RATIO_MARGIN), "above it vanilla's residuals are written to fresh pages, below not")
    )
    quantity = "time / the law's, residuals of vanilla above 32 MiB / below"
    test = Test("sqrt", "clock", quantity, band, predicted=1.0 if kept else None)
    if min(map(len, sides)) < 2:
        reason = "needs two depths on either side of 32 MiB." if shares else view.reasons("clock", "sqrt", "vanilla")
        yield replace(test, gap=reason)
        return

    def again(truth: float, noise: Noise) -> Found:
        above, below = (noise.factors(len(side)) for side in sides)
        return _above_over_below(truth * above, below)

    why = f"Over {len(sides[0])} depths above and {len(sides[1])} below; Welch's interval."
    yield replace(test, found=_above_over_below(*map(np.array, sides)), why=why, again=again)


def _above_over_below(above: "np.ndarray", below: "np.ndarray") -> Found:
    """The ratio of two geometric means with Welch's 95% interval."""
    logs = np.log(above), np.log(below)
    interval = stats.ttest_ind(*logs, equal_var=False).confidence_interval(clock.CONFIDENCE)
    value, low, high = np.exp([logs[0].mean() - logs[1].mean(), interval.low, interval.high])
    return Found(float(value), float(low), float(high), len(above) + len(below))


def binomial_optimal(view: View) -> Iterator[Test]:
    if not swept(view):
        return
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
    if not swept(view):
        return
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


def gruslys(view: View) -> Iterator[Test]:
    n, slots = PUBLISHED_AT, 50
    if not view.asked("binomial_50", n):
        return
    counted = view.series("binomial_50", "count", "evaluations")
    found = exact(float(counted[n])) if n in counted.index else None
    yield Test("binomial_50", "count", "evaluations", exactly(1950.0, "their optimum"), found, f"n={n}", 1950.0)
    planned, plain = view.planned("binomial_50"), view.planned("store_all")
    saved = exact(1 - float(planned[n] / plain[n])) if n in planned.index and n in plain.index else None
    band = around(0.95, 0.01, f"{slots} of {n} activations, and a few besides")
    quantity = f"saved of the {view.plan} of all activations"
    yield Test("binomial_50", "compiler", quantity, band, saved, f"n={n}", 0.95, linear=True)
    band = within(1.317, RATIO_MARGIN, "(1950 / 1000 + 2) / 3, where the backward pass takes twice the forward pass")
    time = view.timed("binomial_50", "time / vanilla", n)
    yield Test(
        "binomial_50",
        "clock",
        "time / vanilla",
        band,
        time,
        f"n={n}",
        1.317,
        cause=_cause(view, "binomial_50", "vanilla"),
    )


def revolve(view: View) -> Iterator[Test]:
    n = PUBLISHED_AT
    if not view.asked("binomial_10_tape", n):
        return
    counted = view.series("binomial_10_tape", "count", "evaluations")
    found = exact(float(counted[n]) / n) if n in counted.index else None
    yield Test("binomial_10_tape", "count", "evaluations / n", exactly(4.64, "the optimum"), found, f"n={n}", 4.64)


def chen(view: View) -> Iterator[Test]:
    if dict(view.workload).get("width") != WIDE:
        return
    n = max(view.asked_sizes("jax_remat_sqrt"), default=0)
    band = within(1.3, RATIO_MARGIN, "one forward pass more, where it takes 30% of a step")
    time = view.timed("jax_remat_sqrt", "time / vanilla", n)
    yield Test(
        "jax_remat_sqrt",
        "clock",
        "time / vanilla",
        band,
        time,
        f"n={n}",
        1.3,
        cause=_cause(view, "jax_remat_sqrt", "vanilla"),
    )


def advice(view: View) -> Iterator[Advice]:
    planned = {method: view.planned(method) for method in view.frame["method"].unique()}
    if len(planned.get("vanilla", ())) == 0:
        return
    n = int(planned["vanilla"].index[-1])
    memory = pd.Series({m: float(temp[n]) for m, temp in planned.items() if n in temp.index and m != "forward"})
    width = dict(view.workload).get("width", 0)
    question = f"How to backpropagate through {n} layers of width {width:.0f} in less memory?"
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
        "work-and-traffic",
        "backprop",
        "(Beyond the lecture) Why checkpointing can be faster: what is not stored need not be written and read.",
        "time / vanilla = phi E/n + beta + omega S/S_vanilla, fixed by one method, within 15% in 95% of rows",
        work_and_traffic,
        ("traffic", "law"),
    ),
    Claim(
        "allocator-break",
        "backprop",
        "(Beyond the lecture) The law of time breaks where glibc maps memory anew for each request: above 32 MiB.",
        "checkpointing gains more above than below; with an allocator that keeps its pages there is no break",
        allocator_break,
        ("law",),
    ),
    Claim(
        "published-gruslys",
        "backprop",
        "Gruslys et al., NIPS 2016: 1000 steps with 50 slots cost 33% more time and 95% less memory.",
        "1950 evaluations, 95% less memory, 1.317 of the time where arithmetic dominates",
        gruslys,
    ),
    Claim(
        "published-revolve",
        "backprop",
        "Griewank and Walther, ACM TOMS 26, 2000; spyro #390: 1000 steps with 10 slots.",
        "4.64 evaluations a step, in the tape's account",
        revolve,
    ),
    Claim(
        "published-chen",
        "backprop",
        "Chen et al., arXiv:1604.06174: segments of sqrt(n) layers cost 30% more time.",
        "1.3 of the time where arithmetic dominates",
        chen,
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
