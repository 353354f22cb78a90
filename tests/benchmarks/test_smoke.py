"""Every method of every study at its smallest size: no ruler that needs no clock may meet an exception."""

import jax
import pytest

from adcost import _jax
from adcost.rulers import count
from adcost.rulers.subject import Subject
from adcost.suite import campaign, probe
from adcost.suite.vocabulary import Case
from adcost.targets import TARGETS
from benchmarks import all_studies


def smallest():
    """The smallest case of each method, by the product of its parameters that are numbers."""
    for study in all_studies().values():
        first: dict[str, Case] = {}
        for case in study.cases("quick"):
            if case.method not in first or volume(case) < volume(first[case.method]):
                first[case.method] = case
        yield from (pytest.param(study, case, id=case.id) for case in first.values())


def volume(case):
    product = 1
    for _, value in case.params:
        product *= max(value, 1) if isinstance(value, int) else 1
    return product


@pytest.mark.parametrize(("study", "case"), smallest())
def test_every_method_is_counted(study, case):
    reason = campaign.unavailable(study, case)
    if reason is not None:
        pytest.skip(reason)
    subject, wide = Subject(case, study, TARGETS["cpu"]), jax.config.jax_enable_x64
    probe.configure(case, subject.method)
    try:
        numbers = {number.quantity: number for number in count.take(subject)}
    finally:
        jax.config.update("jax_enable_x64", wide)
        _jax.set_flags({})
    if subject.program.loss is not None:
        assert numbers["residuals"].value >= 0
    if not {"flops", "evaluations"} & numbers.keys():  # a peer's loop that only the data end
        with pytest.raises(count.DynamicTripCount):
            count.count(subject.program.run, *subject.shapes)
