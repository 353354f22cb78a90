"""The lecture's animation, drawn from the schedule that ran: what is stored and what is computed, step by step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from adcost.checkpointing import Schedule, binomial, interpret, memory_poor, sqrt, store_all

# The lecture's three strategies and the optimum for three slots, at a depth that every profile measures.
SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "store_all": store_all,
    "memory_poor": memory_poor,
    "sqrt": sqrt,
    "binomial_3": partial(binomial, slots=3),
}
DRAWN = tuple((method, 16) for method in SCHEDULES)


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
    evaluations = 0
    for state in interpret(SCHEDULES[method](depth)):
        evaluations += state.row.advance
        needed = state.pending + state.row.backward
        stored = tuple(sorted({position for position in state.slots.values() if position <= needed}))
        backward = state.pending + 2 if state.row.backward else None
        yield Frame(state.row.at, state.row.advance, stored, backward, evaluations)


@dataclass(frozen=True)
class Animation:
    """A method's schedule at one depth, frame by frame."""

    method: str
    n: int
    frames: list[Frame]

    @property
    def peak(self) -> int:
        """Positions stored at most."""
        return max(len(frame.stored) for frame in self.frames)

    @property
    def evaluations(self) -> int:
        return self.frames[-1].evaluations
