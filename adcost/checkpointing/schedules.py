"""Checkpointing schedules as data: which activations to keep, which to compute again.

A chain of ``depth`` layers turns ``h_0`` into ``h_1, ..., h_depth``; the loss counts as layer
``depth + 1``. The backward step of layer ``i`` needs its input ``h_{i-1}``, so a schedule hands over
``h_depth, ..., h_1, h_0`` in this order while it holds at most ``slots`` activations.

References
----------
Griewank and Walther, "Algorithm 799: revolve", ACM TOMS 26 (2000): the binomial optimum.
Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", arXiv:1604.06174 (2016): sqrt(n).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from math import comb
from typing import NamedTuple

NO_STORE = -1


class Row(NamedTuple):
    """One move: load a slot, advance, perhaps store, perhaps take one backward step."""

    load: int  # slot that is read
    at: int  # position of the activation in that slot
    advance: int  # layers evaluated from there
    store: int = NO_STORE  # slot that receives the result, or NO_STORE
    backward: bool = False  # does a backward step use the result?


@dataclass(frozen=True)
class Schedule:
    """An immutable, validated checkpointing schedule for a chain of ``depth`` layers.

    Attributes
    ----------
    depth
        Layers of the chain.
    slots
        Activations that are held at most, the input's among them.
    rows
        The moves, in order.

    Raises
    ------
    ValueError
        If the rows do not run a backward pass within ``slots`` slots; the message names the row.
    """

    depth: int
    slots: int
    rows: tuple[Row, ...] = field(repr=False)

    def __post_init__(self) -> None:
        for _ in interpret(self):
            pass

    @property
    def evaluations(self) -> int:
        """Layer evaluations in the lecture's account: a stored input enables its backward step."""
        return sum(row.advance for row in self.rows)

    @property
    def taped_evaluations(self) -> int:
        """Layer evaluations when every backward step evaluates its layer once more for the residuals."""
        return self.evaluations + self.depth

    @property
    def first_sweep(self) -> int:
        """Number of rows up to the first backward step: the forward pass."""
        return next(i for i, row in enumerate(self.rows) if row.backward) + 1


class State(NamedTuple):
    """What a schedule holds after a row: ``slots`` maps a slot to the position stored in it."""

    row: Row
    position: int  # of the activation that the row computed
    slots: dict[int, int]  # live view: copy it to keep it
    pending: int  # position that the next backward step needs, -1 when all are done


def interpret(schedule: Schedule) -> Iterator[State]:
    """Execute a schedule symbolically, row by row; the rules of a valid schedule stand here.

    Raises
    ------
    ValueError
        At the first row that breaks a rule, in one line.
    """
    depth, slots, rows = schedule.depth, schedule.slots, schedule.rows
    if depth < 1 or slots < 1:
        raise ValueError(f"a schedule needs a depth and a number of slots of at least 1, got {depth} and {slots}")
    held = {0: 0}
    pending = depth
    for i, row in enumerate(rows):
        position = row.at + row.advance
        if not 0 <= row.load < slots or not NO_STORE <= row.store < slots:
            raise ValueError(f"row {i}: {row} uses a slot outside 0..{slots - 1}")
        if held.get(row.load) != row.at:
            raise ValueError(
                f"row {i}: {row} expects h_{row.at} in slot {row.load}, which holds {_name(held, row.load)}"
            )
        if row.advance < 0 or position > depth:
            raise ValueError(f"row {i}: {row} advances outside the chain of {depth} layers")
        if row.store != NO_STORE:
            held[row.store] = position
        if row.backward:
            if position != pending:
                raise ValueError(f"row {i}: the backward step needs h_{pending}, the row hands over h_{position}")
            pending -= 1
        yield State(row, position, held, pending)
    if pending >= 0:
        raise ValueError(f"the schedule ends before the backward step that needs h_{pending}")


def peak_slots(schedule: Schedule) -> int:
    """Most activations that are stored and still needed at one time (never more than ``slots``)."""
    last_use = {}  # (slot, the row that filled it) -> row that reads it last
    filled = {0: -1}
    for i, row in enumerate(schedule.rows):
        last_use[row.load, filled[row.load]] = i
        if row.store != NO_STORE:
            filled[row.store] = i
    starts = sorted(start for _, start in last_use)
    ends = sorted(last_use.values())
    peak = live = done = 0
    for start in starts:
        while done < len(ends) and ends[done] <= start:
            done, live = done + 1, live - 1
        live += 1
        peak = max(peak, live)
    return peak


def _name(held: dict[int, int], slot: int) -> str:
    return f"h_{held[slot]}" if slot in held else "nothing"


def _schedule(depth: int, rows: Iterable[Row]) -> Schedule:
    rows = tuple(rows)
    return Schedule(depth, 1 + max(max(row.load, row.store) for row in rows), rows)


def store_all(depth: int) -> Schedule:
    """Vanilla backprop: every layer's input is stored, every layer is evaluated once.

    Parameters
    ----------
    depth
        Layers of the chain, n.

    Returns
    -------
    Schedule
        With n slots and n evaluations.
    """
    return multilevel(depth, 1)


