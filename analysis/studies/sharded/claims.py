"""Claims about clusters: what each device holds, gathers and computes, and that the gradient stays what it is.

A test's number is that of all depths of a network in a layout: of several, the one farthest from its prediction.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from analysis.rules import exact
from analysis.studies.sharded.readings import BESIDE_INPUT, DIVIDED, GATHERED, KINDS, SCHEDULES, Line, lines
from analysis.verdict import Band, Cause, Claim, Test, at_most
from analysis.view import View, at

LINES = ("cpu", "cuda")  # platforms whose compilers tell all rows of the peak
RESIDUALS, SLOTS = "residual of a loop", "slots of a schedule"  # kinds of rows of the peak
ALIKE = 3.0  # times one device's own rounding: how far the gradient and the losses may be apart
ALIGNED = 1e-3  # relative: what compilers add to align buffers, and the loss, of which all devices need the sum

NEXT = Cause(
    "measured",
    "The last evaluation of a block stands right before its backward step, and both read the weights that were "
    "gathered once.",
    "below",
)
RELAID = Cause(
    "measured",
    "The gradients of all blocks leave the loop in another layout than is asked for: the partitioner moves them "
    "afterwards and holds both. Without what leaves the loop nothing grows by more than a carry.",
    "above",
)
HALVED = Cause(
    "measured",
    "This compiler rounds weights to bfloat16 before it gathers them, where that is how products read them, which "
    "halves the bytes.",
    "below",
)
Value = Callable[[Line, str, int], float | None]  # of a method at a depth


def _one(*_: object) -> float | None:
    return 1.0


def _near(due: float) -> Band:
    why = "bytes are exact, but for what aligns buffers and the loss itself"
    return Band(due * (1 - ALIGNED), due * (1 + ALIGNED), why)


def _farthest(line: Line, test: Test, value: Value, predicted: Value, band: Callable[[float], Band] = _near) -> Test:
    """The test with the number of the depth at which it is farthest from its prediction."""
    pairs = {n: (value(line, test.method, n), predicted(line, test.method, n)) for n in line.depths}
    found = {n: (mine, due) for n, (mine, due) in pairs.items() if mine is not None and due is not None}
    if not found:
        return replace(test, at=line.at, gap=line.view.reasons(test.ruler, test.method))
    n = max(found, key=lambda n: (abs(found[n][0] - found[n][1]), n))
    mine, due = found[n]
    why = "; ".join(f"n={n}: {mine:.6g} of {due:.6g}" for n, (mine, due) in found.items())
    return replace(
        test,
        at=f"{line.at}; n={n}",
        band=band(due),
        predicted=due,
        found=exact(mine, len(found)),
        why=f"{why}.",
        linear=True,
    )


def activations(view: View) -> Iterator[Test]:
    """What a device keeps, times the devices that share it, over what one device alone would keep."""

    def value(line: Line, method: str, n: int) -> float | None:
        mine, shards = line.number(method, "lines", RESIDUALS, n), line.shards(method, n)
        whole = at(line.alone.series(method, "lines", RESIDUALS), n)
        return None if mine is None or shards is None or not whole else mine * shards / whole

    for line in lines(view) if view.platform in LINES else ():
        if line.layout in DIVIDED:
            test = Test("plain", "lines", "residuals x devices that share them / one device's")
            yield _farthest(line, test, value, _one)


def slots(view: View) -> Iterator[Test]:
    """Slots hold a device's share of a carry each."""

    def value(line: Line, method: str, n: int) -> float | None:
        held, shards = line.number(method, "lines", SLOTS, n), line.shards(method, n)
        carry = line.number(method, "told", "activation", n)
        return None if held is None or shards is None or not carry else held * shards / carry

    def predicted(line: Line, method: str, n: int) -> float | None:
        return line.number(method, "told", BESIDE_INPUT, n)

    for line in lines(view) if view.platform in LINES else ():
        for method in SCHEDULES:
            test = Test(method, "lines", "slots, in a device's share of a carry")
            yield _farthest(line, test, value, predicted)


def constant(view: View) -> Iterator[Test]:
    """What a schedule takes besides its slots does not grow with depth."""
    for line in lines(view) if view.platform in LINES else ():
        for method in SCHEDULES if len(line.depths) > 1 else ():
            yield _besides(line, method)


def _besides(line: Line, method: str) -> Test:
    band = at_most(1.0, "a carry more or less is the compiler's order")
    test = Test(method, "compiler", "growth of temp besides slots and gradients, in shares of a carry", at=line.at)
    rest = {n: rest for n in line.depths if (rest := _rest(line, method, n)) is not None}
    if len(rest) < 2:
        return replace(test, gap=line.view.reasons("compiler", method))
    first, last = min(rest), max(rest)
    why = "; ".join(f"n={n}: {value:.2f}" for n, value in rest.items())
    found = exact(rest[last] - rest[first], len(rest))
    left = found.value - _relaid(line, method, last) + _relaid(line, method, first)
    cause = RELAID if left <= 1.0 else None
    return replace(test, band=band, predicted=0.0, found=found, why=f"{why}.", linear=True, cause=cause)


def _relaid(line: Line, method: str, n: int) -> float:
    """Stacks that leave a loop, in a device's share of a carry."""
    held, shards = line.number(method, "lines", "output of a loop", n) or 0.0, line.shards(method, n) or 1
    return held * shards / (line.number(method, "told", "activation", n) or 1.0)


