"""Checkpointing of a chain of layers: schedules as data, and the one executor that runs any of them."""

from adcost.checkpointing.parts import in_parts
from adcost.checkpointing.rewriting import checkpointed
from adcost.checkpointing.scan import checkpointed_chain, residuals, scan
from adcost.checkpointing.schedules import (
    NO_STORE,
    Row,
    Schedule,
    State,
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
from adcost.checkpointing.while_loop import while_loop

__all__ = [
    "NO_STORE",
    "Row",
    "Schedule",
    "State",
    "binomial",
    "blocks",
    "checkpointed",
    "checkpointed_chain",
    "in_parts",
    "interpret",
    "memory_poor",
    "multilevel",
    "peak_slots",
    "residuals",
    "scan",
    "sqrt",
    "store_all",
    "while_loop",
    "within",
]
