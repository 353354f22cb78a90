"""Schedules, executed symbolically, against their optimum and an oracle that shares no code with them."""

import copy
import pickle
import re
import sys
from dataclasses import FrozenInstanceError
from functools import cache

import numpy as np
import pytest
from checkpoint_schedules import Forward, Revolve
from hypothesis import given, settings
from hypothesis import strategies as st

from adcost.checkpointing import (
    NO_STORE,
    Row,
    Schedule,
    binomial,
    blocks,
    interpret,
    memory_poor,
    multilevel,
    peak_slots,
    sqrt,
    store_all,
    within,
)
from adcost.checkpointing.executor import STEP, _tables
from analysis import theory
from benchmarks.studies.backprop import two_pass_slots

depths = st.integers(1, 300)


@cache
def least_evaluations(length: int, slots: int) -> int:
    """The optimum by dynamic programming: the best first split of ``length`` layers, the loss one of them."""
    if length == 1:
        return 0
    if slots == 1:
        return length * (length - 1) // 2
    return min(k + least_evaluations(length - k, slots - 1) + least_evaluations(k, slots) for k in range(1, length))


def test_binomial_reaches_the_optimum_for_every_depth_to_200_and_20_slots():
    for n in range(1, 201):
        for s in range(1, 21):
            schedule = binomial(n, s)
            assert schedule.evaluations == theory.optimal_evaluations(n, s), (n, s)
            assert schedule.slots <= s


def test_the_formula_of_the_optimum_equals_dynamic_programming():
    for length in range(2, 60):
        for s in range(1, 12):
            assert theory.optimal_evaluations(length - 1, s) == least_evaluations(length, s), (length, s)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 40, 99, 150, 200])
@pytest.mark.parametrize("s", [1, 2, 3, 5, 10, 20])
def test_binomial_against_the_package_checkpoint_schedules(n, s):
    # Its schedule ends every backward step with a taped evaluation, l in all; ours are counted apart.
    oracle = sum(action.n1 - action.n0 for action in Revolve(n + 1, s) if isinstance(action, Forward))
    assert binomial(n, s).evaluations == oracle - (n + 1)


@given(depths)
def test_the_lecture_counts_its_strategies_rightly(n):
    assert store_all(n).evaluations == n
    assert memory_poor(n).evaluations == theory.memory_poor_evaluations(n)
    assert memory_poor(n).slots == 1
    assert sqrt(n).evaluations == theory.sqrt_evaluations(n)
    assert sqrt(n).slots <= 2 * theory.sqrt_segments(n)


def test_sqrt_of_a_square_is_the_formula_of_the_lecture():
    for root in range(1, 40):
        assert sqrt(root**2).evaluations == 2 * root**2 - root
        assert sqrt(root**2).slots == max(1, 2 * root - 1)


@given(depths, st.integers(1, 6))
def test_multilevel_evaluates_at_most_levels_times_n(n, levels):
    schedule = multilevel(n, levels)
    assert schedule.evaluations <= levels * n
    assert peak_slots(schedule) <= schedule.slots


@given(depths, st.integers(1, 25))
def test_more_slots_never_cost_more_evaluations(n, s):
    assert binomial(n, s + 1).evaluations <= binomial(n, s).evaluations
    assert binomial(n, s).evaluations <= multilevel(n, 2).evaluations or multilevel(n, 2).slots > s


@given(depths, st.integers(1, 25))
def test_slots_are_used_and_none_is_claimed_in_vain(n, s):
    schedule = binomial(n, s)
    assert peak_slots(schedule) == schedule.slots == min(s, n)


@given(depths)
def test_the_first_sweep_is_the_forward_pass(n):
    for schedule in (store_all(n), sqrt(n), multilevel(n, 3), binomial(n, 4), memory_poor(n)):
        assert sum(row.advance for row in schedule.rows[: schedule.first_sweep]) == n


@given(st.integers(1, 5000))
def test_two_passes_need_about_sqrt_2n_slots(n):
    s = two_pass_slots(n)
    assert binomial(n, s).evaluations <= 2 * n
    assert abs(s - (2 * n) ** 0.5) <= 2


@pytest.mark.parametrize(
    "generator", [store_all, sqrt, memory_poor, lambda n: multilevel(n, 3), lambda n: binomial(n, 20)]
)
def test_a_hundred_thousand_layers_need_no_recursion(generator):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(150)
    try:
        assert generator(100_000).depth == 100_000
    finally:
        sys.setrecursionlimit(limit)


