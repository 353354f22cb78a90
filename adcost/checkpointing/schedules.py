"""Checkpointing schedules as data: which activations to keep, which to compute again.

A chain of ``depth`` layers turns ``h_0`` into ``h_1, ..., h_depth``; the loss counts as layer
``depth + 1``. The backward step of layer ``i`` needs its input ``h_{i-1}``, so a schedule hands over
``h_depth, ..., h_1, h_0`` in this order while it holds at most ``slots`` activations.

Layers can go in blocks, each taped as a whole when its backward step comes, and the last ``tail`` layers can be taped
by the forward pass itself. So one family reaches from plain backprop (all is tail) to the binomial optimum (blocks of
one layer, no tail).

References
----------
Griewank and Walther, "Algorithm 799: revolve", ACM TOMS 26 (2000): the binomial optimum.
Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", arXiv:1604.06174 (2016): sqrt(n).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import comb
from operator import index
from typing import Any, NamedTuple

import numpy as np

NO_STORE = -1


class Row(NamedTuple):
    """One move: load a slot, advance, perhaps store, perhaps take one backward step."""

    load: int  # slot that is read
    at: int  # position of the activation in that slot
    advance: int  # layers evaluated from there
    store: int = NO_STORE  # slot that receives the result, or NO_STORE
    backward: bool = False  # does a backward step use the result?


Table = np.ndarray[tuple[int, int], np.dtype[np.int32]]  # a row a move, with the columns of Row
LOAD, AT, ADVANCE, STORE, BACKWARD = range(5)


@dataclass(frozen=True, eq=False)
class Schedule:
    """An immutable, validated checkpointing schedule for a chain of ``depth`` layers.

    Attributes
    ----------
    depth
        Layers of the chain.
    slots
        Activations that are held at most, the input's among them.
    moves
        What is done, in order: ``Row`` by ``Row``, or a table of integers with its columns. ``rows`` and ``table`` give
        them as either. Positions count blocks.
    block
        Layers of a block.
    tail
        Layers at the end that the forward pass tapes.
    host
        Do slots lie in the host's memory? See ``on_host``.

    Raises
    ------
    ValueError
        If the rows do not run a backward pass within ``slots`` slots; the message names the row.
    """

    depth: int
    slots: int
    moves: Sequence[Row] | np.ndarray[Any, np.dtype[Any]] = field(repr=False)
    block: int = 1
    tail: int = 0
    host: bool = False

    def __post_init__(self) -> None:
        if self.block < 1 or self.tail < 0 or self.blocks < 0 or self.blocks * self.block + self.tail != self.depth:
            raise ValueError(
                f"a schedule of {self.depth} layers has no whole number of blocks of {self.block} before a tail of "
                f"{self.tail}"
            )
        if not _is_valid(self):
            for _ in interpret(self):  # raises at the first row that breaks a rule
                pass

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule) or self._sizes != other._sizes:
            return False
        return np.array_equal(self.table, other.table)

    def __hash__(self) -> int:
        return hash((*self._sizes, len(self.table)))

    @property
    def _sizes(self) -> tuple[int, int, int, int, bool]:
        return self.depth, self.slots, self.block, self.tail, self.host

    def __reduce__(self) -> tuple[Any, ...]:
        fields = self.depth, self.slots, self.table, self.block, self.tail, self.host
        return Schedule, fields  # a copy is made and validated like any other

    def on_host(self) -> "Schedule":
        """The same schedule with its slots in the host's memory (``pinned_host``), where the device can reach it.

        Then the device holds none of them. On a CPU that is the same memory. Gradients and ``vmap`` of them take such
        slots; forward mode over a gradient does not.
        """
        return Schedule(self.depth, self.slots, self.table, self.block, self.tail, host=True)

    @cached_property
    def table(self) -> Table:
        """The moves as integers, one a row."""
        given = np.asarray(self.moves)
        if given.size and given.shape[1:] != (len(Row._fields),):
            raise ValueError(
                f"the moves of a schedule are rows of {', '.join(Row._fields)}; got an array {given.shape}"
            )
        table = given.astype(np.int32).reshape(-1, len(Row._fields))
        if not np.array_equal(table, given.reshape(table.shape)) or (table[:, BACKWARD] | 1 != 1).any():
            raise ValueError("the moves of a schedule are whole numbers of 32 bits, and backward is one of 0 and 1")
        table.flags.writeable = False
        return table

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The moves as rows."""
        return tuple(
            Row(load, at, advance, store, bool(back)) for load, at, advance, store, back in self.table.tolist()
        )

    @property
    def evaluations(self) -> int:
        """Layer evaluations in the lecture's account: a stored input enables its backward step."""
        return int(self.table[:, ADVANCE].sum(dtype=np.int64)) * self.block + self.tail

    @property
    def taped_evaluations(self) -> int:
        """Layer evaluations when every backward step evaluates its layers once more for the residuals."""
        return self.evaluations + self.blocks * self.block

    @property
    def blocks(self) -> int:
        """Blocks before the tail: the chain that the moves reverse."""
        return (self.depth - self.tail) // self.block

    def memory(self, residuals: float) -> float:
        """What a gradient holds at most, in activations, if a layer hands ``residuals`` of them to its backward pass.

        Beside slots and residuals there are at most four: two in front of a layer and two behind it. Slots on the host
        are not the device's.
        """
        block, slots = (self.block, 0 if self.host else self.slots) if self.blocks else (0, 0)
        return max(self.tail, block) * residuals + slots + 4

    @property
    def first_sweep(self) -> int:
        """Number of rows up to the first backward step: the forward pass."""
        return int(np.argmax(self.table[:, BACKWARD])) + 1

    @cached_property
    def input_slots(self) -> int:
        """Slots, the first ones, that hold nothing but the input: 1, and 0 of a schedule that gives it up."""
        position, store = self.table[:, AT] + self.table[:, ADVANCE], self.table[:, STORE]
        return int(min(store[(store != NO_STORE) & (position > 0)], default=self.slots))

    @cached_property
    def first_stores(self) -> Table:
        """What the first sweep leaves in slots, in the order of the chain: a row a store, (at, advance, slot)."""
        held = {0: 0}
        for _, at, advance, store, _ in self.table[: self.first_sweep].tolist():
            if store != NO_STORE:
                held[store] = at + advance
        ends = sorted((position, slot) for slot, position in held.items() if position > 0)
        starts = [0, *(position for position, _ in ends)]
        rows = [(at, end - at, slot) for at, (end, slot) in zip(starts, ends, strict=False)]
        return np.array(rows, np.int32).reshape(-1, 3)


