"""Claims of the study ``loops``."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from analysis.advice import Advice, frontier
from analysis.rules import exact
from analysis.verdict import Cause, Claim, Test, at_least, at_most, exactly
from analysis.view import View, at

OURS = (
    "like_remat", "two_passes", "two_passes_host", "three_passes", "like_equinox", "like_equinox_ten", "tenth", "slots",
    "slots_ten",
)  # fmt: skip
BESIDE = {  # of each peer the methods of ours that take as much memory, or evaluate as much
    "remat": ("like_remat", "two_passes"),
    "nested": ("two_passes",),
    "nested_inner": ("three_passes",),
    "equinox": ("like_equinox", "slots"),
    "equinox_ten": ("like_equinox_ten", "slots_ten"),
}
CARRIES = 5.0  # that the plan may lie above the prediction
USED = 0.8  # of a budget
WIDE = 1024  # width of the loops whose weights are larger than their carry
SMALL = 1000  # steps of the loop with a carry of 256 floats
IN_CACHE = Cause(
    "likely",
    "What plain backprop keeps fits into the cache here: there is no traffic to save, only work to add.",
    "above",
)
FEWER = Cause(
    "likely",
    "The compiler keeps fewer residuals than a step hands over, of single steps none: only its plan says how many.",
    "below",
)
ONE_MEMORY = "A CPU's host memory is its own."
WEIGHTY = Cause(
    "likely", "Weights dwarf the carry: the compiler slices and transposes those of a step once more.", "above"
)


class Found(NamedTuple):
    """A loop in the results: its name for people, its slice, and its steps, by which the slice is indexed."""

    name: str
    line: View
    steps: int


def sizes(view: View) -> list[tuple[str, int, int, int]]:
    """Family, rows, width and steps of each loop."""
    names = ["family", "rows", "width", "steps"]
    tables = [table[names].dropna() for table in (view.frame, view.missing) if len(table) and "steps" in table]
    found = pd.concat(tables).drop_duplicates() if tables else pd.DataFrame(columns=names)
    return [(str(f), int(r), int(w), int(n)) for f, r, w, n in found.itertuples(index=False)]


def loops(view: View) -> Iterator[Found]:
    """Every loop at which methods are compared."""
    for family, rows, width, steps in sizes(view):
        line = view.along("steps", family=family, rows=rows, width=width, budget=0)
        name = f"{family}, a carry of {rows * width}" if rows == 1 else f"{family}, width {width}"
        yield Found(name, line, steps)


def ratio(line: View, method: str, other: str, n: int) -> float | None:
    """What is planned for a method over what is planned for another."""
    mine, theirs = (at(line.planned_bytes(name), n) for name in (method, other))
    return None if mine is None or not theirs else mine / theirs


def as_scheduled(view: View) -> Iterator[Test]:
    """Evaluations and memory of each schedule, in every loop."""
    for method in OURS:
        yield _evaluated(view, method)
        yield _beyond(view, method)


def _evaluated(view: View, method: str) -> Test:
    test = Test(method, "count", "loops that evaluate more or fewer steps than the schedule says", exactly(0.0))
    wrong, known = [], 0
    for name, line, n in loops(view):
        due = at(line.series(method, "count", "scheduled evaluations"), n)
        ran = at(line.series(method, "count", "executed evaluations"), n)
        counted = at(line.series(method, "count", "evaluations"), n)
        if due is not None and ran is not None and counted is not None:
            known += 1
            wrong += [f"{name}: {ran:.0f} run, {counted:.0f} counted for {due:.0f}"] if {ran, counted} != {due} else []
    if not known:
        return test
    why = "; ".join(wrong) + "." if wrong else f"Of {known} loops, counted in the program and while it ran."
    return replace(test, found=exact(float(len(wrong)), known), predicted=0.0, why=why)


def _beyond(view: View, method: str) -> Test:
    band = at_most(CARRIES, "a few carries are the compiler's")
    test = Test(method, "compiler", f"most {view.plan} beyond slots and residuals of a loop, in carries", band)
    beyond = {}
    for name, line, n in loops(view):
        if view.platform == "cpu" and method.endswith("_host"):
            continue  # the host's memory is the device's
        planned = at(line.planned(method), n)
        predicted = at(line.series(method, "count", "predicted memory"), n)
        if planned is not None and predicted is not None:
            beyond[name] = planned - predicted
    if not beyond:
        return replace(test, gap=ONE_MEMORY) if view.platform == "cpu" and method.endswith("_host") else test
    worst = max(beyond, key=lambda name: beyond[name])
    why = f"Of {len(beyond)} loops; the least is {min(beyond.values()):.1f}."
    return replace(test, found=exact(beyond[worst], len(beyond)), at=worst, why=why, linear=True)


def peers(view: View) -> Iterator[Test]:
    """No more memory than a peer, and not slower."""
    for peer, methods in BESIDE.items():
        for method in methods:
            yield _no_more_memory(view, method, peer)
            for name, line, n in loops(view) if view.attached else ():
                if line.asked(method, n):
                    yield _not_slower(line, method, peer, name, n)


def _no_more_memory(view: View, method: str, peer: str) -> Test:
    test = Test(f"{method} / {peer}", "compiler", f"most {view.plan} over the peer's", at_most(1.0, "no more than it"))
    found = {name: over for name, line, n in loops(view) if (over := ratio(line, method, peer, n)) is not None}
    if not found:
        return replace(test, gap=view.reasons("compiler", method, peer))
    worst = max(found, key=lambda name: found[name])
    why = f"Of {len(found)} loops; the least is {min(found.values()):.2f}."
    cause = WEIGHTY if worst.endswith(f"width {WIDE}") else None
    return replace(test, found=exact(found[worst], len(found)), at=worst, why=why, cause=cause)


def _not_slower(line: View, method: str, peer: str, name: str, n: int) -> Test:
    over = ratio(line, method, peer, n)
    why = f"With {over:.2f} of its planned memory." if over is not None else ""
    band = at_most(1.0, "not slower than it")
    found = line.compared(method, peer, n)
    gap = "" if found else line.reasons("clock", method, peer)
    return Test(f"{method} / {peer}", "clock", "time over the peer's", band, found, name, why=why, gap=gap)


def small_carries(view: View) -> Iterator[Test]:
    """A carry of 256 floats: as fast as plain backprop, in a tenth of its memory."""
    for name, line, n in loops(view):
        if n != SMALL:
            continue
        share = ratio(line, "tenth", "plain", n)
        band = at_most(0.1, "a tenth is what the schedule is made for")
        yield Test("tenth", "compiler", f"{view.plan} / plain", band, None if share is None else exact(share), name)
        if view.attached:
            timed, band = line.timed("tenth", "time / plain", n), at_most(1.0, "not slower than it")
            why = _by_evaluations(line, n)
            yield Test("tenth", "clock", "time / plain", band, timed, name, why=why, cause=IN_CACHE)


def _by_evaluations(line: View, n: int) -> str:
    """What its evaluations alone would make of plain's time."""
    forward, plain = (at(line.series(method, "clock", "time"), n) for method in ("forward", "plain"))
    evaluations = at(line.series("tenth", "count", "evaluations"), n)
    if not forward or not plain or evaluations is None:
        return ""
    again = evaluations / n - 1
    return f"By its evaluations alone {1 + again * forward / plain:.2f}: {again:.2f} forward passes more."


