"""Claims of the study ``networks``: what checkpointing saves in a training step, and what it costs."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from analysis import fit, theory
from analysis.advice import Advice, frontier
from analysis.verdict import RATIO_BAND, Claim, Verdict, measured, unmeasured, within
from analysis.view import View
from benchmarks.studies.networks import BATCH, CURVE, DEPTH, DIVIDED, STEPS, UNROLLED

STACKS = tuple(BATCH)  # the networks
SAVING = ("dots", "dots_no_batch", "names", "offload", "nothing", "sqrt", "binomial")
KEEPS_CARRIES = {"nothing": "a carry a block", "sqrt": "a carry a slot", "binomial": "a carry a slot"}
TRAINED = ("dots", "names", "nothing", "sqrt", "binomial")  # over many steps
TIMED = ("dots", "names", "nothing", "sqrt")
AT_PEAK = ("nothing", "sqrt")  # whose saving is looked for in the process as well
ALIKE = (0.0, 3.0)  # of a loss curve's distance from the plain one over that one's own rounding
NOTHING = 0.05  # a saving below this share is none
NEAR = (1.0, 1 + RATIO_BAND)  # of memory over the least


def policies(view: View, network: str) -> View:
    """All methods at one size of a network, by batch."""
    return view.along("batch", network=network, depth=DEPTH, steps=1, segments=0)


def by_depth(view: View, network: str) -> View:
    return view.along("depth", network=network, batch=BATCH[network], steps=1, segments=0)


def by_segments(view: View, network: str) -> View:
    depth, batch = DIVIDED[network]
    return view.along("segments", network=network, depth=depth, batch=batch, steps=1)


def curves(view: View, network: str) -> View:
    """The loss over many steps."""
    return view.along("batch", network=network, depth=CURVE[network][0], steps=STEPS, segments=0)


def at(values: "pd.Series[float]", n: int) -> float | None:
    return float(values[n]) if n in values.index else None


def kept(line: View, method: str, n: int) -> float | None:
    """Carries that a method keeps on the device from the forward to the backward pass; what it moves to the host is not
    among them.
    """
    moved_away = "nothing" if method == "offload" else method
    return at(line.activations(moved_away, "count", "residuals"), n)


def rho(view: View, network: str) -> float | None:
    """Carries that plain backprop keeps of a block."""
    found = kept(policies(view, network), "plain", BATCH[network])
    return None if found is None else found / DEPTH


def example(view: View) -> Iterator[Verdict]:
    for network in STACKS:
        line, n = policies(view, network), BATCH[network]
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


def _carries(line: View, network: str, method: str, n: int) -> Verdict:
    slots = at(line.series(method, "count", "slots"), n)
    predicted = float(DEPTH) if slots is None else slots
    blank = unmeasured(line, "checkpoint-example", method, "count", f"residuals in carries, {network}", predicted)
    found = kept(line, method, n)
    if found is None:
        return blank
    why = f"Predicted: {KEEPS_CARRIES[method]}; plain backprop keeps {kept(line, 'plain', n):.0f}."
    return measured(blank, (predicted, predicted), (found,) * 3, 1, why)


def _saved(line: View, network: str, method: str, plain: str, n: int, ruler: str, quantity: str) -> Verdict:
    """What is saved of the planned or the measured memory, over what is saved of the residuals."""
    said = f"saved of the {quantity} / saved of the residuals, {network}"
    blank = unmeasured(line, "checkpoint-example", f"{method} / {plain}", ruler, said, 1.0)
    blank = replace(blank, method=method)
    memory = [line.rows(name, ruler, quantity) for name in (plain, method)]
    unit = at(line.series(plain, "count", "activation"), n)
    stored, fewer = kept(line, plain, n), kept(line, method, n)
    if any(n not in rows.index for rows in memory) or unit is None or stored is None or fewer is None:
        return blank
    before, after = ({c: float(rows[c][n]) / unit for c in ("value", "low", "high")} for rows in memory)
    due = stored - fewer
    exact = pd.isna(before["low"])
    ends = ("value", "value") if exact else ("low", "high")
    share = (before["value"] - after["value"]) / due
    low, high = (before[ends[0]] - after[ends[1]]) / due, (before[ends[1]] - after[ends[0]]) / due
    why = f"{before['value']:.1f} carries become {after['value']:.1f}; residuals: "
    why += f"{stored:.1f} and {fewer:.1f}."
    if high < NOTHING:
        why += " It saved nothing: the compiler merged the recomputed values with the stored ones, or holds both."
    elif before["value"] < stored:
        why += (
            " Without a loop the compiler plans less than the residuals to begin with: it computes some of them again."
        )
    elif method == "offload" and high < 1 - RATIO_BAND:
        why += " What is moved to the host lies in the same memory here."
    elif line.platform == "tpu":
        why += " Padding of the last axis to 128 and copies are likely causes of a difference."
    return measured(blank, within(1.0, RATIO_BAND), (share, low, high), 1, why)


def _time(line: View, network: str, method: str, n: int) -> Verdict:
    """The ratio of times against that of counted flops."""
    flops = [at(line.series(name, "count", "flops"), n) for name in (method, "plain")]
    predicted = flops[0] / flops[1] if flops[0] and flops[1] else None
    blank = unmeasured(line, "checkpoint-example", method, "clock", f"time of a step / plain, {network}", predicted)
    found = line.widened(method, "time / plain", n)
    if found is None or predicted is None:
        return blank
    why = "Predicted by counted flops."
    if found[2] < predicted:
        why += " Recomputation costs less than writing the residuals to fresh memory and reading them: a likely cause."
    return measured(blank, within(predicted, RATIO_BAND), found, 1, why)


def losses(line: View, method: str) -> "pd.Series[float]":
    """The loss at the beginning of each step."""
    return line.indexed(method, "estimate", "loss", "step")


def _curve(view: View, network: str, method: str) -> Verdict:
    line, n = curves(view, network), CURVE[network][1]
    said = f"distance of the loss from plain / rounding of plain, {STEPS} steps, {network}"
    blank = unmeasured(line, "checkpoint-example", method, "estimate", said, 0.0)
    mine, plain = losses(line, method), losses(line, "plain")
    rounding = at(line.series("plain", "check", "gradient error"), n)
    if len(mine) == 0 or len(plain) == 0 or not rounding:
        return blank
    apart = float((mine - plain).abs().max() / plain.abs().max())
    why = (
        f"At most {apart:.1e} apart, relative; plain training itself is {rounding:.1e} from the curve in float64. From "
        f"{plain.iloc[0]:.2f} the loss falls to {plain.iloc[-1]:.2f}."
    )
    return measured(blank, ALIKE, (apart / rounding,) * 3, len(mine), why)


def segments(view: View) -> Iterator[Verdict]:
    claim = "checkpoint-segments"
    for network in STACKS:
        line, each = by_segments(view, network), rho(view, network)
        depth = DIVIDED[network][0]
        predicted = None if each is None else theory.best_segments(depth, each)
        planned = line.planned("segments")
        blank = unmeasured(line, claim, "segments", "compiler", f"best number of segments, {network}", predicted)
        other = replace(blank, quantity=f"{view.plan} at the predicted best / least, {network}", predicted=1.0)
        if each is None or predicted is None or len(planned) < fit.LEAST_SPLITS:
            yield from (blank, other)
            continue
        found = fit.best_split(list(planned.index), [depth / k for k in planned.index], list(planned))
        why = (
            f"sqrt(rho n) with rho = {each:.1f} carries that plain backprop keeps of a block. Measured: the least of a "
            f"fitted a + b k + c n / k over {len(planned)} numbers of segments."
        )
        yield measured(blank, within(predicted, theory.ABOUT), found, len(planned), why)
        chosen = min(planned.index, key=lambda k: theory.segments_memory(depth, each, k))
        share = float(planned[chosen] / planned.min())
        why = f"Of those tried, {chosen} segments are predicted to be best: {planned[chosen]:.1f} carries; "
        why += f"the least is {planned.min():.1f}, with {planned.idxmin()}."
        yield measured(other, NEAR, (share,) * 3, len(planned), why)


def advice(view: View) -> Iterator[Advice]:
    for network in STACKS:
        line, n = policies(view, network), BATCH[network]
        moved = len(line.series("offload", "compiler", "host")) > 0  # otherwise it is the same as keeping them
        methods = ["plain", *(method for method in SAVING if moved or method != "offload")]
        memory = pd.Series({m: float(line.planned(m)[n]) for m in methods if n in line.planned(m).index}, dtype=float)
        ratios = {m: line.widened(m, "time / plain", n) for m in methods} | {"plain": (1.0, 1.0, 1.0)}
        question = f"How to train a deep {network} in less memory? ({DEPTH} blocks)"
        yield from frontier(view, question, memory, ratios, "carries", "plain backprop")


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
        "checkpoint-segments",
        "networks",
        "(Beyond the lecture) where backprop keeps rho carries of a block, sqrt(rho n) segments take the least memory.",
        "sqrt(rho n) segments, rho from the residuals alone",
        segments,
        ("segments",),
    ),
]
