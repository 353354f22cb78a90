"""Claims of the study ``networks``: what checkpointing saves in a training step, and what it costs."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from analysis import fit, law, theory
from analysis.advice import Advice, frontier
from analysis.rules import exact
from analysis.verdict import RATIO_MARGIN, Band, Cause, Claim, Test, at_most, exactly, within
from analysis.view import Found, View, at

# Where the study puts its questions.
COMPARED = {"mlp": (48, 512), "transformer": (48, 32), "broadmlp": (12, 512)}  # depth and batch: all policies
DIVIDED = {"mlp": (48, 512), "transformer": (144, 16)}  # depth and batch of the numbers of segments
CURVE = {"mlp": (12, 64), "transformer": (8, 16)}  # depth and batch of the loss over many steps
STEPS, UNROLLED = 20, 6

STACKS = tuple(DIVIDED)  # the networks of which all is asked
WIDE = "broadmlp"  # in whose blocks arithmetic is what counts: only times are asked of it
SAVING = ("dots", "dots_no_batch", "names", "offload", "nothing", "sqrt", "binomial")
KEEPS_CARRIES = {"nothing": "a carry a block", "sqrt": "a carry a slot", "binomial": "a carry a slot"}
TRAINED = ("dots", "names", "nothing", "sqrt", "binomial")  # over many steps
TIMED = ("dots", "names", "nothing", "sqrt")
AT_PEAK = ("nothing", "sqrt")  # whose saving is looked for in the process as well
ALIKE = 3.0  # times plain training's own rounding: how far a loss curve may be from the plain one
NOTHING = 0.05  # a saving below this share is none


def policies(view: View, network: str) -> View:
    """All methods at one size of a network, by batch."""
    return view.along("batch", network=network, depth=COMPARED[network][0], steps=1, segments=0)


def by_depth(view: View, network: str) -> View:
    return view.along("depth", network=network, batch=COMPARED[network][1], steps=1, segments=0)


def by_segments(view: View, network: str) -> View:
    depth, batch = DIVIDED[network]
    return view.along("segments", network=network, depth=depth, batch=batch, steps=1)


def curves(view: View, network: str) -> View:
    """The loss over many steps."""
    return view.along("batch", network=network, depth=CURVE[network][0], steps=STEPS, segments=0)


def kept(line: View, method: str, n: int) -> float | None:
    """Carries that a method keeps on the device from the forward to the backward pass; what it moves to the host is not
    among them.
    """
    moved_away = "nothing" if method == "offload" else method
    return at(line.activations(moved_away, "count", "residuals"), n)


def rho(view: View, network: str) -> float | None:
    """Carries that plain backprop keeps of a block."""
    found = kept(policies(view, network), "plain", COMPARED[network][1])
    return None if found is None else found / COMPARED[network][0]


def example(view: View) -> Iterator[Test]:
    for network in STACKS:
        line, n = policies(view, network), COMPARED[network][1]
        for method in KEEPS_CARRIES:
            yield _carries(line, network, method, n)
        for method in SAVING:
            yield _saved(line, network, method, "plain", n, "compiler", view.plan)
        yield _saved(by_depth(view, network), network, "unrolled_nothing", "unrolled", UNROLLED, "compiler", view.plan)
        if not view.attached:
            continue
        for method in AT_PEAK:
            yield _saved(line, network, method, "plain", n, view.peak_ruler, "peak")
        for method in TIMED:
            yield _time(line, network, method, n)
        for method in TRAINED:
            yield _curve(view, network, method)
    line = policies(view, WIDE)
    for method in TIMED if line.attached and line.methods else ():
        yield _time(line, WIDE, method, COMPARED[WIDE][1])


def _carries(line: View, network: str, method: str, n: int) -> Test:
    slots = at(line.series(method, "count", "slots"), n)
    due = float(COMPARED[network][0]) if slots is None else slots
    found = kept(line, method, n)
    plain = kept(line, "plain", n)
    why = f"Predicted: {KEEPS_CARRIES[method]}; plain backprop keeps {plain:.0f}." if found and plain else ""
    test = Test(method, "count", "residuals in carries", exactly(due), at=f"network={network}", predicted=due)
    return replace(test, found=None if found is None else exact(found), why=why)


def _saved(line: View, network: str, method: str, plain: str, n: int, ruler: str, quantity: str) -> Test:
    """What is saved of the planned or the measured memory, over what is saved of the residuals."""
    band = within(1.0, RATIO_MARGIN, "what the passes hold besides residuals is to differ by less")
    said = f"saved of the {quantity} / saved of the residuals"
    test = Test(method, ruler, said, band, at=f"network={network}", predicted=1.0)
    memory = [line.rows(name, ruler, quantity) for name in (plain, method)]
    unit = at(line.series(plain, "count", "activation"), n)
    stored, fewer = kept(line, plain, n), kept(line, method, n)
    if (
        any(n not in rows.index for rows in memory)
        or unit is None
        or stored is None
        or fewer is None
        or fewer >= stored
    ):
        return replace(test, gap=line.reasons(ruler, method, plain))
    before, after = ({c: float(rows[c][n]) / unit for c in ("value", "low", "high")} for rows in memory)
    due = stored - fewer
    ends = ("value", "value") if pd.isna(before["low"]) else ("low", "high")
    share = (before["value"] - after["value"]) / due
    low, high = (before[ends[0]] - after[ends[1]]) / due, (before[ends[1]] - after[ends[0]]) / due
    why = f"{before['value']:.1f} carries become {after['value']:.1f}; residuals: {stored:.1f} and {fewer:.1f}."
    test = replace(test, found=Found(share, low, high), why=why, linear=True)
    return replace(test, cause=_why_not_saved(line, method, high, before["value"] < stored))


def _why_not_saved(line: View, method: str, most: float, less_to_begin_with: bool) -> Cause | None:
    if most < NOTHING:
        merged = "It saved nothing: the compiler merged the recomputed values with the stored ones, or holds both."
        return Cause("likely", merged)
    if less_to_begin_with:
        words = (
            "Without a loop the compiler plans less than the residuals to begin with: it computes some of them again."
        )
        return Cause("measured", words)
    if method == "offload" and line.platform == "cpu" and most < 1 - RATIO_MARGIN:
        return Cause("measured", "What is moved to the host lies in the same memory here.")
    if line.platform == "tpu":
        return Cause("likely", "Padding of the last axis to 128, and copies.")
    return None


def _time(line: View, network: str, method: str, n: int) -> Test:
    """The ratio of times against that of counted flops."""
    flops = [at(found, n) for found in line.flops(method, "plain")]
    predicted = flops[0] / flops[1] if flops[0] and flops[1] else None
    cause = law.cause(rows_of_the_law(line, network), method)
    test = Test(method, "clock", "time of a step / plain", at=f"network={network}", predicted=predicted, cause=cause)
    if predicted is None:
        return test
    band = within(predicted, RATIO_MARGIN, "the ratio of flops, where arithmetic dominates")
    return replace(test, band=band, found=line.timed(method, "time / plain", n), why="Predicted by flops.")


def losses(line: View, method: str) -> "pd.Series[float]":
    """The loss at the beginning of each step."""
    return line.indexed(method, "estimate", "loss", "step")


def _curve(view: View, network: str, method: str) -> Test:
    line, n = curves(view, network), CURVE[network][1]
    said = f"distance of the loss from plain / rounding of plain, {STEPS} steps"
    band = at_most(ALIKE, "the same mathematics in another order rounds as plain training does")
    test = Test(method, "estimate", said, band, at=f"network={network}")
    mine, plain = losses(line, method), losses(line, "plain")
    rounding = at(line.series("plain", "check", "gradient error"), n)
    if len(mine) == 0 or len(plain) == 0 or not rounding:
        return replace(test, gap=line.reasons("estimate", method, "plain"))
    apart = float((mine - plain).abs().max() / plain.abs().max())
    why = (
        f"At most {apart:.1e} apart, relative; plain training itself is {rounding:.1e} from the curve in float64. From "
        f"{plain.iloc[0]:.2f} the loss falls to {plain.iloc[-1]:.2f}."
    )
    return replace(test, found=exact(apart / rounding, len(mine)), why=why)


def work_and_traffic(view: View) -> Iterator[Test]:
    for network in COMPARED if view.attached else ():
        line = policies(view, network)
        if line.methods:
            yield from law.put(line, rows_of_the_law(line, network), "plain", "nothing", f"network={network}")


def rows_of_the_law(line: View, network: str) -> list[law.Row]:
    """The law with traffic held against every method at the size at which they are compared."""
    n, methods = COMPARED[network][1], ["nothing", *(name for name in SAVING if name not in ("nothing", "offload"))]
    plain, forward, *others = line.flops("plain", "forward", *methods)
    each = {name: 1 + ((flops - plain) / forward).dropna() for name, flops in zip(methods, others, strict=True)}
    return [row for row in law.rows(line, "plain", "nothing", each, n) if row.n == n]


def segments(view: View) -> Iterator[Test]:
    for network in STACKS:
        yield _best_segments(view, network)
        yield _at_the_predicted_best(view, network)


def _best_segments(view: View, network: str) -> Test:
    line, each, depth = by_segments(view, network), rho(view, network), DIVIDED[network][0]
    test = Test("segments", "compiler", "best number of segments", at=f"network={network}")
    planned = line.planned("segments")
    if each is None or len(planned) < fit.LEAST_SPLITS:
        return test
    predicted = theory.best_segments(depth, each)
    band = within(predicted, theory.ABOUT, "memory is flat about its least: a quarter more segments cost 3%")
    found = fit.best_split(list(planned.index), [depth / k for k in planned.index], list(planned))
    why = (
        f"sqrt(rho n) with rho = {each:.1f} carries that plain backprop keeps of a block. Measured: the least of a "
        f"fitted a + b k + c n / k over {len(planned)} numbers of segments."
    )
    return replace(test, band=band, found=Found(*found, len(planned)), predicted=predicted, why=why)


def _at_the_predicted_best(view: View, network: str) -> Test:
    line, each, depth = by_segments(view, network), rho(view, network), DIVIDED[network][0]
    planned = line.planned("segments")
    band = Band(1.0, 1 + RATIO_MARGIN, "nothing is below the least, and a tenth above it is near")
    test = Test("segments", "compiler", f"{view.plan} at the predicted best / least", band, at=f"network={network}")
    if each is None or len(planned) < fit.LEAST_SPLITS:
        return test
    chosen = min(planned.index, key=lambda k: theory.segments_memory(depth, each, k))
    why = f"Of those tried, {chosen} segments are predicted to be best: {planned[chosen]:.1f} carries; "
    why += f"the least is {planned.min():.1f}, with {planned.idxmin()}."
    found = exact(float(planned[chosen] / planned.min()), len(planned))
    return replace(test, found=found, predicted=1.0, why=why)


def advice(view: View) -> Iterator[Advice]:
    for network in STACKS:
        line, n = policies(view, network), COMPARED[network][1]
        moved = len(line.series("offload", "compiler", "host")) > 0  # otherwise it is the same as keeping them
        methods = ["plain", *(method for method in SAVING if moved or method != "offload")]
        memory = pd.Series({m: float(line.planned(m)[n]) for m in methods if n in line.planned(m).index}, dtype=float)
        question = f"How to train a deep {network} in less memory? ({COMPARED[network][0]} blocks)"
        yield from frontier(line, question, memory, n, "plain", "carries", "plain backprop")


CHAPTER = 7  # of the lecture
CLAIMS = [
    Claim(
        "checkpoint-example",
        "networks",
        "An example of gradient checkpointing in use.",
        "a policy saves of the memory what it saves of the residuals, costs the time of what it computes again, and "
        "leaves the loss as it was",
        example,
        ("split", "frontier", "curves", "depth", "batch"),
    ),
    Claim(
        "work-and-traffic-networks",
        "networks",
        "(Beyond the lecture) Why checkpointing can be faster: what is not stored need not be written and read.",
        "time / plain = phi E/n + beta + omega S/S_plain, fixed by one policy, within 15% in 95% of rows",
        work_and_traffic,
        ("frontier",),
    ),
    Claim(
        "checkpoint-segments",
        "networks",
        "(Beyond the lecture) where backprop keeps rho carries of a block, sqrt(rho n) segments take the least memory.",
        "sqrt(rho n) segments, rho from the residuals alone",
        segments,
        ("segments",),
    ),
]
