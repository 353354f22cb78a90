"""Claims of the study ``advice``: what is chosen fits, is right, and nothing that fits is much faster."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from adcost.advise import fastest, finalists
from adcost.rulers import clock
from adcost.suite.vocabulary import Interval
from analysis import law
from analysis.rules import exact
from analysis.verdict import Cause, Claim, Noise, Test, at_least, at_most, exactly, within
from analysis.view import Found, View, at

SHARES = (75, 50, 25, 10)  # budgets, per cent of plain's temporary memory
LARGE = 64 * 2**20  # bytes from which on the plan is held against the process
AGREE = 0.02  # how far they may be apart
MUCH = 1.1  # times faster: what is not worth another choice
OFTEN = 0.9  # of the cells
ALIKE = 10.0  # times plain backprop's own error
NEAR = 0.15  # of the time that work predicts
ARITHMETIC = ("perceptron", "convolutions")  # programs in whose layers products are what counts
FIXED = ("plain", "keep_nothing", "keep_products", "keep_weighted", "two_passes", "sqrt", "in_parts", "four_parts")
PEERS = ("nested", "equinox")
FIXES = "two_passes"  # takes little memory: it fixes what that costs
MERGED = Cause(
    "likely",
    "In programs without loops the compiler merges what is written twice: less is done than was counted.",
    "below",
)
SCRATCH = Cause("likely", "Kernels of large products and of convolutions take memory that no plan has.", "above")
TRAFFIC = Cause("likely", "What is kept is written and read again, which no flop counts.")


@dataclass(frozen=True)
class Cell:
    """A program within a budget: its slice and its number of steps; bytes that it may take; what was chosen."""

    program: str
    line: View
    n: int
    share: int
    budget: float
    total: float
    work: float
    chosen: str
    fits: bool

    @property
    def method(self) -> str:
        return f"advised_{self.share}"

    @property
    def name(self) -> str:
        return f"{self.program}, {self.share}%"

    @property
    def others(self) -> dict[str, tuple[float, float]]:
        """Work over plain's and bytes of every other way that fits, by method."""
        advised = [f"advised_{share}" for share in SHARES if share != self.share]
        found = {}
        for method in (*FIXED, *PEERS, *advised):
            total, work = total_bytes(self.line, method, self.n), work_as_advised(self.line, method, self.n)
            if total is not None and work is not None and total <= self.budget:
                found[method] = work, total
        return found


def programs(view: View) -> Iterator[tuple[str, View, int]]:
    """Each program, its slice, and its number of steps, by which the slice is indexed."""
    tables = [t[["program", "steps"]] for t in (view.frame, view.missing) if len(t) and "program" in t]
    for name, steps in pd.concat(tables).dropna().drop_duplicates().itertuples(index=False) if tables else ():
        yield str(name), view.along("steps", program=name), int(steps)


def cells(view: View) -> Iterator[Cell]:
    """Each program within each budget for which there was an answer."""
    for name, line, n in programs(view):
        for share in SHARES:
            method = f"advised_{share}"
            told = {what: at(line.series(method, "told", what), n) for what in ("budget", "fits", "work / plain")}
            total = total_bytes(line, method, n)
            if total is not None and all(value is not None for value in told.values()):
                budget, fits, work = (float(value or 0.0) for value in told.values())
                chosen = str(line.rows(method, "told", "budget")["flags"][n])
                yield Cell(name, line, n, share, budget, total, work, chosen, bool(fits))


def total_bytes(line: View, method: str, n: int) -> float | None:
    """What a method's gradient takes by its compiler, all in all."""
    return at(line.series(method, "compiler", "total"), n)


def work_of(line: View, method: str, n: int) -> float | None:
    """Flops over those of plain backprop, counted in the programs."""
    mine, plain = (at(line.series(name, "count", "flops"), n) for name in (method, "plain"))
    return None if mine is None or not plain else mine / plain


def work_as_advised(line: View, method: str, n: int) -> float | None:
    """Flops over those of plain backprop as ``advise`` has them: two bounds are compared as if they were numbers."""
    mine, plain = (at(line.bounds(name, "flops"), n) for name in (method, "plain"))
    return None if mine is None or not plain else mine / plain


