"""Tests run on the CPU and may use float64; what is timed or measured is timed and measured elsewhere."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Code is generated fast rather than fast code: most of a test's time is compilation. Plans are not changed by this.
os.environ["XLA_FLAGS"] = " ".join([*os.environ.get("XLA_FLAGS", "").split(), "--xla_backend_optimization_level=0"])
os.environ.pop("PYTEST_XDIST_WORKER", None)  # what the tests start is no worker of theirs

import jax
from hypothesis import settings
from jaxtyping import install_import_hook

# Types and shapes of the library's face are checked at each call.
FACE = (
    *(
        "advise",
        "arguments",
        "candidates",
        "checkpointing",
        "collectives",
        "evaluation_trace",
        "jacobians",
        "kept_solve",
        "largest",
    ),
    *("modes", "plan", "safe_svd", "targets", "trace_estimators"),
)
install_import_hook([f"adcost.{name}" for name in FACE], "beartype.beartype")
jax.config.update("jax_enable_x64", True)
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=15)
settings.load_profile("suite")
