"""Claims of the study ``modes``: forward against reverse mode, and the lecture's worked example."""

from collections.abc import Iterator
from dataclasses import replace
from math import exp, inf

import numpy as np
import pandas as pd
from scipy import stats

from adcost.modes import CLOSE_BESIDE
from adcost.rulers import process
from adcost.targets import ANY
from analysis import crossover, theory, worked_example
from analysis.advice import Advice, in_words
from analysis.fit import LEAST_SIZES
from analysis.verdict import Claim, Verdict, exponent_of, measured, unmeasured, within
from analysis.view import View
from benchmarks.studies.modes import MAP_DEPTH

LARGE = 2**14  # bytes of a state: the process ruler resolves a MiB, and what forward mode holds is less
RESOLVED = 0.5  # of an evaluation of f: less growth than that is none
ADVICE_RIGHT = 0.9  # of the cells that both can tell
ROUNDED = 1e-6


def per_evaluation(view: View, method: str, ruler: str) -> "pd.Series[float]":
    """A method's cost in evaluations of f, by flops or by time."""
    if ruler == "clock":
        return view.series(method, "clock", "time / function")
    return (view.series(method, "count", "flops") / view.series("function", "count", "flops")).dropna()


def along_inputs(view: View, family: str) -> View:
    return view.along("inputs", family=family, depth=MAP_DEPTH, outputs=1)


def along_outputs(view: View, family: str) -> View:
    return view.along("outputs", family=family, depth=MAP_DEPTH, inputs=1)


def _in_depth(view: View) -> pd.DataFrame:
    """The rows of the sweep over depth."""
    depth = view.frame.get("depth", pd.Series(np.nan, view.frame.index))
    return view.frame[depth.notna() & (depth != MAP_DEPTH)]


def along_depth(view: View, family: str) -> View:
    """The sweep over depth, at the number of inputs and outputs at which it was made."""
    frame = _in_depth(view)
    at = frame[frame["family"] == family]["inputs"].dropna()
    return view.along("depth", family=family, inputs=at.max() if len(at) else 0, outputs=at.max() if len(at) else 0)


def families_in_depth(view: View) -> list[str]:
    """The families that were swept over depth."""
    return [str(name) for name in _in_depth(view)["family"].dropna().unique()]


def swept(view: View) -> list[str]:
    """The families that were measured over whole lines, with sizes enough for an exponent."""
    return [
        family
        for family in crossover.families(view)
        if len(along_inputs(view, family).series("vjp", "count", "flops")) >= LEAST_SIZES
    ]


def forward_cost(view: View) -> Iterator[Verdict]:
    claim = "forward-cost-per-input"
    for method in ("jacfwd_loop", "jacfwd"):
        for ruler, words in (("count", "flops"), ("clock", "time")):
            for family in swept(view) or [""]:
                blank = unmeasured(view, claim, method, ruler, f"exponent of {words} / f in d, {family}", 1.0)
                values = per_evaluation(along_inputs(view, family), method, ruler) if family else pd.Series(dtype=float)
                verdict = exponent_of(blank, values, 0.0, "evaluations of f", "d")
                yield _with_reason(verdict, BATCHED if ruler == "clock" and method == "jacfwd" else "")


BATCHED = "All tangents go in one batch, which makes products of a matrix with a vector products of two matrices."


def _with_reason(verdict: Verdict, reason: str) -> Verdict:
    return replace(verdict, why=f"{verdict.why} {reason}".strip()) if verdict.verdict != "not measured" else verdict


def reverse_cost(view: View) -> Iterator[Verdict]:
    claim = "reverse-cost-per-output"
    for family in swept(view) or [""]:
        inputs, outputs = along_inputs(view, family), along_outputs(view, family)
        for method in ("jacrev_loop", "jacrev"):
            for ruler, words in (("count", "flops"), ("clock", "time")):
                blank = unmeasured(view, claim, method, ruler, f"exponent of {words} / f in m, {family}", 1.0)
                verdict = exponent_of(blank, per_evaluation(outputs, method, ruler), 0.0, "evaluations of f", "m")
                yield _with_reason(verdict, BATCHED if ruler == "clock" and method == "jacrev" else "")
        for ruler, words in (("count", "flops"), ("clock", "time")):
            blank = unmeasured(view, claim, "vjp", ruler, f"exponent of {words} / f in d, {family}", 0.0)
            yield exponent_of(blank, per_evaluation(inputs, "vjp", ruler), RESOLVED, "evaluations of f", "d")

    for family in crossover.families(view) or [""]:
        for ruler in ("count", "clock"):
            yield _cheap_gradient(view, along_inputs(view, family), family, ruler)