def budgets(view: View) -> Iterator[tuple[str, View]]:
    """The loops for which sixteen budgets are tried, by budget."""
    for family, rows, width, steps in sizes(view):
        line = view.along("budget", family=family, rows=rows, width=width, steps=steps)
        if len(line.asked_sizes("budget")) > 1:
            yield f"{family}, width {width}", line


def descend(view: View) -> Iterator[Test]:
    """Each budget is used, and more memory never costs more evaluations."""
    for name, line in budgets(view):
        evaluations = line.series("budget", "count", "evaluations")
        rises = int((evaluations.diff().dropna() > 0).sum())
        words = f"From {evaluations.iloc[0]:.0f} evaluations to {evaluations.iloc[-1]:.0f}." if len(evaluations) else ""
        quantity = "budgets that cost more evaluations than the next smaller"
        found = exact(float(rises), len(evaluations)) if len(evaluations) else None
        yield Test("budget", "count", quantity, exactly(0.0), found, at=name, why=words)

        over = (line.planned("budget") - line.series("budget", "count", "budget")).dropna()
        band = at_most(CARRIES, "a few carries are the compiler's")
        found = exact(float(over.max()), len(over)) if len(over) else None
        quantity = f"most {view.plan} beyond the budget, in carries"
        yield Test("budget", "compiler", quantity, band, found, at=name, linear=True)

        used = _used(line)
        band = at_least(USED, "what is granted is to be used; the few carries apart, and plain backprop needs no more")
        found = exact(float(used.min()), len(used)) if len(used) else None
        quantity = f"least share of a budget in the {view.plan}"
        yield Test("budget", "compiler", quantity, band, found, at=name, linear=True, cause=FEWER)


def _used(line: View) -> pd.Series:
    """Of each budget below what plain backprop takes the share that is planned, a few carries apart."""
    planned, evaluations = line.planned("budget"), line.series("budget", "count", "evaluations")
    allowed = line.series("budget", "count", "budget") - CARRIES
    some = evaluations[evaluations > evaluations.min()].index
    return (planned / allowed).reindex(some).dropna()


def advice(view: View) -> Iterator[Advice]:
    for name, line, n in loops(view):
        methods = ("plain", *BESIDE, *OURS)
        memory = pd.Series({m: v for m in methods if (v := at(line.planned(m), n)) is not None}, dtype=float)
        question = f"How to differentiate a loop in less memory? ({name}, {n} steps)"
        yield from frontier(line, question, memory, n, "plain", "carries", "plain backprop")


CHAPTER = 9  # beyond the lecture
CLAIMS = [
    Claim(
        "loop-schedules",
        "loops",
        "(Beyond the lecture) A schedule does in any loop what it does in a chain of layers.",
        "its evaluations exactly; max(tail, block) residuals of a step + slots + 4 carries, at most 5 more, beside one "
        "copy of the cotangents of what the loop closes over",
        as_scheduled,
        ("peers",),
    ),
    Claim(
        "loop-peers",
        "loops",
        "(Beyond the lecture) In the memory of what people use today, or with its evaluations, no loop is slower.",
        "memory and time over the peer's at most 1",
        peers,
        ("peers",),
    ),
    Claim(
        "small-carries",
        "loops",
        "(Beyond the lecture) Checkpointing pays for carries of a kilobyte as well.",
        "at most plain backprop's time with at most a tenth of its memory",
        small_carries,
        ("peers",),
    ),
    Claim(
        "blocks-descend",
        "loops",
        "(Beyond the lecture) One family of schedules reaches from plain backprop to the binomial optimum.",
        "each of 16 budgets is used to 80%, and none costs more evaluations than the next smaller one",
        descend,
        ("budgets",),
    ),
]
