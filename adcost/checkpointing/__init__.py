"""Checkpointing of a chain of layers: schedules as data, and the one executor that runs any of them."""

from adcost.checkpointing.executor import checkpointed_chain, loop_trips
from adcost.checkpointing.schedules import (
    NO_STORE,
    Row,
    Schedule,
    State,
    binomial,
    interpret,
    memory_poor,
    multilevel,
    peak_slots,
    sqrt,
    store_all,
)

__all__ = [
    "NO_STORE",
    "Row",
    "Schedule",
    "State",
    "binomial",
    "checkpointed_chain",
    "interpret",
    "loop_trips",
    "memory_poor",
    "multilevel",
    "peak_slots",
    "sqrt",
    "store_all",
]