def _cheap_gradient(view: View, inputs: View, family: str, ruler: str) -> Verdict:
    bound = theory.CHEAP_GRADIENT
    words = {"count": "flops", "clock": "time"}[ruler]
    blank = unmeasured(
        view, "reverse-cost-per-output", "vjp", ruler, f"largest {words} of a gradient / f, {family}", bound
    )
    if ruler == "count":
        ratios = per_evaluation(inputs, "vjp", "count")
        if len(ratios) == 0:
            return blank
        most = (float(ratios.max()),) * 3
    else:
        rows = inputs.rows("vjp", "clock", "time / function")
        if len(rows) == 0:
            return blank
        ratios = rows["value"]
        worst = rows.sort_values("value").iloc[-1]
        floor = exp(inputs.floor(int(str(worst.name))))
        most = (worst["value"], worst["low"] / floor, worst["high"] * floor)
    why = f"At most {bound:.0f} whatever d is (the cheap-gradient principle); here from {ratios.min():.2f}."
    return measured(blank, (0.0, bound), most, len(ratios), why)


def stores_the_forward_pass(view: View) -> Iterator[Verdict]:
    claim = "reverse-stores-the-forward-pass"
    for family in families_in_depth(view) or [""]:
        line = along_depth(view, str(family))
        for method, predicted in (("vjp", 1.0), ("jvp", 0.0)):
            unit = line.series(method, "count", "activation")
            rulers = [("compiler", view.plan, 0.5)]
            if (
                view.attached
                and view.peak_ruler == "process"
                and method == "vjp"
                and len(unit)
                and unit.iloc[0] >= LARGE
            ):
                rulers.append(("process", "peak", 2 * process.RESOLUTION / float(unit.iloc[0])))
            for ruler, quantity, resolution in rulers:
                blank = unmeasured(
                    view, claim, method, ruler, f"exponent of {quantity} in the depth, {family}", predicted
                )
                values = line.activations(method, ruler, quantity)
                yield exponent_of(blank, values, resolution, "states", "n")


def mode_crossover(view: View) -> Iterator[Verdict]:
    claim = "mode-crossover"
    for family in crossover.families(view) or [""]:
        for ruler, words in (("count", "flops"), ("clock", "time")):
            predicted = theory.CROSSOVER.get(family)
            band = within(predicted or 1.0, 0.1) if ruler == "count" else theory.CROSSOVER_BAND
            blank = unmeasured(view, claim, "jacfwd / jacrev", ruler, f"c in d = c m by {words}, {family}", predicted)
            cells = crossover.cells(view, family, MAP_DEPTH, ruler) if family else []
            if not cells:
                yield blank
                continue
            try:
                fitted = crossover.boundary(cells)
            except ValueError as error:
                yield replace(blank, verdict="inconclusive", points=len(cells), why=f"{error}.")
                continue
            why = (
                f"Both cost the same at d = {fitted.c:.2f} m {fitted.b - fitted.a:+.1f}, fitted to {len(cells)} cells."
            )
            if ruler == "clock":
                why += " The band for time is [1, 2]. " + BATCHED
            yield measured(blank, band, (fitted.c, fitted.low, fitted.high), len(cells), why)
    yield _advice(view)


def _advice(view: View) -> Verdict:
    blank = unmeasured(
        view, "mode-crossover", "jacfwd / jacrev", "clock", "share of cells in which the advice was right", 1.0
    )
    held = crossover.advice_held(view, MAP_DEPTH)
    outcomes = [cell.outcome for cell in held]
    right, wrong = outcomes.count("right"), outcomes.count("wrong")
    if right + wrong == 0:
        return blank
    interval = stats.binomtest(right, right + wrong).proportion_ci(method="wilson")
    undecided = len(held) - right - wrong
    why = (
        f"which_mode counts flops in the program's text: right in {right} cells, wrong in {wrong}; in {undecided} the "
        f"counts or the clock could not tell. Wrong: "
        + (", ".join(f"{c.family} d = {c.d}, m = {c.m}" for c in held if c.outcome == "wrong") or "none")
        + "."
    )
    share = right / (right + wrong)
    return measured(blank, (ADVICE_RIGHT, inf), (share, interval.low, interval.high), right + wrong, why)