def test_a_schedule_is_an_immutable_value():
    schedule = sqrt(9)
    assert schedule == sqrt(9)
    assert hash(schedule) == hash(sqrt(9))
    with pytest.raises(FrozenInstanceError):
        schedule.slots = 1


def test_the_interpreter_yields_what_is_stored():
    held = [dict(state.slots) for state in interpret(binomial(4, 2))]
    assert held[0] == {0: 0, 1: 3}


@pytest.mark.parametrize(
    ("rows", "slots", "message"),
    [
        ([Row(0, 0, 2, backward=True)], 1, "ends before the backward step that needs h_1"),
        ([Row(0, 0, 1, backward=True)], 1, "needs h_2, the row hands over h_1"),
        ([Row(1, 0, 2, backward=True)], 2, "expects h_0 in slot 1, which holds nothing"),
        ([Row(0, 1, 1, backward=True)], 1, "expects h_1 in slot 0, which holds h_0"),
        ([Row(0, 0, 3, backward=True)], 1, "advances outside the chain of 2 layers"),
        ([Row(0, 0, 1, store=5)], 2, "uses a slot outside 0..1"),
        ([Row(0, 0, 1, store=0), Row(0, 0, 2, backward=True)], 1, "which holds h_1"),
        ([], 0, "at least 1"),
    ],
)
def test_an_invalid_schedule_is_refused_in_one_line(rows, slots, message):
    with pytest.raises(ValueError, match=r"slot|chain|backward|schedule") as refusal:
        Schedule(2, slots, tuple(rows))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@given(st.integers(1, 9), st.integers(1, 4), st.lists(st.tuples(*[st.integers(0, 99)] * 3), max_size=2))
def test_all_rows_at_once_are_judged_as_one_by_one(depth, slots, spoiled):
    """What is accepted passes the rules that stand in ``interpret``, row by row."""
    good = binomial(depth, slots)
    table = good.table.copy()
    for row, column, value in spoiled:
        table[row % len(table), column % 5] = value % 2 if column % 5 == 4 else value % (depth + 2) - 1
    right = object.__new__(Schedule)
    right.__dict__.update(depth=depth, slots=good.slots, table=table)
    try:
        list(interpret(right))
    except ValueError as refusal:
        with pytest.raises(ValueError, match=re.escape(str(refusal))):
            Schedule(depth, good.slots, table)
    else:
        assert Schedule(depth, good.slots, table).depth == depth


@pytest.mark.parametrize(
    "make", [lambda: binomial(-1, 3), lambda: binomial(3, 0), lambda: sqrt(-1), lambda: multilevel(3, 0)]
)
def test_impossible_sizes_are_refused(make):
    with pytest.raises(ValueError, match=r"of at least [01]"):
        make()


def test_rows_read_as_documented():
    assert memory_poor(2).rows == (
        Row(0, 0, 2, NO_STORE, True),
        Row(0, 0, 1, NO_STORE, True),
        Row(0, 0, 0, NO_STORE, True),
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table + np.array([0, 0, 0, 0, 2]), "backward is one of 0 and 1"),
        (lambda table: table + np.array([0, 2**32, 0, 0, 0]), "32 bits"),
        (lambda table: table + 0.5, "whole numbers"),
        (lambda table: table.reshape(2, -1), "rows of load, at, advance, store, backward"),
    ],
)
def test_tables_that_are_no_moves_are_refused(spoil, message):
    with pytest.raises(ValueError, match=message):
        Schedule(4, 4, spoil(store_all(4).table))


def test_a_copy_of_a_schedule_cannot_be_changed_either():
    for made in (binomial(10, 3), pickle.loads(pickle.dumps(binomial(10, 3))), copy.deepcopy(binomial(10, 3))):
        assert made == binomial(10, 3)
        assert hash(made) == hash(binomial(10, 3))
        with pytest.raises(ValueError, match="read-only"):
            made.table[0, 0] = 1


@pytest.mark.parametrize("slots", [2, 10, 300, 2000])
def test_a_schedule_for_a_million_layers_is_the_optimum(slots):
    schedule = binomial(10**6, slots)
    assert schedule.evaluations == theory.optimal_evaluations(10**6, slots)
    assert schedule.slots == slots


def test_long_segments_of_several_levels_are_those_of_short_ones():
    schedule = multilevel(10**6, 3)
    assert (schedule.slots, schedule.evaluations) == (1 + 3 * 99, 3 * 10**6 - 2 * 100**2)


