"""How large may it be? The largest batch, length or resolution that fits, by each way to differentiate: ``largest``."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from adcost import _jax
from adcost.arguments import Argnums, gradient
from adcost.candidates import PLAIN, Candidate, Loss, candidates, features
from adcost.display import Progress, html_table, in_words, noted, text_table, tracking
from adcost.plan import Plan, counted_of, memory_bytes, planned, traced
from adcost.rulers.fit import fitting, total_or_too_much
from adcost.targets import Target, named
from adcost.targets.elsewhere import at_once

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
        The largest that fits, 0 if not even the smallest does; None if that is not known, ``note`` then says why.
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
            yield row.name, size, memory, "" if row.ratio is None else f"{row.ratio:.2f}", noted(row.note)

    def json(self) -> dict[str, Any]:
        """All of it, for a program to read."""
        rows = [{**vars(row), "plan": None if row.plan is None else row.plan.json(peak=False)} for row in self.rows]
        return {"target": self.target, "memory": self.memory, "rows": rows}


HEADER = ("method", "largest", "memory", "work", "")


def largest(
    loss: Loss,
    args_of: Sized,
    *,
    argnums: Argnums = 0,
    memory: int | float | str | None = None,
    target: str | Target = "cpu",
    least: int = 1,
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
    least, most
        The smallest size that makes sense, and that beyond which nothing is tried.

    Returns
    -------
    Sizes
        A row for each way. Sizes are found by asking the compiler, up to the first that does not fit and then in
        between; where it plans less for a larger size the row says so, as another size may then fit too. Larger sizes
        that fit again, beyond one that does not, are not looked for.

    Raises
    ------
    ValueError
        If target, memory or argnums make no sense, the memory of the target is not known, or the gradient itself cannot
        be planned at the smallest size.

    References
    ----------
    MaxText #2504: batch and policy together.
    """
    chosen = named(target)
    budget = memory_bytes(memory, chosen)
    if budget is None:
        raise ValueError(f"the memory of {chosen.name} is not known: say memory=")
    with tracking("plain", progress) as said, at_once() as submit:
        of_a_way = partial(_largest, loss, args_of, argnums, chosen, budget, range(least, most + 1), said)
        plain = of_a_way(PLAIN)
        if plain.n is None:
            raise ValueError(f"the gradient itself could not be planned: {plain.note}")
        given = args_of(plain.n or least)
        temp = plain.plan.temp * plain.plan.devices if plain.plan else 0
        found = features(traced(loss, *given).closed, given, temp)
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
    sizes: range,
    said: Progress,
    way: Candidate,
) -> Size:
    tried: dict[int, Plan] = {}

    def total(n: int) -> int:
        if n in tried:
            return tried[n].total
        said(f"{way.name}, {n}")
        try:
            args = args_of(n)
            tried[n] = planned(traced(gradient(way.apply(loss), argnums, args), *args), target, budget)
        except Exception as error:
            raise RuntimeError(f"at {n}: {_jax.first_line(error)}") from None
        return tried[n].total

    least = sizes[0]
    try:
        beyond = too_large(total, budget, sizes)
        above = (beyond or sizes[-1]) - least + 1  # counted from the smallest size: 1 is that, 0 is none
        n, _ = fitting(lambda k: total(k + least - 1), budget, above, CLOSE)
        n = n + least - 1 if n else 0
        plain = counted_of(traced(gradient(loss, argnums), *args_of(n or least)))
    except Exception as error:  # whatever is wrong with one way costs that way alone
        return Size(way.name, way.code, None, None, None, str(error).splitlines()[0])
    at_n = tried.get(n)
    notes = [] if beyond else ["not tried beyond"]
    notes += [f"{in_words(at_n.host)} on the host"] if at_n and at_n.host else []
    notes += [f"it takes less at {b} than at {a}: another size may fit too" for a, b in falls(tried)][:1]
    ratio = at_n.flops / max(plain.flops, 1) if at_n else None
    return Size(way.name, way.code, n, at_n, ratio, "; ".join(notes))


CLOSE = 1 / 64  # of the largest, the part that is taken for close
GROWTH = 64  # times as large at most is the next size that is tried


def too_large(total: Callable[[int], int], memory: int, sizes: range) -> int | None:
    """A size that does not fit, a little beyond where the last two say, on a line; None if the last one fits."""
    smaller, n = 0, sizes[0]
    at_smaller, at_n = 0, total_or_too_much(total, n, memory)
    while at_n <= memory:
        if n == sizes[-1]:
            return None
        rise = (at_n - at_smaller) / (n - smaller)
        there = int(1.1 * (n + (memory - at_n) / rise)) if rise > 0 else GROWTH * n
        smaller, at_smaller = n, at_n
        n = min(max(there, 2 * n), GROWTH * n, sizes[-1])
        at_n = total_or_too_much(total, n, memory)
    return n


def falls(tried: dict[int, Plan]) -> list[tuple[int, int]]:
    """Neighbouring sizes of which the larger one takes less."""
    return [(a, b) for a, b in pairwise(sorted(tried)) if tried[b].total < tried[a].total]