def plan_is_the_peak(view: View) -> Iterator[Test]:
    """Of each program the method whose peak is farthest from its plan."""
    if not view.attached:
        return
    for name, line, n in programs(view):
        found = {}
        for method in view.methods:
            planned = [at(line.series(method, "compiler", what), n) for what in ("temp", "outputs")]
            peaks = line.rows(method, view.peak_ruler, "peak")
            if None not in planned and n in peaks.index and (plan := sum(v or 0.0 for v in planned)) >= LARGE:
                low, value, high = (float(peaks[end][n]) / plan - 1 for end in ("low", "value", "high"))
                ends = sorted((abs(low), abs(high)))
                least = 0.0 if low <= 0 <= high else ends[0]
                found[method] = Found(abs(value), least, ends[1], int(peaks["repeats"][n]))
        if found:
            worst = max(found, key=lambda method: found[method].value)
            band = at_most(AGREE, "what a run touches besides, and pages")
            test = Test(worst, view.peak_ruler, "largest distance of the peak from the plan, relative", band, at=name)
            why = f"Of {len(found)} methods that plan {LARGE / 2**20:.0f} MiB or more, without arguments."
            yield replace(test, found=found[worst], why=why, linear=True, cause=SCRATCH)


def advice_fits(view: View) -> Iterator[Test]:
    """Cells whose plan is beyond the budget; jobs that die within it."""
    found = list(cells(view))
    fitting = [cell for cell in found if cell.fits]
    test = Test("advised", "compiler", "cells in which what is chosen plans more than the budget", exactly(0.0))
    over = [cell.name for cell in fitting if cell.total > cell.budget]
    nothing = [cell.name for cell in found if not cell.fits]
    why = f"Of {len(fitting)} cells; in {len(nothing)} more nothing fits{f': {_brief(nothing)}' if nothing else ''}."
    yield replace(test, found=exact(float(len(over)), len(fitting)), why=why) if fitting else test
    if not view.attached:
        return
    test = Test("advised", "limited", "share of jobs limited to the budget that die", exactly(0.0, "it was to fit"))
    lived = {cell.name: at(cell.line.series(cell.method, "limited", "lived"), cell.n) for cell in fitting}
    known = {name: value for name, value in lived.items() if value is not None}
    dead = [name for name, value in known.items() if value == 0]
    why = f"Of {len(known)} jobs{f'; died: {_brief(dead)}' if dead else ''}."
    yield replace(test, found=exact(len(dead) / len(known), len(known)), why=why) if known else test


