"""The study ``residuals``: every method computes the same gradient."""

import jax
import numpy as np
import pytest

from adcost.suite.vocabulary import Case
from benchmarks.studies import residuals


@pytest.mark.parametrize("method", residuals.METHODS)
def test_every_method_is_the_gradient_by_hand(method):
    case = Case("residuals", method, (("depth", 11), ("width", 4), ("batch", 3)), "float64")
    program = residuals.program(case)
    found = jax.jit(program.run)(*program.inputs())
    np.testing.assert_allclose(found, residuals.STUDY.reference(case), rtol=1e-10, atol=1e-14)


def test_a_schedule_says_its_slots():
    case = Case("residuals", "binomial_10", (("depth", 64), ("width", 4), ("batch", 3)), "float64")
    assert residuals.program(case).facts["slots"] == (10, "activations")
