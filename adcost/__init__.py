"""What automatic differentiation costs in JAX, and how to pay less.

- Checkpointing: ``store_all``, ``memory_poor``, ``sqrt``, ``multilevel``, ``binomial`` and ``blocks`` make schedules;
  ``scan`` is ``lax.scan`` by one, ``checkpointed`` runs all loops of any function so, ``checkpointed_chain`` takes
  layers with parameters; ``while_loop`` is ``lax.while_loop`` with a reverse mode; ``in_parts`` is for programs without
  loops.
- Memory: ``plan`` says what a program takes on a device that need not be here and which line of it holds that, ``diff``
  what changed between two plans; ``advise`` which way to differentiate a loss within a memory, with the code;
  ``largest`` how large it may be. ``compile_for`` and ``planned_bytes`` are the
  compiler itself.
- Modes: ``which_mode`` says whether forward or reverse mode is cheaper for a Jacobian, from the program alone;
  ``jacobian`` and ``hessian`` choose mode and chunk so that it fits, ``chunked_jacobian`` is one of a given chunk.
- ``safe_svd``, ``safe_eigh`` and ``safe_nuclear_norm`` have finite gradients everywhere; ``kept_solve`` is a linear
  solve whose gradient takes the factorisation that is there; ``trace_estimators`` holds Hutchinson's estimator and
  better ones; ``evaluation_trace`` writes both modes out, step by step.
"""

from adcost import trace_estimators
from adcost.advise import Advice, advise
from adcost.checkpointing import (
    Row,
    Schedule,
    binomial,
    blocks,
    checkpointed,
    checkpointed_chain,
    in_parts,
    memory_poor,
    multilevel,
    scan,
    sqrt,
    store_all,
    while_loop,
)
from adcost.difference import Difference, diff
from adcost.evaluation_trace import Node, evaluation_trace
from adcost.jacobians import chunked_jacobian, hessian, jacobian
from adcost.kept_solve import kept_solve
from adcost.largest import largest
from adcost.modes import ModeAdvice, which_mode
from adcost.plan import Plan, plan
from adcost.safe_svd import safe_eigh, safe_nuclear_norm, safe_svd
from adcost.targets import TARGETS
from adcost.targets.compiling import compile_for, mesh, planned_bytes

__all__ = [
    "TARGETS",
    "Advice",
    "Difference",
    "ModeAdvice",
    "Node",
    "Plan",
    "Row",
    "Schedule",
    "advise",
    "binomial",
    "blocks",
    "checkpointed",
    "checkpointed_chain",
    "chunked_jacobian",
    "compile_for",
    "diff",
    "evaluation_trace",
    "hessian",
    "in_parts",
    "jacobian",
    "kept_solve",
    "largest",
    "memory_poor",
    "mesh",
    "multilevel",
    "plan",
    "planned_bytes",
    "safe_eigh",
    "safe_nuclear_norm",
    "safe_svd",
    "scan",
    "sqrt",
    "store_all",
    "trace_estimators",
    "which_mode",
    "while_loop",
]
__version__ = "0.8.0"