def _rest(line: Line, method: str, n: int) -> float | None:
    """Temporary memory without slots and without the gradients that a loop adds up, in a device's share of a carry."""
    planned, shards = at(line.view.planned_bytes(method), n), line.shards(method, n)
    many, carry = (line.number(method, "told", quantity, n) for quantity in (BESIDE_INPUT, "activation"))
    if planned is None or shards is None or many is None or not carry:
        return None
    added = line.number(method, "lines", "gradient that a loop adds up", n) or 0.0
    return (planned - added) * shards / carry - many


def gathers(view: View) -> Iterator[Test]:
    """Each evaluation gathers the weights, and so do the backward steps."""

    def predicted(line: Line, method: str, n: int) -> float | None:
        found = line.passes(method, n)
        return None if found is None else found + 1

    yield from _gathers(view, predicted)


def gathers_shared(view: View) -> Iterator[Test]:
    """An evaluation right before its backward step and that step read what was gathered once."""

    def predicted(line: Line, method: str, n: int) -> float | None:
        found = line.passes(method, n)
        return None if found is None else max(found, 2.0)

    yield from _gathers(view, predicted)


def _gathers(view: View, predicted: Value) -> Iterator[Test]:
    """A TPU's compiler gathers by any kind of collective; besides, the gradients are added up, once."""
    anyhow = view.platform == "tpu"
    said = "all collectives / weights, without the sum of gradients" if anyhow else "all-gather / weights"

    def gathered(line: Line, method: str, n: int) -> float | None:
        each = [line.weights(method, n, kind) for kind in (KINDS if anyhow else KINDS[:1])]
        return None if None in each else sum(filter(None, each)) - anyhow

    for line in lines(view):
        for method in line.view.methods if line.layout == GATHERED else ():
            tested = _farthest(line, Test(method, "collectives", said), gathered, predicted)
            halved = anyhow and tested.found is not None and tested.found.value < 2 * (1 - ALIGNED)
            yield replace(tested, cause=HALVED if halved else NEXT)


def work(view: View) -> Iterator[Test]:
    """The flops of all devices together are those of one."""

    def value(line: Line, method: str, n: int) -> float | None:
        mine = line.number(method, "collectives", "flops", n)
        whole = at(line.alone.series(method, "collectives", "flops"), n)
        return None if mine is None or not whole else mine * line.view.devices / whole

    for line in lines(view):
        for method in line.view.methods:
            yield _farthest(line, Test(method, "collectives", "flops x devices / one device's"), value, _one)


def gradients(view: View) -> Iterator[Test]:
    """On devices that are there: the gradient's error and the losses over steps, against one device's rounding."""

    def rounding(line: Line, method: str, n: int) -> float | None:
        return at(line.alone.series(method, "check", "gradient error"), n) or None

    def band(due: float) -> Band:
        return at_most(ALIKE * due, "sums in another order round as one device does")

    for line in lines(view) if view.attached else ():
        for method in line.view.methods:
            for ruler, quantity, said in (
                ("check", "gradient error", "error of the gradient, beside that of one device"),
                ("estimate", "loss apart", "losses apart over 20 steps, beside the error of one device's gradient"),
            ):

                def value(
                    line: Line, method: str, n: int, ruler: str = ruler, quantity: str = quantity
                ) -> float | None:
                    return line.number(method, ruler, quantity, n)

                yield _farthest(line, Test(method, ruler, said), value, rounding, band)


CHAPTER = 11  # beyond the lecture
CLAIMS = [
    Claim(
        "sharded-activations",
        "sharded",
        "(Beyond the lecture) On a cluster each device keeps its share of the activations.",
        "residuals a device = those of one device / (data x model), where both divide them",
        activations,
        ("devices",),
    ),
    Claim(
        "sharded-slots",
        "sharded",
        "(Beyond the lecture) The slots of a schedule are divided as the carry is.",
        "slots x carry / devices that share it; the first slot is the input, an argument",
        slots,
        ("devices",),
    ),
    Claim(
        "sharded-memory-constant",
        "sharded",
        "(Beyond the lecture) On a cluster too, a schedule takes its slots and what does not grow with depth.",
        "temp without slots and without gradients grows by at most a carry from the least depth to the largest",
        constant,
        ("devices",),
    ),
    Claim(
        "sharded-recompute-gathers",
        "sharded",
        "(Beyond the lecture) Fully sharded, each recomputed evaluation gathers the weights once more.",
        "all-gather = (E/n + 1) x weights: E evaluations and the backward steps",
        gathers,
        ("frontier",),
    ),
    Claim(
        "sharded-gathers-shared",
        "sharded",
        "(Beyond the lecture) Fully sharded, an evaluation right before its backward step gathers nothing more.",
        "all-gather = max(E/n, 2) x weights: derived after the first results, held against the others",
        gathers_shared,
        ("frontier",),
    ),
    Claim(
        "sharded-work",
        "sharded",
        "(Beyond the lecture) A cluster divides the work: no device computes what another does.",
        "flops of products a device = those of one device / devices",
        work,
        ("frontier",),
    ),
    Claim(
        "sharded-gradients",
        "sharded",
        "(Beyond the lecture) Sharded, gradients and training stay as they are.",
        f"errors and losses over 20 steps within {ALIKE:g} times the rounding of one device",
        gradients,
    ),
]