def _is_valid(schedule: Schedule) -> bool:
    """The rules of ``interpret``, for all rows at once."""
    depth, slots, table = schedule.blocks, schedule.slots, schedule.table
    if schedule.depth < 0 or slots < 1 or len(table) == 0:
        return False
    load, at, advance, store, backward = table.astype(np.int64).T
    position, stores = at + advance, store != NO_STORE
    if min(load.min(), at.min(), advance.min()) < 0 or max(load.max(), store.max()) >= slots or store.min() < NO_STORE:
        return False
    # A slot holds what the last row before stored there: in the order of (slot, row) that is the entry before.
    row, span = np.arange(1, len(table) + 1), len(table) + 1
    filled = np.concatenate([[0], (store * span + row)[stores]])
    held = np.concatenate([[0], position[stores]])
    order = np.argsort(filled)
    filled, held = filled[order], held[order]
    last = np.searchsorted(filled, load * span + row) - 1
    handed_over = position[backward == 1]
    return bool(
        (position <= depth).all()
        and (last >= 0).all()
        and (filled[last] // span == load).all()
        and (held[last] == at).all()
        and np.array_equal(handed_over, np.arange(depth, -1, -1))
    )


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
    depth, slots, rows = schedule.blocks, schedule.slots, schedule.rows
    if depth < 0 or slots < 1:
        raise ValueError(f"a schedule needs a depth of at least 0 and slots of at least 1, got {depth} and {slots}")
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


def _schedule(depth: int, tables: Iterable[Table]) -> Schedule:
    table = np.concatenate(list(tables))
    return Schedule(depth, 1 + int(table[:, [LOAD, STORE]].max()), table)


def _table(*columns: Any) -> Table:
    """Rows from columns, or from what all rows have there."""
    return np.stack(np.broadcast_arrays(*map(np.atleast_1d, columns)), 1).astype(np.int32)


def _shifted(table: Table, start: int, slot: int) -> Table:
    """The same moves for a segment that begins elsewhere in the chain and in the slots."""
    moved = table + np.array([slot, start, 0, 0, 0], np.int32)
    moved[:, STORE] += np.where(table[:, STORE] == NO_STORE, 0, slot).astype(np.int32)
    return moved


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
        If ``depth`` is below 0 or ``levels`` below 1.
    """
    depth, levels = index(depth), index(levels)
    if depth < 0 or levels < 1:
        raise ValueError(f"multilevel needs a depth of at least 0 and levels of at least 1, got {depth} and {levels}")
    made = cache(_multilevel)  # the segments of a level have few lengths
    return _schedule(depth, [made(depth, levels, True, made)])


def _multilevel(length: int, level: int, last: bool, made: Callable[..., Table]) -> Table:
    """The moves for a segment of so many layers; ``last``: is h_length asked for?"""
    if length <= 1:
        return _table(0, 0, [1, 0] if last and length else [0], NO_STORE, True)
    parts = length if level == 1 else _ceil_root(length, level)
    bounds = np.arange(parts + 1) * length // parts
    k, steps = np.arange(parts), np.diff(bounds)
    forward = _table(k, bounds[:-1], steps, k + 1, False)[:-1]
    turn = [_table(parts - 1, bounds[-2], steps[-1], NO_STORE, True)] if last else []
    if level == 1 or parts == length:
        return np.concatenate([forward, *turn, _table(k, bounds[:-1], 0, NO_STORE, True)[::-1]])
    inside = (_shifted(made(int(steps[i]), level - 1, False, made), int(bounds[i]), int(i)) for i in k[::-1])
    return np.concatenate([forward, *turn, *inside])


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
        If ``depth`` is below 0 or ``slots`` below 1.

    References
    ----------
    Griewank and Walther, "Algorithm 799: revolve", ACM TOMS 26 (2000), proposition 1, in the account of this module.
    """
    depth, slots = index(depth), index(slots)
    if depth < 0 or slots < 1:
        raise ValueError(f"binomial needs a depth of at least 0 and slots of at least 1, got {depth} and {slots}")
    repeats = 0
    while _reach(slots, repeats) < depth + 1:
        repeats += 1
    # The loss is a layer.
    return _schedule(depth, _binomial(depth + 1, slots, repeats, cache(_small)))


@cache
def _reach(slots: int, repeats: int) -> int:
    """Longest chain that ``slots`` slots reverse when no layer is evaluated more than ``repeats`` times."""
    return comb(slots + repeats, min(slots, repeats)) if repeats >= 0 else 0


SMALL = 256  # layers of a segment whose moves are made once for all segments of its kind


def _binomial(length: int, free: int, repeats: int, small: Callable[[int, int, int], Table] | None) -> Iterator[Table]:
    # A segment is (start, length, slot of its first activation, slots it may use, repeats).
    stack = [(0, length, 0, free, repeats)]
    while stack:
        start, length, slot, free, repeats = stack.pop()
        while length > 1 and free > 1:
            while _reach(free, repeats - 1) >= length:
                repeats -= 1
            if small is not None and length <= SMALL:
                yield _shifted(small(length, min(free, length), repeats), start, slot)
                break
            if repeats == 1:
                yield _shifted(_stored(length), start, slot)
                break
            # Any split that lets the left part do with one repeat less and the right part with one slot less.
            left = min(_reach(free, repeats - 1), length - _reach(free - 1, repeats - 1))
            if length - left == 1:  # the right part is one layer: its input goes straight into the backward step
                yield _table(slot, start, length - 1, NO_STORE, True)
                stack.append((start, length - 1, slot, free, repeats))
                break
            yield _table(slot, start, left, slot + 1, False)
            stack.append((start, left, slot, free, repeats - 1))
            start, length, slot, free = start + left, length - left, slot + 1, free - 1
        else:
            yield _table(slot, start, np.arange(length - 1, -1, -1), NO_STORE, True)


def _small(length: int, free: int, repeats: int) -> Table:
    return np.concatenate(list(_binomial(length, free, repeats, None)))


def _stored(length: int) -> Table:
    """A segment in which every activation has a slot; the last layer's result goes straight on."""
    k = np.arange(length - 1)
    forward = _table(k, k, 1, k + 1, False)
    forward[-1, [STORE, BACKWARD]] = NO_STORE, True
    return np.concatenate([forward, _table(k, k, 0, NO_STORE, True)[::-1]])


def blocks(depth: int, slots: int | None = None, block: int = 1, tail: int | None = None) -> Schedule:
    """Blocks of layers by the optimum for ``slots`` slots, then a tail that the forward pass tapes.

    Parameters
    ----------
    depth
        Layers of the chain, n.
    slots
        Block inputs that may be held at most, the chain's input among them; one each if None.
    block
        Layers of a block.
    tail
        Layers at the end that are taped by the forward pass; if None, as many of 1 to ``block`` as leave whole blocks.
        All layers: plain backprop.

    Returns
    -------
    Schedule
        With enough slots for all blocks, 2n - tail evaluations in the tape's account.

    Raises
    ------
    ValueError
        If the layers before the tail are no whole number of blocks, or one block of several layers: its one trip is no
        loop to XLA, which then merges it with the forward pass and keeps all residuals.

    References
    ----------
    Griewank and Walther, "Algorithm 799: revolve", ACM TOMS 26 (2000), for the blocks.
    """
    depth, block = index(depth), index(block)
    if depth < 0 or block < 1 or (slots is not None and index(slots) < 1):
        raise ValueError(
            f"blocks needs a depth of at least 0, slots and a block of at least 1, got {depth}, {slots}, {block}"
        )
    if tail is None:
        tail = min(depth, (depth - 1) % block + 1) if depth else 0
        tail = depth if block > 1 and (depth - tail) // block == 1 else tail
    count, odd = divmod(depth - index(tail), block)
    if not 0 <= tail <= depth or odd:
        raise ValueError(f"{depth} layers less a tail of {tail} are no whole number of blocks of {block}")
    if count == 1 and block > 1:
        raise ValueError(f"one block of {block} layers saves nothing: make two of it, or put it into the tail")
    made = binomial(count, min(slots or count + 1, count + 1))
    return Schedule(depth, made.slots, made.table, block, tail)


def within(depth: int, memory: float, residuals: float) -> Schedule:
    """The schedule of ``blocks`` with the fewest evaluations whose gradient fits into a memory.

    Parameters
    ----------
    depth
        Layers of the chain, n.
    memory
        What a gradient may hold, in activations.
    residuals
        What a layer hands to its backward pass, in activations.

    Returns
    -------
    Schedule
        With ``memory(residuals)`` at most the given; plain backprop where that fits.

    Raises
    ------
    ValueError
        If nothing fits; the message says what the least is.
    """
    plain = blocks(depth, 1, 1, depth)
    if depth == 0 or plain.memory(residuals) <= memory:
        return plain
    least = blocks(depth, 1, 1, 1).memory(residuals)
    if memory < least:
        raise ValueError(
            f"a gradient of {depth} layers takes {least:.3g} activations at least, {memory:.3g} are too few"
        )
    found = []
    for block in grid(1, depth):
        if (room := memory - 4 - 1) < block * residuals:
            break
        fewest, most = max(1 if block == 1 else 2, -int((room // residuals - depth) // block)), depth // block
        from_below, from_above = grid(fewest, most), (most - less for less in grid(0, most - fewest))
        for count in {*from_below, *from_above}:
            tail = depth - count * block
            slots = int(memory - 4 - max(tail, block) * residuals)
            if slots >= 1:
                found.append(
                    (block * (_least_evaluations(count, min(slots, count)) + count) + tail, block, tail, slots)
                )
    _, block, tail, slots = min(found, default=(0, 1, 1, 1))  # of the least memory rounding may find nothing
    return blocks(depth, slots, block, tail)


def grid(first: int, last: int) -> Iterator[int]:
    """Numbers from the first to the last, at most a tenth apart."""
    while first <= last:
        yield first
        first += max(1, first // 10)


def _least_evaluations(depth: int, slots: int) -> int:
    """Those of ``binomial(depth, slots)``."""
    length, high = depth + 1, 1
    while _reach(slots, high) < length:
        high *= 2
    low = high // 2  # least repeats that reach the loss lie between
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _reach(slots, middle) >= length else (middle + 1, high)
    return low * length - comb(slots + low, slots + 1)