def from_the_field(view: View) -> Iterator[Verdict]:
    """Programs that people asked about: is the mode that the text advises the faster one?"""
    frame = view.frame[view.frame["family"] == "field"]
    for name in frame["program"].dropna().unique() if len(frame) and view.attached else [""]:
        line = view.along("inputs", family="field", program=str(name))
        said = line.series("jacrev", "count", "advised")
        quantity = f"time, advised / other mode, {name}".removesuffix(", ")
        blank = unmeasured(view, "mode-field", "jacfwd / jacrev", "clock", quantity, 1.0)
        if len(said) == 0:
            yield replace(blank, why=line.reasons("count", "jacrev"))
            continue
        d, mode = int(said.index[0]), MODES[said.iloc[0]]
        words = f"which_mode says {mode} from the program's text; {d} inputs."
        if line.series("jacrev", "count", "possible modes").iloc[0] == 1:
            only = replace(blank, ruler="count", target=ANY, quantity=f"mode advised where one is possible, {name}")
            yield measured(
                replace(only, predicted=-1.0), (-1.0, -1.0), (said.iloc[0],) * 3, 1, f"{words} jacfwd refuses it."
            )
            continue
        found = line.widened("jacfwd", "time / jacrev", d)
        if found is None:
            yield blank
            continue
        value, low, high = found if mode != "reverse" else (1 / found[0], 1 / found[2], 1 / found[1])
        if mode == "either":
            same = replace(blank, quantity=f"time, jacfwd / jacrev, {name}")
            why = f"{words} Then neither is {CLOSE_BESIDE} times as fast as the other."
            yield measured(same, (1 / CLOSE_BESIDE, CLOSE_BESIDE), (value, low, high), 1, why)
        else:
            flops, entries = line.series("jacrev", "count", "flops"), d * int(line.frame["outputs"].max())
            verdict = measured(blank, (0.0, 1.0), (value, low, high), 1, words)
            folded = verdict.verdict == "refuted" and len(flops) and flops.iloc[0] < entries
            yield _with_reason(verdict, FOLDED if folded else "")


FOLDED = (
    "It does less arithmetic than its Jacobian has entries; a likely cause is that XLA folds the seeds, unit vectors, "
    "into what moves them, and both modes then do little but write the result."
)
MODES = {1.0: "forward", -1.0: "reverse", 0.0: "either"}


def the_worked_example(view: View) -> Iterator[Verdict]:
    """The traces against the derivatives by hand: x2 + cos x1 and x1."""
    nodes = worked_example.lecture()
    by_hand = worked_example.by_hand()
    for i, (node, hand) in enumerate(zip(nodes[: len(by_hand)], by_hand, strict=True)):
        for mode, value in (("forward", nodes[-1].tangents[i]), ("reverse", node.adjoint)):
            blank = unmeasured(view, "worked-example", mode, "count", f"df/d{node.name} at x1 = 2, x2 = 5", hand)
            band = (hand - ROUNDED * abs(hand), hand + ROUNDED * abs(hand))
            why = "The trace's last tangent." if mode == "forward" else "The adjoint of the input."
            yield measured(blank, band, (value, value, value), 1, f"{why} Predicted: by hand, to rounding in float32.")


def advice(view: View) -> Iterator[Advice]:
    for verdict in mode_crossover(view):
        if verdict.ruler == "clock" and verdict.quantity.startswith("c in ") and verdict.measured is not None:
            assert verdict.low is not None
            assert verdict.high is not None
            family = verdict.quantity.rpartition(" ")[2]
            c = in_words((verdict.measured, verdict.low, verdict.high))
            question = f"Forward or reverse mode for a Jacobian of d inputs and m outputs? ({family})"
            yield Advice(
                view.study,
                view.target,
                question,
                f"reverse where d > {verdict.measured:.2f} m, forward below",
                f"c = {c} by time",
            )


CLAIMS = [
    Claim(
        "forward-cost-per-input",
        "modes",
        "Forward mode costs one pass an input: d x O(T) for d inputs.",
        "exponent 1 in d of flops over those of f; of time as well where tangents go one by one, and less in a batch",
        forward_cost,
        ("costs",),
    ),
    Claim(
        "reverse-cost-per-output",
        "modes",
        "Reverse mode costs O(T) for one output, whatever the number of inputs.",
        "exponent 1 in m, exponent 0 in d for one output; a gradient costs at most 5 evaluations",
        reverse_cost,
        ("costs", "gradient"),
    ),
    Claim(
        "reverse-stores-the-forward-pass",
        "modes",
        "Reverse mode stores the forward pass; forward mode does not.",
        "exponent of memory in the depth: 1 for a vjp, 0 for a jvp",
        stores_the_forward_pass,
        ("memory",),
    ),
    Claim(
        "mode-crossover",
        "modes",
        "(Task 1) Which mode for which graph?",
        "forward mode wins below d = c m, c the cost of a cotangent over that of a tangent, 1 to 2; and the program's "
        "text tells",
        mode_crossover,
        ("map",),
    ),
    Claim(
        "mode-field",
        "modes",
        "(Task 1) Which mode for the programs that people ask about?",
        "the mode that which_mode advises from the program's text is the faster one; where it says either, neither is "
        "2.5 times as fast",
        from_the_field,
        ("field",),
    ),
    Claim(
        "worked-example",
        "modes",
        "f(x1, x2) = x1 x2 + sin x1 by hand, in both modes.",
        "df/dx1 = x2 + cos x1, df/dx2 = x1, from traces that are derived from the program",
        the_worked_example,
        ("worked-example",),
    ),
]
