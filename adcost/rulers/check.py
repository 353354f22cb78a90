"""The ruler ``check``: is the gradient right? Its error against the study's reference, which shares no code with it."""

from collections.abc import Iterator
from math import inf
from typing import Any

import jax
import numpy as np

from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import NotMeasured, Number


def take(subject: Subject) -> Iterator[Number]:
    """The largest error of any leaf, relative to the leaf's largest entry; nothing of a yardstick.

    Raises
    ------
    NotMeasured
        If the error is larger than the study's tolerance.
    """
    if not subject.method.differentiates:
        return
    error = _error(subject.program.checked(subject.result), subject.study.reference(subject.case))
    allowed = subject.study.tolerance(subject.case)
    if not (error <= allowed or allowed == inf):  # where any error is allowed, NaN is one
        raise NotMeasured(f"its result is off by {error:.1e} relative, more than the {allowed:.0e} allowed")
    yield Number("check", subject.target.name, "gradient error", "1", error)


def _error(result: Any, expected: Any) -> float:
    errors = [
        np.max(np.abs(np.asarray(a, np.float64) - b)) / max(np.max(np.abs(b)), np.finfo(np.float64).tiny)
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True)
    ]
    return float(np.max(errors))  # NaN in any leaf is NaN here; Python's max would lose it
