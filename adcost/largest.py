"""How large may it be? The largest batch, length or resolution that fits, by each way to differentiate: ``largest``."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from adcost import _jax
from adcost.arguments import Argnums, gradient
from adcost.candidates import PLAIN, Candidate, Loss, candidates, features
from adcost.display import Progress, html_table, text_table, tracking
from adcost.plan import Plan, counted_of, in_words, memory_bytes, planned, traced
from adcost.rulers.fit import fitting
from adcost.targets import Target, named
from adcost.targets.elsewhere import CompilerFailed

Sized = Callable[[int], tuple[Any, ...]]
MOST = 2**40  # beyond which nobody asks


@dataclass(frozen=True, eq=False)
class Size:
    """The largest size of a way to differentiate.

    Attributes
    ----------
    name, code
        For people; the loss in this way, to be differentiated in its place.
    n
        The largest that fits, 0 if not even 1 does; None if that is not known, ``note`` then says why.
    plan
        What it takes at ``n``.
    ratio
        Flops at ``n`` over those of plain at the same ``n``; None if plain could not be traced there.
    note
        What else there is to say: that memory does not grow with n everywhere.
    """

    name: str
    code: str
    n: int | None
    plan: Plan | None
    ratio: float | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Sizes:
    """The largest sizes, the largest first; ``best`` is that."""

    rows: tuple[Size, ...]
    target: str
    memory: int

    @property
    def best(self) -> Size:
        return self.rows[0]

    def __str__(self) -> str:
        return text_table(self._title, HEADER, self._cells(), (self.best.code,))

    def _repr_html_(self) -> str:
        return html_table(self._title, HEADER, self._cells(), (self.best.code,))

    @property
    def _title(self) -> str:
        return f"The largest that fits into {in_words(self.memory)} on {self.target}"

    def _cells(self) -> Iterator[Sequence[str]]:
        for row in self.rows:
            size = "?" if row.n is None else str(row.n)
            memory = "" if row.plan is None else in_words(row.plan.total)
            yield row.name, size, memory, "" if row.ratio is None else f"{row.ratio:.2f}", row.note

    def json(self) -> dict[str, Any]:
        """All of it, for a program to read."""
        rows = [{**vars(row), "plan": None if row.plan is None else row.plan.json()} for row in self.rows]
        return {"target": self.target, "memory": self.memory, "rows": rows}


HEADER = ("method", "largest", "memory", "work", "")


def largest(
    loss: Loss,
    args_of: Sized,
    *,
    argnums: Argnums = 0,
    memory: int | str | None = None,
    target: str | Target = "cpu",
    most: int = MOST,
    progress: bool | None = None,
) -> Sizes:
    """The largest integer for which the gradient fits, plain and by each kind of candidate of ``advise``.

    Parameters
    ----------
    loss
        A scalar function.
    args_of
        ``args_of(n)`` gives its arguments at size n, best as ``jax.ShapeDtypeStruct``: a batch, a length, a resolution.
    argnums, memory, target, progress
        As those of ``advise``.
    most
        Beyond which nothing is tried.

    Returns
    -------
    Sizes
        A row for each way. Sizes are found by asking the compiler, up to the first that does not fit and then in
        between; where it plans less for a larger size the row says so, as another size may then fit too.

    Raises
    ------
    ValueError
        If target, memory or argnums make no sense, or the memory of the target is not known.

    References
    ----------
    MaxText #2504: batch and policy together.
    """
    chosen = named(target)
    budget = memory_bytes(memory, chosen)
    if budget is None:
        raise ValueError(f"the memory of {chosen.name} is not known: say memory=")
    with tracking("plain", progress) as said, _jax.threads() as submit:
        of_a_way = partial(_largest, loss, args_of, argnums, chosen, budget, most, said)
        plain = of_a_way(PLAIN)
        given = args_of(plain.n or 1)
        found = features(traced(loss, *given).closed, given, plain.plan.temp if plain.plan else 0)
        others = [submit(of_a_way, way) for way in candidates(found, chosen)]
        rows = [plain, *(one.result() for one in others)]
    rows.sort(key=lambda row: (row.n is None, -(row.n or 0), row.ratio or 0.0))
    return Sizes(tuple(rows), chosen.name, budget)


def _largest(
    loss: Loss,
    args_of: Sized,
    argnums: Argnums,
    target: Target,
    budget: int,
    most: int,
    said: Progress,
    way: Candidate,
) -> Size:
    tried: dict[int, Plan] = {}

    def total(n: int) -> int:
        if n not in tried:
            said(f"{way.name}, {n}")
            tried[n] = planned(traced(gradient(way.apply(loss), argnums), *args_of(n)), target, budget)
        return tried[n].total

    try:
        beyond = too_large(total, budget, most)
        n, _ = fitting(total, budget, beyond or most, CLOSE)
        plain = counted_of(traced(gradient(loss, argnums), *args_of(max(n, 1))))
    except (CompilerFailed, ValueError, TypeError, NotImplementedError) as error:
        return Size(way.name, way.code, None, None, None, _jax.first_line(error))
    notes = [] if beyond else ["not tried beyond"]
    notes += [f"it takes less at {b} than at {a}: another size may fit too" for a, b in falls(tried)][:1]
    ratio = tried[n].flops / max(plain.flops, 1) if n else None
    return Size(way.name, way.code, n, tried.get(n), ratio, "; ".join(notes))


CLOSE = 1 / 64  # of the largest, the part that is taken for close
GROWTH = 64  # times as large at most is the next size that is tried


def too_large(total: Callable[[int], int], memory: int, most: int) -> int | None:
    """A size that does not fit: a little beyond where the last two say, on a straight line; None up to ``most``."""
    smaller, n = 0, 1
    at_smaller, at_n = 0, total(1)
    while at_n <= memory:
        if n == most:
            return None
        rise = (at_n - at_smaller) / (n - smaller)
        there = int(1.1 * (n + (memory - at_n) / rise)) if rise > 0 else GROWTH * n
        smaller, at_smaller = n, at_n
        n = min(max(there, 2 * n), GROWTH * n, most)
        at_n = total(n)
    return n


def falls(tried: dict[int, Plan]) -> list[tuple[int, int]]:
    """Neighbouring sizes of which the larger one takes less."""
    return [(a, b) for a, b in pairwise(sorted(tried)) if tried[b].total < tried[a].total]
