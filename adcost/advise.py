"""Which way to differentiate a function within a memory: ``advise``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from adcost import _jax
from adcost.arguments import Argnums, differentiable, gradient, jitted, numbered
from adcost.candidates import (
    NOTHING,
    PLAIN,
    WHOLE,
    Candidate,
    Loss,
    candidates,
    features,
    scheduled_candidate,
    schedules,
)
from adcost.difference import Change, diff
from adcost.display import Progress, frontier, html_table, in_words, noted, text_table, tracking
from adcost.plan import Plan, Traced, counted_of, memory_bytes, planned, traced
from adcost.rulers.fit import fitting
from adcost.suite.vocabulary import Interval
from adcost.targets import Target, named
from adcost.targets.compiling import CALLBACKS, compiles_here
from adcost.targets.elsewhere import CompilerFailed, at_once

ENOUGH = 0.9  # of the memory: a schedule that takes so much is not worth another compilation
TRIES = 8  # compilations at most to find it
WORTH = 0.01  # of plain's temporary memory: a loop that keeps less stays as it is
FINALISTS = 3  # that are timed
OMEGA = 0.6  # the part of plain's time that what it keeps may take
ROUNDS, SECONDS = 15, 20.0  # of the clock, at most
LEAST_ROUNDS, PATIENCE = 7, 120.0  # fewer are not worth it; longer is not waited for


@dataclass(frozen=True, eq=False)
class Row:
    """A way to compute the gradient, and what it takes.

    Attributes
    ----------
    name, code
        For people; the loss in this way, to paste in the place of ``loss`` where that is differentiated.
    loss, apply
        What the code makes of the loss; its gradient, compiled.
    plan
        None if there is none; ``note`` then says why.
    ratio
        Flops over those of plain.
    fits
        Into the memory; None if that is not known.
    note
        What else there is to say: that it changed nothing, why it failed.
    time
        Of the best's, with its 95% interval; None if it was not timed.
    freed
        The lines that hold less at the peak than with plain, the largest saving first; as ``adcost.diff`` has them.
    """

    name: str
    code: str
    loss: Loss
    apply: Callable[..., Any]
    plan: Plan | None = None
    ratio: float | None = None
    note: str = ""
    time: Interval | None = None
    freed: tuple[Change, ...] = ()

    @property
    def fits(self) -> bool | None:
        return False if self.plan is None else self.plan.fits

    @property
    def flops(self) -> int | None:
        return None if self.plan is None else self.plan.flops


@dataclass(frozen=True, eq=False)
class Advice:
    """The ways that were tried, those that fit first, least work first.

    Attributes
    ----------
    rows
        All of them.
    best
        The least work that fits, or what the clock says is faster; None if nothing fits.
    target, memory
        Where, and within how many bytes.
    why
        What the choice rests on, in a line.
    """

    rows: tuple[Row, ...]
    best: Row | None
    target: str
    memory: int | None
    why: str

    def __str__(self) -> str:
        return text_table(self._title, self._header, self._cells(), (self.why, *self._code()))

    def _repr_html_(self) -> str:
        return html_table(self._title, self._header, self._cells(), (self.why, *self._code()))

    @property
    def _sharded(self) -> bool:
        return any(row.plan is not None and row.plan.mesh for row in self.rows)

    @property
    def _header(self) -> Sequence[str]:
        return ("", "method", "memory", "fits", "work", *(("sent",) if self._sharded else ()), "time", "")

    @property
    def _title(self) -> str:
        room = "" if self.memory is None else f" within {in_words(self.memory)}"
        return f"A gradient{room} on {self.target}"

    def _cells(self) -> Iterator[Sequence[str]]:
        for row in self.rows:
            mark = "*" if row is self.best else ""
            fits = {True: "yes", False: "no", None: "?"}[row.fits]
            memory = "" if row.plan is None else in_words(row.plan.total)
            work = "" if row.ratio is None else f"{row.ratio:.2f}"
            time = "" if row.time is None else f"{row.time.value:.2f} [{row.time.low:.2f}, {row.time.high:.2f}]"
            known = row.plan is not None and row.plan.sent is not None
            sent = (in_words(row.plan.sent or 0) if row.plan and known else "?",) if self._sharded else ()
            yield mark, row.name, memory, fits, work, *sent, time, noted(_said_of(row))

    def _code(self) -> Sequence[str]:
        if self.best is None:
            return ()
        return ("differentiate loss" if self.best.name == PLAIN.name else f"in place of loss: {self.best.code}",)

    def json(self) -> dict[str, Any]:
        """All of it, for a program to read."""
        return {
            "target": self.target,
            "memory": self.memory,
            "why": self.why,
            "best": None if self.best is None else self.best.name,
            "rows": [
                {
                    "name": row.name,
                    "code": row.code,
                    "plan": None if row.plan is None else row.plan.json(peak=False),
                    "ratio": row.ratio,
                    "fits": row.fits,
                    "note": row.note,
                    "time": row.time,
                    "freed": [vars(change) for change in row.freed],
                }
                for row in self.rows
            ],
        }

    def plot(self, axes: Any = None) -> Any:
        """Memory against work, the memory that there is as a line; needs matplotlib."""
        points = [(row.name, row.plan.total, row.ratio) for row in self.rows if row.plan and row.ratio is not None]
        return frontier(points, self.memory, self._title, None if self.best is None else self.best.name, axes)


def _said_of(row: Row) -> str:
    """The note of a row, and the line that it frees most of."""
    freed = [f"frees {in_words(one.before - one.after)} of {one.where.partition(', in ')[0]}" for one in row.freed[:1]]
    return "; ".join(filter(None, (row.note, *freed)))


def advise(
    loss: Loss,
    *args: Any,
    argnums: Argnums = 0,
    memory: int | float | str | None = None,
    target: str | Target = "cpu",
    progress: bool | None = None,
) -> Advice:
    """Which way to differentiate a loss within a memory: plans of many, the work of each, and the code.

    Parameters
    ----------
    loss
        A scalar function, from any package, unmodified.
    *args
        Its arguments, or their shapes as ``jax.ShapeDtypeStruct``, sharded or not, as those of ``plan``.
    argnums
        The positional arguments by which it is differentiated.
    memory
        In bytes or as ``"16 GiB"``; by default the memory of the target.
    target
        A name of ``adcost.TARGETS``. Where JAX runs on it in this process and the arguments are arrays, those that come
        into question are run and timed, unless the program prints or writes. Shapes are not.
    progress
        Show what is being compiled; by default in a terminal and in a notebook.

    Returns
    -------
    Advice
        ``.best`` is the least work that fits.

    Raises
    ------
    ValueError
        If target, memory or argnums make no sense, or the result is no scalar.
    RuntimeError
        If the target's compiler is not installed, or refuses the plain gradient.
    """
    chosen = named(target)
    budget = memory_bytes(memory, chosen)
    argnums, args = numbered(args, argnums), differentiable(args, argnums)
    program = traced(loss, *args)
    if [a.shape for a in program.closed.out_avals] != [()]:
        raise ValueError("the loss must give one number: for the Jacobian of other functions use adcost.jacobian")
    with tracking("plain", progress) as said, at_once() as submit:
        row_of = partial(_row, loss, args, argnums, chosen, budget)
        plain = row_of(PLAIN)
        takes = plain.plan or _too_much(plain.note, loss, args, argnums, chosen, budget)
        found = features(program.closed, args, takes.temp * takes.devices)
        searched = submit(_by_schedules, loss, args, row_of, takes, said) if found.loops else None
        asked = [submit(_said, said, row_of, candidate) for candidate in candidates(found, chosen)]
        others = [one.result() for one in asked]
        others += [] if searched is None else searched.result()
        rows = _compared([plain, *others], takes)
        fits = [row for row in rows if row.fits is not False]
        best, why = (fits[0], _least_work(fits[0])) if fits else (None, _nothing_fits(rows, budget))
        ways = [(row.name, row.ratio or 0.0, row.plan.total) for row in fits if row.plan is not None]
        by_hand = next((row.name for row in fits if row.name.startswith(NOTHING)), None)
        names = finalists(ways, takes.total, by_hand)
        tried = [row for row in fits if row.name in names]
        if len(tried) > 1 and not _calls_back(program) and _can_be_timed(chosen, args, tried):
            said("the clock")
            rows, best, why = _timed(rows, tried, args)
    return Advice(tuple(rows), best, chosen.name, budget, why)


def _row(loss: Loss, args: Sequence[Any], argnums: Argnums, target: Target, budget: int | None, way: Candidate) -> Row:
    """What a candidate takes, or why it cannot be had."""
    made = way.apply(loss)
    of_made = gradient(made, argnums, args)
    row = Row(way.name, way.code, made, jitted(of_made))
    try:
        return replace(row, plan=planned(traced(of_made, *args), target, budget))
    except Exception as error:  # whatever is wrong with one way costs that way alone
        return replace(row, note=_jax.first_line(error))


def _too_much(why: str, loss: Loss, args: Sequence[Any], argnums: Argnums, target: Target, budget: int | None) -> Plan:
    """What stands for the plan of a plain gradient that its compiler refused for want of memory."""
    if "RESOURCE_EXHAUSTED" not in why or budget is None:
        raise CompilerFailed(f"the gradient itself could not be planned: {why}")
    flops = counted_of(traced(gradient(loss, argnums), *args)).flops
    return Plan(target.name, 2 * budget, 2 * budget, 0, 0, 0, 0, budget, flops)


def _said(said: Progress, row_of: Callable[[Candidate], Row], way: Candidate) -> Row:
    said(way.name)
    return row_of(way)


def _by_schedules(
    loss: Loss, args: Sequence[Any], row_of: Callable[[Candidate], Row], plain: Plan, said: Progress
) -> list[Row]:
    """All loops by schedules: the most memory that fits; where nothing fits the least."""
    tried: dict[int, Row] = {}

    def row(share: int) -> Row | None:
        made = schedules(loss, args, share, int(WORTH * plain.temp))
        if made:
            way = scheduled_candidate(made)
            said(way.name)
            tried[share] = row_of(way)
        return tried.get(share)

    def total(share: int) -> int:
        found = row(share) if len(tried) < TRIES else None
        return 2 * plain.total if found is None or found.plan is None else found.plan.total

    if plain.memory is None or plain.fits:
        found = row(WHOLE // 2)  # half of what plain keeps
        return [] if found is None else [found]
    share, least = 0, total(0)
    if least < plain.memory:
        room = plain.memory - least
        enough = 1 - (1 - ENOUGH) * plain.memory / room
        share, _ = fitting(lambda n: total(n) - least, room, WHOLE, enough=enough, at_most=plain.total - least)
    return [tried[share]] if share in tried else []


def _compared(rows: Sequence[Row], plain: Plan) -> list[Row]:
    """In order, each name once: what each costs more than plain, and whether it is another program at all."""
    first: dict[tuple[int, int, int | None], str] = {(plain.total, plain.flops, plain.sent): PLAIN.name}

    def compared(row: Row) -> Row:
        if row.plan is None:
            return row
        same = first.setdefault((row.plan.total, row.plan.flops, row.plan.sent), row.name)
        note = f"{in_words(row.plan.host)} on the host" if row.plan.host else ""
        if same != row.name:
            note = "changed nothing" if same == PLAIN.name else f"the same as {same}"
        freed = () if same != row.name else tuple(diff(plain, row.plan).freed)
        return replace(row, ratio=row.plan.flops / max(plain.flops, 1), note=note, freed=freed)

    return sorted(map(compared, {row.name: row for row in rows}.values()), key=_order)


def _order(row: Row) -> Any:
    if row.plan is None:
        return 2, 0.0, 0, 0, 0
    if row.fits is False:
        return 1, 0.0, 0, 0, row.plan.total
    moved = row.plan.host, row.plan.sent or 0  # what is moved to the host, or to other devices, takes time, too
    return 0, row.ratio, *moved, row.plan.total


def _least_work(row: Row) -> str:
    if row.plan is None:
        return "the least work that fits"
    moves = [word for word, bytes_ in (("to the host", row.plan.host), ("between devices", row.plan.mesh)) if bytes_]
    return "the least work that fits" + (f"; what moving {' and '.join(moves)} takes is not counted" if moves else "")


def _nothing_fits(rows: Sequence[Row], budget: int | None) -> str:
    least = next(
        (row for row in rows if row.plan is not None), None
    )  # rows that do not fit are in order of their memory
    takes = f": {least.name} takes least, {in_words(least.plan.total)}" if least and least.plan else ""
    return f"nothing fits into {in_words(budget or 0)}{takes}"


# The clock, where the target is here.


def finalists(ways: Sequence[tuple[str, float, int]], plain: int, by_hand: str | None) -> list[str]:
    """Of ways that fit, each with work over plain's and its bytes, least work first, at most three: one may be fastest.

    By the law of time with traffic, (1 - omega) x work + omega x memory / plain's, those that take least, and what
    people write by hand, whose loops are simpler than those of schedules.
    """

    def least(omega: float) -> tuple[str, float, int]:
        return min(ways, key=lambda way: (1 - omega) * way[1] + omega * way[2] / plain)

    if not ways:
        return []
    chosen = [least(0.0), least(OMEGA), *(way for way in ways if way[0] == by_hand), least(OMEGA / 2)]
    first: dict[tuple[float, int], str] = {}  # of equals
    for name, work, memory in chosen:
        first.setdefault((work, memory), name)
    return list(first.values())[:FINALISTS]


def fastest(times: Mapping[str, Interval]) -> str:
    """Of times over that of the first: the fastest if it is faster beyond its interval, otherwise the first."""
    first, *others = times
    faster = [name for name in others if times[name].high < 1]
    return min(faster, key=lambda name: times[name].value, default=first)


def _calls_back(program: Traced) -> bool:
    """Would running it print, or do something else besides giving its result?"""
    names = {eqn.primitive.name for eqn in _jax.equations(program.closed.jaxpr)}
    return bool(names & (CALLBACKS - {"pure_callback"}))


def _can_be_timed(target: Target, args: Sequence[Any], rows: Sequence[Row]) -> bool:
    """Is the target here, and all that would run: arrays, and memory?"""
    shapes = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(args))
    memory = memory_bytes(None, target)
    room = memory is None or all(row.plan is not None and row.plan.total < memory for row in rows)
    return target.attached and compiles_here(target) and not shapes and room


def _timed(rows: Sequence[Row], tried: Sequence[Row], args: Sequence[Any]) -> tuple[list[Row], Row, str]:
    """Finalists in interleaved rounds: the fastest if the clock can tell, otherwise the least work."""
    from adcost.rulers import clock  # scipy.stats takes its time to be imported

    programs = {row.name: _runs(row, args) for row in tried}
    first = tried[0].name
    try:
        _, once = (sum(map(clock.seconds_of, programs.values())) for _ in range(2))  # the first time each is compiled
    except Exception as error:  # what was planned stays
        return list(rows), tried[0], f"{_least_work(tried[0])}; not timed: {_jax.first_line(error)}"
    if LEAST_ROUNDS * once > PATIENCE:
        why = f"{_least_work(tried[0])}; not timed, for a run of each of {len(tried)} takes {once:.0f} s"
        return list(rows), tried[0], why
    seconds = list(clock.rounds(programs, clock.rounds_within(SECONDS, once, LEAST_ROUNDS, ROUNDS), 0))

    def ratio(name: str) -> Interval:
        logs = clock.log_ratios([[one[name] for one in seconds]], [[one[first] for one in seconds]])
        return clock.exponentiated(clock.over_processes(logs).interval)

    times = {name: ratio(name) for name in programs}
    timed = [replace(row, time=times.get(row.name)) for row in rows]
    by_name: Mapping[str, Row] = {row.name: row for row in timed}
    chosen = fastest(times)
    if chosen != first:
        return timed, by_name[chosen], f"the fastest of {len(tried)} that fit, timed here in one process"
    slower = all(times[name].low > 1 for name in programs if name != first)
    clear = "and the fastest of those timed" if slower else "which of those timed is fastest the clock cannot tell"
    return timed, by_name[first], f"{_least_work(by_name[first])}, {clear}"


def _runs(row: Row, args: Sequence[Any]) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(row.apply(*args))