def memory_poor(depth: int) -> Schedule:
    """Only the input is stored; every activation is computed from it.

    Parameters
    ----------
    depth
        Layers of the chain, n.

    Returns
    -------
    Schedule
        With one slot and n(n+1)/2 evaluations.
    """
    return binomial(depth, 1)


def sqrt(depth: int) -> Schedule:
    """About sqrt(n) segments, recomputed one at a time.

    Parameters
    ----------
    depth
        Layers of the chain, n.

    Returns
    -------
    Schedule
        With about 2 sqrt(n) slots and 2n - sqrt(n) evaluations.

    References
    ----------
    Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", arXiv:1604.06174 (2016).
    """
    return multilevel(depth, 2)


def multilevel(depth: int, levels: int) -> Schedule:
    """Segments of segments, ``levels`` deep: about ``levels * n^(1/levels)`` slots and ``levels * n`` evaluations.

    A sweep over a segment stores the first activation of each of its parts; on the way back the parts are
    swept in the same way, the last level storing all. ``levels=1`` is vanilla, ``levels=2`` the sqrt(n) strategy.

    Parameters
    ----------
    depth
        Layers of the chain, n.
    levels
        How deep segments are nested.

    Returns
    -------
    Schedule
        The schedule.

    Raises
    ------
    ValueError
        If ``depth`` or ``levels`` is below 1.
    """
    if depth < 1 or levels < 1:
        raise ValueError(f"multilevel needs a depth and levels of at least 1, got {depth} and {levels}")
    return _schedule(depth, _multilevel_rows(depth, levels))


def _multilevel_rows(depth: int, levels: int) -> Iterator[Row]:
    # A segment is (start, length, slot of its first activation, level, whether h_{start+length} is asked for).
    stack = [(0, depth, 0, levels, True)]
    while stack:
        start, length, slot, level, last = stack.pop()
        if length == 1:
            if last:
                yield Row(slot, start, 1, backward=True)
            yield Row(slot, start, 0, backward=True)
            continue
        parts = length if level == 1 else _ceil_root(length, level)
        bounds = [start + length * k // parts for k in range(parts + 1)]
        for k in range(1, parts):
            yield Row(slot + k - 1, bounds[k - 1], bounds[k] - bounds[k - 1], store=slot + k)
        if last:
            yield Row(slot + parts - 1, bounds[-2], bounds[-1] - bounds[-2], backward=True)
        for k in range(parts):  # the stack turns the order round: the last part goes back first
            stack.append((bounds[k], bounds[k + 1] - bounds[k], slot + k, max(level - 1, 1), False))


def _ceil_root(n: int, order: int) -> int:
    """Least k with k**order >= n, exact for integers of any size."""
    k = max(1, round(n ** (1 / order)))
    while k**order < n:
        k += 1
    while k > 1 and (k - 1) ** order >= n:
        k -= 1
    return k


def binomial(depth: int, slots: int) -> Schedule:
    """The optimum for ``slots`` slots, the input's among them: no schedule evaluates fewer layers.

    Parameters
    ----------
    depth
        Layers of the chain.
    slots
        Activations that may be held at most, the input's among them.

    Returns
    -------
    Schedule
        ``evaluations == t(depth + 1, slots)`` with ``t(l, s) = r l - C(s + r, s + 1)`` and r the least number
        with ``C(s + r, s) >= l``.

    Raises
    ------
    ValueError
        If ``depth`` or ``slots`` is below 1.

    References
    ----------
    Griewank and Walther, "Algorithm 799: revolve", ACM TOMS 26 (2000), proposition 1, in the account of this module.
    """
    if depth < 1 or slots < 1:
        raise ValueError(f"binomial needs a depth and a number of slots of at least 1, got {depth} and {slots}")
    return _schedule(depth, _binomial_rows(depth, slots))


@cache
def _reach(slots: int, repeats: int) -> int:
    """Longest chain that ``slots`` slots reverse when no layer is evaluated more than ``repeats`` times."""
    return comb(slots + repeats, slots) if repeats >= 0 else 0


def _binomial_rows(depth: int, slots: int) -> Iterator[Row]:
    repeats = 0
    while _reach(slots, repeats) < depth + 1:
        repeats += 1
    # A segment is (start, length, slot of its first activation, slots it may use, repeats); the loss is a layer.
    stack = [(0, depth + 1, 0, slots, repeats)]
    while stack:
        start, length, slot, free, repeats = stack.pop()
        while length > 1 and free > 1:
            while _reach(free, repeats - 1) >= length:
                repeats -= 1
            # Any split that lets the left part do with one repeat less and the right part with one slot less.
            left = min(_reach(free, repeats - 1), length - _reach(free - 1, repeats - 1))
            if length - left == 1:
                break
            yield Row(slot, start, left, store=slot + 1)
            stack.append((start, left, slot, free, repeats - 1))
            start, length, slot, free = start + left, length - left, slot + 1, free - 1
        if length > 1 and free > 1:  # the right part is one layer: its input goes straight into the backward step
            yield Row(slot, start, length - 1, backward=True)
            stack.append((start, length - 1, slot, free, repeats))
        else:
            for advance in range(length - 1, -1, -1):
                yield Row(slot, start, advance, backward=True)
