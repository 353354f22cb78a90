"""Claims of the study ``modes``: forward against reverse mode, and the lecture's worked example."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from adcost.modes import CLOSE_BESIDE
from adcost.rulers import process
from analysis import theory
from analysis.advice import Advice, in_words
from analysis.fit import LEAST_SIZES
from analysis.rules import exact, exponent, share
from analysis.studies.modes import readings
from analysis.verdict import Band, Cause, Claim, Noise, Test, at_least, at_most, exactly, within
from analysis.view import Found, View

MAP_DEPTH = 8  # steps at which inputs and outputs vary

LARGE = 2**14  # bytes of a state: the process ruler resolves a MiB, and what forward mode holds is less
RESOLVED = 0.5  # of an evaluation of f: less growth than that is none
FEW = 40  # resamples of a boundary where it is found again and again
ADVICE_RIGHT = 0.9  # of the cells that both can tell


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
        for family in readings.families(view)
        if len(along_inputs(view, family).series("vjp", "count", "flops")) >= LEAST_SIZES
    ]


BATCHED = Cause(
    "likely",
    "All tangents, or cotangents, go in one batch, which makes products with a vector products of two matrices.",
    "below",
)


def forward_cost(view: View) -> Iterator[Test]:
    for method in ("jacfwd_loop", "jacfwd"):
        for ruler, words in (("count", "flops"), ("clock", "time")):
            for family in swept(view) or [""]:
                cause = BATCHED if ruler == "clock" and method == "jacfwd" else None
                yield _exponent(along_inputs(view, family), method, ruler, f"{words} / f in d", family, 1.0, cause)


def _exponent(
    line: View, method: str, ruler: str, words: str, family: str, predicted: float, cause: Cause | None = None
) -> Test:
    """The exponent of a cost in evaluations of f."""
    at = f"family={family}" if family else ""
    test = Test(method, ruler, f"exponent of {words}", at=at, predicted=predicted, cause=cause)
    values = per_evaluation(line, method, ruler) if family else pd.Series(dtype=float)
    return exponent(test, values, "evaluations of f", words[-1], resolution=0.0 if predicted else RESOLVED)


def reverse_cost(view: View) -> Iterator[Test]:
    for family in swept(view) or [""]:
        inputs, outputs = along_inputs(view, family), along_outputs(view, family)
        for method in ("jacrev_loop", "jacrev"):
            for ruler, words in (("count", "flops"), ("clock", "time")):
                cause = BATCHED if ruler == "clock" and method == "jacrev" else None
                yield _exponent(outputs, method, ruler, f"{words} / f in m", family, 1.0, cause)
        for ruler, words in (("count", "flops"), ("clock", "time")):
            yield _exponent(inputs, "vjp", ruler, f"{words} / f in d", family, 0.0)
    for family in readings.families(view) or [""]:
        for ruler in ("count", "clock"):
            yield _cheap_gradient(along_inputs(view, family), family, ruler)


def _cheap_gradient(inputs: View, family: str, ruler: str) -> Test:
    words = {"count": "flops", "clock": "time"}[ruler]
    band = at_most(theory.CHEAP_GRADIENT, "the cheap-gradient principle, whatever d is")
    test = Test("vjp", ruler, f"largest {words} of a gradient / f", band, at=f"family={family}" if family else "")
    ratios = per_evaluation(inputs, "vjp", ruler)
    if len(ratios) == 0:
        return test
    worst = int(str(ratios.idxmax()))
    why = f"At d = {worst}; the least is {ratios.min():.2f}."
    if ruler == "count":
        return replace(test, found=exact(float(ratios[worst]), len(ratios)), why=why)
    each = {d: found for d in ratios.index if (found := inputs.timed("vjp", "time / function", d)) is not None}

    def again(truth: float, noise: Noise) -> Found:
        drawn = ratios * (truth / ratios[worst]) * noise.factors(len(ratios))
        highest = int(str(drawn.idxmax()))
        row, shift = each[highest], float(drawn[highest]) / each[highest].value
        return row._replace(value=row.value * shift, low=row.low * shift, high=row.high * shift)

    return replace(test, found=each[worst]._replace(points=len(ratios)), why=why, again=again)


def stores_the_forward_pass(view: View) -> Iterator[Test]:
    for family in families_in_depth(view) or [""]:
        line, at = along_depth(view, family), f"family={family}" if family else ""
        for method, predicted in (("vjp", 1.0), ("jvp", 0.0)):
            test = Test(method, "compiler", f"exponent of {view.plan} in the depth", at=at, predicted=predicted)
            yield exponent(test, line.activations(method, "compiler", view.plan), "states", resolution=0.5)
            unit = line.series(method, "count", "activation")
            state = float(unit.iloc[0]) if len(unit) else 0.0
            if view.attached and view.peak_ruler == "process" and method == "vjp" and state >= LARGE:
                least = 2 * process.RESOLUTION / state
                test = Test(method, "process", "exponent of peak in the depth", at=at, predicted=predicted)
                values = line.activations(method, "process", "peak")
                yield exponent(test, values, "states", resolution=least, censored=process.RESOLUTION / state)


def published_chunks(view: View) -> Iterator[Test]:
    """Planned memory of a Jacobian all at once over that in chunks, at the largest size."""
    for family in swept(view):
        for method, whole, line in (
            ("jacfwd_chunked", "jacfwd", along_inputs(view, family)),
            ("jacrev_chunked", "jacrev", along_outputs(view, family)),
        ):
            sizes = line.sizes(method, "compiler", view.plan)
            planned = [line.planned_bytes(name) for name in (whole, method)]
            n = sizes[-1] if sizes else 0
            found = exact(float(planned[0][n] / planned[1][n])) if sizes and n in planned[0].index else None
            band = at_least(4.0, "what was found there, with chunks of their own")
            yield Test(
                method, "compiler", f"{view.plan} all at once / in chunks", band, found, f"n={n}; family={family}"
            )


def mode_crossover(view: View) -> Iterator[Test]:
    for family in readings.families(view) or [""]:
        for ruler, words in (("count", "flops"), ("clock", "time")):
            yield _boundary(view, family, ruler, words)
    yield _advice(view)


def _boundary(view: View, family: str, ruler: str, words: str) -> Test:
    predicted = theory.CROSSOVER.get(family)
    at = f"family={family}" if family else ""
    test = Test("jacfwd / jacrev", ruler, f"c in d = c m by {words}", at=at, predicted=predicted, cause=BATCHED)
    if predicted is None:
        return test
    margin = theory.CROSSOVER_MARGIN[ruler]
    test = replace(test, band=within(predicted, margin, "what a flop costs differs between tangents and cotangents"))
    cells = readings.cells(view, family, MAP_DEPTH, ruler)
    if not cells:
        return test
    try:
        fitted = readings.boundary(cells)
    except ValueError as error:
        return replace(test, gap=f"{error}.")
    why = f"Both cost the same at d = {fitted.c:.2f} m {fitted.b - fitted.a:+.1f}, fitted to {len(cells)} cells."

    def again(truth: float, noise: Noise) -> Found:
        d, m = np.array(sorted((cell.d, cell.m) for cell in cells), float).T
        ratios = replace(fitted, c=truth).ratio(d, m) * noise.factors(len(cells))
        found = readings.resampled(np.stack([d, m, ratios], axis=1), FEW)
        return Found(found.c, found.low, found.high, len(cells))

    return replace(test, found=Found(fitted.c, fitted.low, fitted.high, len(cells)), why=why, again=again)


def _advice(view: View) -> Test:
    band = at_least(ADVICE_RIGHT, "one wrong cell in ten, close to the boundary, costs little")
    test = Test("jacfwd / jacrev", "clock", "share of cells in which the advice was right", band, beside=1.0)
    held = readings.advice_held(view, MAP_DEPTH)
    outcomes = [cell.outcome for cell in held]
    right, wrong = outcomes.count("right"), outcomes.count("wrong")
    if right + wrong == 0:
        return test
    undecided = len(held) - right - wrong
    why = (
        f"which_mode counts flops in the program's text: right in {right} cells, wrong in {wrong}; in {undecided} the "
        f"counts or the clock could not tell. Wrong: "
        + (", ".join(f"{c.family} d = {c.d}, m = {c.m}" for c in held if c.outcome == "wrong") or "none")
        + "."
    )
    return replace(share(test, right, right + wrong), why=why)


def from_the_field(view: View) -> Iterator[Test]:
    """Programs that people asked about: is the mode that the text advises the faster one?"""
    frame = view.frame[view.frame["family"] == "field"]
    for name in frame["program"].dropna().unique() if len(frame) and view.attached else [""]:
        yield _of_the_field(view.along("inputs", family="field", program=str(name)), str(name))


def _of_the_field(line: View, name: str) -> Test:
    said = line.series("jacrev", "count", "advised")
    at = f"program={name}" if name else ""
    faster = at_most(1.0, "the mode advised is said to be the faster one")
    test = Test("jacfwd / jacrev", "clock", "time, advised / other mode", faster, at=at)
    if len(said) == 0:
        return replace(test, gap=line.reasons("count" if line.attached else "clock", "jacrev"))
    d, mode = int(said.index[0]), MODES[said.iloc[0]]
    words = f"which_mode says {mode} from the program's text; {d} inputs."
    if line.series("jacrev", "count", "possible modes").iloc[0] == 1:
        band = exactly(-1.0, "jacfwd refuses it")
        only = replace(test, ruler="count", quantity="mode advised where one is possible (-1: reverse)", band=band)
        return replace(only, predicted=-1.0, found=exact(float(said.iloc[0])), why=f"{words} jacfwd refuses it.")
    found = line.timed("jacfwd", "time / jacrev", d)
    if found is None:
        return test
    if mode == "either":
        band = Band(1 / CLOSE_BESIDE, CLOSE_BESIDE, f"where either is said, neither is {CLOSE_BESIDE} times as fast")
        return replace(test, quantity="time, jacfwd / jacrev", band=band, found=found, predicted=1.0, why=words)
    if mode == "reverse":
        found = found.inverted
    flops, entries = line.series("jacrev", "count", "flops"), d * int(line.frame["outputs"].max())
    folded = len(flops) > 0 and float(flops.iloc[0]) < entries
    return replace(test, found=found, why=words, cause=FOLDED if folded else None)


FOLDED = Cause(
    "likely",
    "It does less arithmetic than its Jacobian has entries: XLA may fold the seeds, unit vectors, into what moves "
    "them, and both modes then do little but write the result.",
)
MODES = {1.0: "forward", -1.0: "reverse", 0.0: "either"}


def advice(view: View) -> Iterator[Advice]:
    for family in readings.families(view):
        cells = readings.cells(view, family, MAP_DEPTH, "clock")
        if len(cells) < LEAST_SIZES:
            continue
        fitted = readings.boundary(cells)
        c = in_words(Found(fitted.c, fitted.low, fitted.high))
        question = f"Forward or reverse mode for a Jacobian of d inputs and m outputs? ({family})"
        line = f"{fitted.c:.2f} m {fitted.b - fitted.a:+.1f}"
        use = (
            f"reverse where d > {line}, forward below"
            if fitted.high < 2 * fitted.low
            else "cannot tell: count its flops"
        )
        yield Advice(view.study, view.target, question, use, f"c = {c} by time, over {len(cells)} cells")


CHAPTER = 1  # of the lecture
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
        "published-chunked-jacobian",
        "modes",
        "DESC #1052: a Jacobian in chunks takes a quarter of the memory.",
        "at least 4 times less",
        published_chunks,
        ("memory",),
    ),
]
