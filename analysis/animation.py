"""The lecture's animation, drawn from the schedule that ran: what is stored and what is computed, step by step."""

from collections.abc import Iterator
from dataclasses import dataclass

from adcost.checkpointing import interpret
from benchmarks.studies import backprop

# The lecture's three strategies and the optimum for three slots, at a depth that every profile measures.
DRAWN = (("store_all", 16), ("memory_poor", 16), ("sqrt", 16), ("binomial_3", 16))


@dataclass(frozen=True)
class Frame:
    """One row of the schedule: where it starts, what it computes, what is stored after it, what goes backward."""

    start: int  # position that is loaded
    advance: int  # layers evaluated
    stored: tuple[int, ...]  # positions held in slots and still needed, its own backward step included
    backward: int | None  # the backward step taken: of layer i, or of the loss as layer n + 1
    evaluations: int  # so far


def frames(method: str, depth: int) -> Iterator[Frame]:
    """The frames of a method's schedule, a row of the schedule each."""
    schedule = backprop.METHODS[method].schedule
    assert schedule is not None
    evaluations = 0
    for state in interpret(schedule(depth)):
        evaluations += state.row.advance
        needed = state.pending + state.row.backward
        stored = tuple(sorted({position for position in state.slots.values() if position <= needed}))
        backward = state.pending + 2 if state.row.backward else None
        yield Frame(state.row.at, state.row.advance, stored, backward, evaluations)