def _brief(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def advice_is_best(view: View) -> Iterator[Test]:
    """Cells in which nothing else that fits is much faster than what is chosen, by plans alone and with the clock."""
    if not view.attached:
        return
    fitting = [cell for cell in cells(view) if cell.fits]
    yield _best("by plans alone", fitting, {cell.name: (cell.method, 0, 1) for cell in fitting})
    yield _best("with the clock", fitting, {cell.name: (_with_the_clock(cell), 1, 2) for cell in fitting})


def _with_the_clock(cell: Cell) -> str:
    """What ``advise`` chooses where it times the finalists: by every other process, so that the rest can judge it.

    Within a budget it knows what it chose there and the ways without a number, not what it chose within others.
    """
    ways = {cell.method: (cell.work, cell.total), **{m: it for m, it in cell.others.items() if m in FIXED}}
    in_order = sorted(((m, work, int(total)) for m, (work, total) in ways.items()), key=lambda way: way[1:])
    plain = total_bytes(cell.line, "plain", cell.n)
    names = finalists(in_order, int(plain), "keep_nothing") if plain else [cell.method]
    times = {name: found for name in names if (found := ratio(cell.line, name, names[0], cell.n, 0, 2)) is not None}
    return fastest({name: Interval(*found[:3]) for name, found in times.items()}) if times else names[0]


def ratio(line: View, method: str, other: str, n: int, first: int = 0, every: int = 1) -> Found | None:
    """The ratio of two methods' times over some of the processes; None if they were not timed together."""
    if method == other:
        return Found(1.0, 1.0, 1.0)
    logs = line.logs(method, other, n)[first::every]
    if not logs:
        return None
    return Found(*clock.exponentiated(clock.over_processes(logs).interval), len(logs), len(logs))


def _best(how: str, fitting: list[Cell], choices: Mapping[str, tuple[str, int, int]]) -> Test:
    quantity = f"share of cells in which nothing that fits is {MUCH - 1:.0%} faster"
    test = Test(f"advised, {how}", "clock", quantity, at_least(OFTEN, "one in ten may be off"), linear=True)
    right, wrong, unknown = 0, [], 0
    for cell in fitting:
        method, first, every = choices[cell.name]
        found = {m: r for m in cell.others if (r := ratio(cell.line, m, method, cell.n, first, every)) is not None}
        much_faster = [m for m, r in found.items() if r.high < 1 / MUCH]
        if much_faster:
            best = min(much_faster, key=lambda m: found[m].value)
            wrong.append((found[best].value, f"{cell.name}: {best} takes {found[best].value:.2f} of {method}'s time"))
        elif found and all(r.low >= 1 / MUCH for r in found.values()):
            right += 1
        else:
            unknown += 1
    known = right + len(wrong) + unknown
    if not known:
        return test

    def interval(missed: int) -> Found:
        return Found(1 - missed / known, max(0.0, 1 - (missed + unknown) / known), 1 - missed / known, known)

    def again(truth: float, noise: Noise) -> Found:
        return interval(int(noise.rng.binomial(known, 1 - truth)))

    words = "; ".join(text for _, text in sorted(wrong)[:3])
    why = f"Of {known} cells; in {unknown} the clock cannot tell{f'. {words}' if words else ''}."
    return replace(test, found=interval(len(wrong)), why=why, again=again, cause=TRAFFIC)


def checkpointed_gradients(view: View) -> Iterator[Test]:
    """Of each program the method whose gradient is farthest from float64's, beside plain backprop's own distance."""
    if not view.attached:
        return
    for name, line, n in programs(view):
        errors = {m: at(line.series(m, "check", "gradient error"), n) for m in view.methods}
        own, known = errors.get("plain"), {m: e for m, e in errors.items() if e is not None and m != "plain"}
        band = at_most(ALIKE, "another order of the same additions")
        test = Test("plain", "check", "largest error over plain backprop's own", band, at=name)
        if own is None or not known:
            yield test
            continue
        worst = max(known, key=lambda m: known[m])
        why = f"Of {len(known)} methods; plain's own is {own:.1e} of the largest entry."
        yield replace(test, method=worst, found=exact(known[worst] / max(own, view.eps), len(known)), why=why)


def work_predicts_time(view: View) -> Iterator[Test]:
    """Where arithmetic dominates, each method; elsewhere the law with traffic."""
    if not view.attached:
        return
    rows: list[law.Row] = []
    for name, line, n in programs(view):
        methods = [m for m in view.methods if m not in ("plain", "forward") and work_of(line, m, n) is not None]
        if name in ARITHMETIC:
            for method in methods:
                yield _by_work(line, method, n, name)
        else:
            flops = {m: line.series(m, "count", "flops") for m in (*methods, "plain", "forward")}
            each = {m: (1 + (flops[m] - flops["plain"]) / flops["forward"]).dropna() for m in methods}
            rows += [replace(row, method=f"{name} {row.method}") for row in law.rows(line, "plain", FIXES, each, 0)]
    yield from law.put(view, rows, "plain", FIXES, "programs with loops")


def _by_work(line: View, method: str, n: int, program: str) -> Test:
    work = work_of(line, method, n) or 1.0
    band = within(work, NEAR, "what a call costs, and what is kept, are not in the flops")
    test = Test(method, "clock", "time / plain", band, at=program, predicted=work, cause=MERGED)
    found = line.timed(method, "time / plain", n)
    return replace(test, found=found, gap="" if found else line.reasons("clock", method, "plain"))


CHAPTER = 10  # beyond the lecture
CLAIMS = [
    Claim(
        "plan-is-the-peak",
        "advice",
        "(Beyond the lecture) The plan is what the process takes.",
        f"within {AGREE:.0%} at {LARGE // 2**20} MiB or more, every program, every method",
        plan_is_the_peak,
    ),
    Claim(
        "advice-fits",
        "advice",
        "(Beyond the lecture) The method chosen fits its budget.",
        "planned: always; a job limited to the budget lives",
        advice_fits,
        ("budgets",),
    ),
    Claim(
        "advice-is-best",
        "advice",
        "(Beyond the lecture) Nothing else that fits is much faster than what is chosen.",
        f"in at least {OFTEN:.0%} of the cells nothing is {MUCH - 1:.0%} faster beyond the clock's interval",
        advice_is_best,
        ("budgets",),
    ),
    Claim(
        "checkpointed-gradients",
        "advice",
        "(Beyond the lecture) The gradient stays the same.",
        f"to rounding: at most {ALIKE:.0f} times plain backprop's own error, every program and method",
        checkpointed_gradients,
    ),
    Claim(
        "work-predicts-time",
        "advice",
        "(Beyond the lecture) Counted work over plain's is time over plain's.",
        f"within {NEAR:.0%} where arithmetic dominates; elsewhere the law with traffic",
        work_predicts_time,
        ("budgets",),
    ),
]