def handed_over(schedule):
    """What the executor's tables hand over to backward steps, executed symbolically, and its evaluations of blocks."""
    held, position, evaluations = {0: 0}, 0, 0
    for at, advance, slot in schedule.first_stores.tolist():
        assert at == position
        held[slot] = position = at + advance
    moves, steps = _tables(schedule)
    positions = [schedule.blocks]  # the forward pass ends there
    for step in steps.tolist():
        for load, at, advance, store in moves[step[STEP.first_move] : step[STEP.end_move]].tolist():
            assert held[load] == at
            held[store], evaluations = at + advance, evaluations + advance
        assert held[step[STEP.load]] == step[STEP.at]
        positions.append(step[STEP.at] + step[STEP.advance])
        evaluations += step[STEP.advance]
    assert max(held) < schedule.slots
    return positions, evaluations + schedule.blocks


def test_every_small_schedule_executed_symbolically():
    for n in range(41):
        for s in range(1, n + 2):
            for schedule in (binomial(n, s), blocks(n, s)):
                assert [state.pending for state in interpret(schedule)][-1] == -1
                positions, evaluations = handed_over(schedule)
                assert positions == list(range(schedule.blocks, -1, -1)), (n, s)
                assert evaluations * schedule.block + schedule.tail == schedule.evaluations, (n, s)
                assert schedule.slots <= max(1, min(s, n)), (n, s)


@given(st.integers(0, 200), st.integers(1, 12), st.integers(1, 20), st.integers(0, 200))
def test_blocks_and_a_tail(n, slots, block, tail):
    if tail > n or (n - tail) % block or (block > 1 and (n - tail) // block == 1):
        with pytest.raises(ValueError, match="layers"):
            blocks(n, slots, block, tail)
        return
    schedule = blocks(n, slots, block, tail)
    count = (n - tail) // block
    assert (schedule.depth, schedule.blocks, schedule.tail) == (n, count, tail)
    assert schedule.taped_evaluations == block * (theory.optimal_evaluations(count, slots) + count) + tail
    if slots >= count:
        assert schedule.taped_evaluations == 2 * n - tail
    positions, _ = handed_over(schedule)
    assert positions == list(range(count, -1, -1))


@given(st.integers(1, 3000), st.integers(1, 40))
def test_a_tail_that_is_not_told_leaves_whole_blocks(n, block):
    schedule = blocks(n, None, block)
    assert schedule.blocks == 0 or (1 <= schedule.tail <= block)
    assert schedule.blocks != 1 or block == 1


@given(st.integers(1, 2000), st.floats(0.2, 8), st.floats(0, 1))
def test_a_budget_is_kept_and_more_of_it_costs_no_evaluation(n, residuals, share):
    least, plain = (blocks(n, 1, 1, tail).memory(residuals) for tail in (1, n))
    budget = least + share * max(plain - least, 0)
    smaller, larger = within(n, budget, residuals), within(n, 1.1 * budget, residuals)
    assert smaller.memory(residuals) <= budget
    assert larger.taped_evaluations <= smaller.taped_evaluations
    if plain <= budget:
        assert smaller.taped_evaluations == n
    with pytest.raises(ValueError, match="at least"):
        within(n, min(least, plain) * 0.99, residuals)


@given(st.integers(2, 40), st.sampled_from([1.0, 3.0, 9.0, 33.125]), st.floats(0, 1))
def test_a_short_chain_gets_the_best_of_all_schedules_of_blocks(n, residuals, share):
    least, plain = (blocks(n, 1, 1, tail).memory(residuals) for tail in (1, n))
    budget = least + share * max(plain - least, 0)
    found = []
    for block in range(1, n // 2 + 1):
        for count in range(1 if block == 1 else 2, n // block + 1):
            for slots in range(1, count + 2):
                made = blocks(n, slots, block, n - count * block)
                found += [made.taped_evaluations] if made.memory(residuals) <= budget else []
    best = min([*found, *([n] if plain <= budget else [])])
    assert within(n, budget, residuals).taped_evaluations == best


@given(st.integers(2, 200), st.floats(0.1, 50))
@settings(max_examples=300)
def test_the_least_budget_of_all_is_one(n, residuals):
    least = blocks(n, 1, 1, 1).memory(residuals)
    assert within(n, least, residuals).memory(residuals) <= least


def test_a_million_layers_are_scheduled_in_no_time():
    n = 10**6
    for schedule in (binomial(n, 20), blocks(n, None, 1000), within(n, 5000.0, 2.0), sqrt(n)):
        assert schedule.depth == n
