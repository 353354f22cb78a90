"""How many activations each method of the study ``residuals`` is to store."""

from collections.abc import Mapping

from analysis import theory
from analysis.view import View

# What of the memory is there to be read again in the backward pass, or on its way there.
STORED = ("residual of a loop", "slots of a schedule", "value", "carry of a loop")


def predicted(view: View, n: int) -> Mapping[str, float]:
    """Activations that each method is to store, by the lecture's account or by the policy's own."""
    segments = theory.sqrt_segments(n)
    found = {
        "vanilla": n,
        "vanilla_unrolled": n,
        "remat_whole": n,  # all are computed again, and then all are there
        "keep_nothing": n,  # what goes into each layer
        "keep_products": 2 * n,
        "keep_activations": n,  # what is kept of a layer goes into the next
        "keep_misnamed": n,
        "remat_segments": segments + -(-n // segments),  # what goes into each segment, and one segment's activations
        "remat_unrolled": segments + -(-n // segments),
    }
    slots = {name: view.series(name, "count", "slots").get(n) for name in view.methods}
    return {**found, **{name: float(count) for name, count in slots.items() if count is not None}}
